"""What the outputs of a network that spells stand for, as tokenizers for CTC write it down. Imports no torch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penjing.core._errors import DataError
from penjing.core._words import clean

BLANK = "<blank>"
BLANKS = (BLANK, "<pad>")
SEPARATOR = "|"
_SPACE = "<space>"
_SPECIAL = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}


def symbols_in(path: Path, rows: int | None = None) -> tuple[str, ...]:
    """The symbols in a vocab.json of transformers, in order: a space between words, `blank_in` finds the blank.

    The tokenizer_config.json beside it may call the blank ("<pad>") and what is between words ("|") otherwise. `rows`
    is how many outputs the network has: then added tokens are read too, and every output must be one character, or
    special and so never spoken. Raises DataError.
    """
    found, config = _read(path), _beside(path, "tokenizer_config.json")
    numbers = sorted(found.values()) if all(type(n) is int for n in found.values()) else None
    if numbers != list(range(len(found))) or not found:
        raise DataError(
            f"{clean(path)} is no vocabulary: its symbols are not numbered from 0 to {len(found) - 1}. Fix: give the "
            "vocab.json of one language"
        )
    blank, separator = _token(config.get("pad_token"), BLANKS[1]), _token(config.get("word_delimiter_token"))
    symbols = sorted(found, key=lambda symbol: found[symbol])
    if rows is not None:
        symbols = _exactly(symbols, rows, _added(path, config), {blank, separator, *_specials(config)})
    if blank not in symbols:
        raise DataError(
            f"{clean(path)} has no blank ({blank!r}). Fix: name it as pad_token in tokenizer_config.json"
        )
    renamed = {blank: blank if _is_found(blank, symbols) else BLANK, separator: " "}
    if separator in symbols and separator != " ":
        renamed[" "] = _SPACE  # spaces are written as the separator, and this one never
    return tuple(renamed.get(symbol, symbol) for symbol in symbols)


def blank_in(symbols: tuple[str, ...]) -> int | None:
    """The number of the blank among `symbols`; None where there is none."""
    return next((symbols.index(blank) for blank in BLANKS if blank in symbols), None)


def _exactly(symbols: list[str], rows: int, added: Mapping[int, str], never: set[str]) -> list[str]:
    """One symbol per output; DataError where one of them is spoken and has several characters, or is not there."""
    symbols = [*symbols, *(added.get(n, f"<unused {n}>") for n in range(len(symbols), rows))]
    spoken = {s for s in symbols if s not in never and (len(s) == 1 or s[:1] + s[-1:] not in ("<>", "[]"))}
    longer = [s for s in symbols[:rows] if s in spoken and len(s) != 1]
    beyond = [s for s in symbols[rows:] if s in spoken]
    if longer:
        raise DataError(f"its alphabet has symbols of several characters ({_listed(longer)})")
    if beyond:
        raise DataError(f"its vocabulary has {_listed(beyond)} beyond its {rows} outputs")
    if len(set(symbols)) != len(symbols):
        raise DataError("its vocabulary has a symbol twice")
    return symbols[:rows]


def _listed(symbols: list[str]) -> str:
    return ", ".join(repr(clean(symbol)) for symbol in symbols[:8])


def _is_found(blank: str, symbols: list[str]) -> bool:
    """Whether `blank_in` takes this one of `symbols` for the blank."""
    return next((b for b in BLANKS if b in symbols), None) == blank


def _added(path: Path, config: Mapping[str, Any]) -> dict[int, str]:
    """Tokens beside the vocabulary, by number."""
    more = _beside(path, "added_tokens.json")
    found = {n: token for token, n in more.items() if type(n) is int}
    decoder = config.get("added_tokens_decoder")
    for number, token in decoder.items() if isinstance(decoder, Mapping) else ():
        if str(number).isdigit():
            found.setdefault(int(number), _token(token, ""))
    return found


def _specials(config: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(_token(config.get(key), usual) for key, usual in _SPECIAL.items())


def _beside(path: Path, name: str) -> dict[str, Any]:
    file = path.with_name(name)
    return _read(file) if file.is_file() else {}


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{clean(path)} cannot be read: {error}. Fix: give a vocab.json") from error
    if not isinstance(found, dict):
        raise DataError(f"{clean(path)} is no JSON object. Fix: give a vocab.json")
    return found


def _token(found: Any, usual: str = SEPARATOR) -> str:
    content = found.get("content") if isinstance(found, Mapping) else found
    return content if isinstance(content, str) else usual
