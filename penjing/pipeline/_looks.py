"""How often examples have been used to certify: each candidate that is tested on them makes the next verdict weaker."""

import contextlib
import json
from pathlib import Path

from penjing.packages import cache_folder
from penjing.pipeline._files import write

FOLDER = "looks"


def looks(data_fingerprint: str, file_fingerprint: str) -> int:
    """Counts this file among those tested on these examples on this machine; returns how many others there were.

    One file tested twice counts once. Where the cache folder cannot be written nothing is kept.
    """
    place = cache_folder() / FOLDER / f"{data_fingerprint[:32]}.json"
    known = _known(place)
    if file_fingerprint not in known:
        with contextlib.suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            write(place, json.dumps([*known, file_fingerprint]).encode())
    return len([one for one in known if one != file_fingerprint])


def told(others: int) -> str:
    """What reuse means, in words; nothing where there was none.

    >>> told(0), told(2)[:41]
    ('', 'these examples have certified 2 other fil')
    """
    if not others:
        return ""
    return (
        f"these examples have certified {others} other file{'s' if others > 1 else ''} on this machine: picking one "
        "that passes makes a wrong certificate likelier than alpha. Fresh examples restore it"
    )


def _known(place: Path) -> list[str]:
    try:
        found = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []
