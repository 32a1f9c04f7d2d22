"""Frozen atoms: one number per cause, so that whatever meets one stays for that cause."""

MOST = 4096


class Causes:
    """Numbers from 0 on, each for one text; those beyond `MOST` share the last."""

    def __init__(self) -> None:
        self._atoms: dict[str, int] = {}
        self._texts: list[str] = []

    def atom(self, text: str) -> int:
        found = self._atoms.get(text)
        if found is None:
            found = self._atoms[text] = min(len(self._atoms), MOST - 1)
            self._texts.append(text)
        return found

    def text(self, atom: int) -> str:
        return self._texts[atom] if atom < len(self._texts) else "frozen"
