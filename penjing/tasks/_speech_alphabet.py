"""The symbols that a network spells transcripts with."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from penjing.core import DataError, clean

BLANK = "<blank>"
BLANKS = (BLANK, "<pad>")
SEPARATOR = "|"
SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class Alphabet:
    """What the network's outputs stand for, in order; `blank` is the number of the one that says nothing.

    A space parts words. Symbols of more than one character (<s>, <unk>) take a place and are never spoken.
    """

    symbols: tuple[str, ...]
    blank: int = 0

    @cached_property
    def numbers(self) -> Mapping[str, int]:
        """The number of each character that can be spoken."""
        return {s: n for n, s in enumerate(self.symbols) if len(s) == 1 and n != self.blank}

    def encoded(self, transcript: str) -> tuple[int, ...]:
        """Raises KeyError for a character that is not in the alphabet."""
        return tuple(self.numbers[character] for character in transcript)

    def spelt(self, numbers: Sequence[int]) -> str:
        """What the numbers, without blanks and repeats, say: words apart by one space."""
        return " ".join("".join(s for s in (self.symbols[n] for n in numbers) if len(s) == 1).split())


def tidy(transcript: str) -> str:
    """Words apart by one space."""
    return " ".join(transcript.split())


def alphabet_of(transcripts: Sequence[str]) -> Alphabet:
    """The characters of `transcripts` in order, after the blank; the space before all others."""
    return Alphabet(symbols=(BLANK, *sorted({c for text in transcripts for c in text})))


def alphabet_named(name: str | Sequence[str]) -> Alphabet:
    """An alphabet from its symbols, blank among them; from a vocab.json, or the folder that holds it; or from a word of
    its characters, to which a blank is added. Raises DataError.
    """
    if not isinstance(name, str):
        return _with_blank(tuple(name), "the alphabet")
    if not name:
        raise DataError("The alphabet is empty. Fix: give its characters, or a vocab.json")
    if name.endswith(".json"):
        return _from_vocabulary(Path(name))
    inside = Path(name) / "vocab.json"
    if len(name) < 4096 and inside.is_file():
        return _from_vocabulary(inside)
    return Alphabet(symbols=(BLANK, *dict.fromkeys(name)))


def fitted(alphabet: Alphabet, transcripts: Sequence[str]) -> tuple[list[str], str]:
    """`transcripts` in the letter case that `alphabet` has, and a remark where that changes them.

    Raises DataError that names and counts the characters that the alphabet lacks.
    """
    missing = _missing(alphabet, transcripts)
    if not missing:
        return list(transcripts), ""
    for case, changed in (("upper", str.upper), ("lower", str.lower)):
        other = [changed(text) for text in transcripts]
        if not any(changed(s) != s for s in alphabet.numbers) and not _missing(alphabet, other):
            return other, f"Transcripts are read in {case} case, the only one that the alphabet has"
    listed = ", ".join(f"{c!r} ({count:,} times)" for c, count in missing.most_common(SHOWN))
    more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
    raise DataError(
        f"The alphabet does not cover the transcripts; it lacks {listed}{more}. It has "
        f"{clean(''.join(alphabet.numbers))!r}. Fix: leave these characters out of the transcripts, or give an "
        "alphabet with them (--alphabet); a network that was trained with this one cannot spell them"
    )


def _missing(alphabet: Alphabet, transcripts: Sequence[str]) -> Counter[str]:
    return Counter(c for text in transcripts for c in text if c not in alphabet.numbers)


def _from_vocabulary(path: Path) -> Alphabet:
    """A vocab.json of transformers: symbol to number, "|" between words, "<pad>" as blank, unless the
    tokenizer_config.json beside it calls them otherwise.
    """
    found = _json(path)
    numbers = sorted(found.values()) if all(isinstance(n, int) for n in found.values()) else None
    if numbers != list(range(len(found))) or not found:
        raise DataError(
            f"{clean(path)} is no vocabulary: its symbols are not numbered from 0 to {len(found) - 1}. Fix: give the "
            "vocab.json of one language"
        )
    beside = path.with_name("tokenizer_config.json")
    config = _json(beside) if beside.is_file() else {}
    separator = _token(config.get("word_delimiter_token"), SEPARATOR)
    blank = _token(config.get("pad_token"), BLANKS[1])
    symbols = tuple(sorted(found, key=lambda symbol: found[symbol]))
    if blank not in found:
        raise DataError(f"{clean(path)} has no blank ({blank!r}). Fix: name it as pad_token in {beside.name}")
    return Alphabet(symbols=tuple(" " if s == separator else s for s in symbols), blank=symbols.index(blank))


def _with_blank(symbols: tuple[str, ...], where: str) -> Alphabet:
    blank = next((b for b in BLANKS if b in symbols), None)
    if blank is None or len(set(symbols)) != len(symbols):
        raise DataError(
            f"{where} has no blank ({' or '.join(BLANKS)}), or a symbol twice: {clean(symbols)}. "
            "Fix: give every symbol once"
        )
    return Alphabet(symbols=symbols, blank=symbols.index(blank))


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"{clean(path)} cannot be read: {error}. Fix: give a vocab.json") from error
    if not isinstance(found, dict):
        raise DataError(f"{clean(path)} is no JSON object. Fix: give a vocab.json")
    return found


def _token(found: Any, usual: str) -> str:
    content = found.get("content") if isinstance(found, Mapping) else found
    return content if isinstance(content, str) else usual
