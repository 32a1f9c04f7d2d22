"""Words of others, made fit to be shown: no control characters, no giants."""

import difflib
import reprlib
import unicodedata
from collections.abc import Iterable

UNSEEN = frozenset(("Cc", "Cf", "Cs", "Co", "Zl", "Zp"))
SHOWN = 80

_short = reprlib.Repr()
_short.maxstring, _short.maxother, _short.maxlevel = SHOWN, SHOWN, 3


def clean(text: object, *, lines: bool = False) -> str:
    """`text` with every character that a terminal would obey or hide written as an escape.

    `lines` keeps line breaks.

    >>> clean("a\\x1b[31mb\\n")
    'a\\\\x1b[31mb\\\\n'
    """
    return "".join(
        character if (lines and character == "\n") or not _unseen(character) else _escape(character)
        for character in str(text)
    )


def cut(text: str, length: int = SHOWN) -> str:
    """The beginning of `text`, at most `length` characters.

    >>> cut("abcdef", 4)
    'abc…'
    """
    return text if len(text) <= length else text[: length - 1] + "…"


def shown(value: object) -> str:
    """What `repr` says of plain values, at most 80 characters of it, without building the rest."""
    if isinstance(value, int) and value.bit_length() > 256:
        return f"a number of {value.bit_length()} bits"
    return cut(clean(_short.repr(value)))


def nearest(name: str, known: Iterable[str], *, n: int = 1, cutoff: float = 0.5) -> list[str]:
    """The names in `known` most like `name`, best first; capitals do not count.

    >>> nearest("RESNET18", ["vgg11", "resnet18"])
    ['resnet18']
    """
    by_lower = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name[:SHOWN].lower(), by_lower, n=n, cutoff=cutoff)
    return [by_lower[lower] for lower in found]


def _unseen(character: str) -> bool:
    return not character.isprintable() and unicodedata.category(character) in UNSEEN


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
