"""The symbols that a network spells transcripts with."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from penjing.core import BLANK, DataError, blank_in, clean, symbols_in

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
        return _with_blank(symbols_in(Path(name)), clean(name))
    inside = Path(name) / "vocab.json"
    if len(name) < 4096 and inside.is_file():
        return _with_blank(symbols_in(inside), clean(inside))
    return Alphabet(symbols=(BLANK, *dict.fromkeys(name)))


def fitted(alphabet: Alphabet, transcripts: Sequence[str]) -> tuple[list[str], str]:
    """`transcripts` in the letter case that `alphabet` has, and a remark where that changes them.

    Raises DataError that names and counts the characters that the alphabet lacks.
    """
    found = _recased(alphabet, transcripts)
    if found is None:
        raise DataError(
            f"The alphabet does not cover the transcripts; it lacks {lacking(alphabet, transcripts)}. It has "
            f"{clean(''.join(alphabet.numbers))!r}. Fix: leave these characters out of the transcripts, or give an "
            "alphabet with them (--alphabet); a network that was trained with this one cannot spell them"
        )
    return found


def chosen(
    asked: str | Sequence[str] | None, own: Sequence[str], transcripts: Sequence[str]
) -> tuple[Alphabet, str]:
    """The alphabet `asked` for, else a checkpoint's `own` where it covers the transcripts, else their characters;
    and a remark where its own does not. Raises DataError.
    """
    if asked is not None:
        return alphabet_named(asked), ""
    if not own:
        return alphabet_of(transcripts), ""
    alphabet = alphabet_named(own)
    if _recased(alphabet, transcripts) is not None:
        return alphabet, ""
    return alphabet_of(transcripts), (
        f"The checkpoint's own alphabet does not cover the transcripts; it lacks {lacking(alphabet, transcripts)}: "
        "there is a new head, for the characters of the transcripts"
    )


def lacking(alphabet: Alphabet, transcripts: Sequence[str]) -> str:
    """The characters of `transcripts` that `alphabet` lacks, in the case that lacks the fewest, counted, in words."""
    cases = (list(transcripts), *([case(t) for t in transcripts] for case in _cases(alphabet)))
    missing = min((_missing(alphabet, texts) for texts in cases), key=lambda found: found.total())
    listed = ", ".join(f"{c!r} ({count:,} times)" for c, count in missing.most_common(SHOWN))
    return listed + (f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else "")


def _recased(alphabet: Alphabet, transcripts: Sequence[str]) -> tuple[list[str], str] | None:
    """What `fitted` gives; None where the alphabet covers the transcripts in no case."""
    if not _missing(alphabet, transcripts):
        return list(transcripts), ""
    for case in _cases(alphabet):
        other = [case(text) for text in transcripts]
        if not _missing(alphabet, other):
            return other, f"Transcripts are read in {case.__name__} case, the only one that the alphabet has"
    return None


def _cases(alphabet: Alphabet) -> list[Callable[[str], str]]:
    """The changes of letter case that leave the alphabet as it is."""
    return [
        case for case in (str.upper, str.lower) if all(case(symbol) == symbol for symbol in alphabet.numbers)
    ]


def _missing(alphabet: Alphabet, transcripts: Sequence[str]) -> Counter[str]:
    return Counter(c for text in transcripts for c in text if c not in alphabet.numbers)


def _with_blank(symbols: tuple[str, ...], where: str) -> Alphabet:
    blank = blank_in(symbols)
    if blank is None or len(set(symbols)) != len(symbols):
        raise DataError(
            f"{where} has no blank (<blank> or <pad>), or a symbol twice: {clean(symbols)}. Fix: give every symbol once"
        )
    return Alphabet(symbols=symbols, blank=blank)
