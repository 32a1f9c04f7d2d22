"""What the step choose has found so far, on disk: a run that is broken off goes on behind the last try."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penjing.core import RunError
from penjing.pipeline._files import read_sealed, write_sealed

FOLDER = "choose"


@dataclass(frozen=True, kw_only=True)
class Tries:
    """One file per try, written when it is over; `key` names all that the tries depend on."""

    folder: Path
    key: str
    known: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path, about: Mapping[str, Any]) -> "Tries":
        """The tries under `folder`, empty where what is there belongs to other settings or is torn."""
        key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
        found = cls(folder=folder, key=key)
        if found.get("about") is None:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            found.put("about", {})
        return found

    def get(self, name: str) -> dict[str, Any] | None:
        """What `put` stored, None where there is nothing, or nothing whole."""
        if name not in self.known and (self.folder / f"{name}.json").exists():
            try:
                stored = read_sealed(self.folder / f"{name}.json")
            except RunError:
                return None
            if stored.pop("key", None) != self.key:
                return None
            self.known[name] = stored
        return self.known.get(name)

    def put(self, name: str, value: Mapping[str, Any]) -> dict[str, Any]:
        """Stores and returns `value` as JSON gives it back, so that a resumed run sees the very same."""
        write_sealed(self.folder / f"{name}.json", {**value, "key": self.key})
        self.known.pop(name, None)
        stored = self.get(name)
        assert stored is not None
        return stored

    def once(self, name: str, make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """What is stored, or what `make` gives, with the seconds that it took."""
        stored = self.get(name)
        if stored is None:
            begun = time.monotonic()
            made = make()
            taken = time.monotonic() - begun
            stored = self.put(name, {**made, "seconds": taken, "expected": taken})
        return stored

    def spent(self) -> float:
        """Seconds of all tries that are over."""
        names = [path.stem for path in self.folder.glob("*.json")]
        return sum(float((self.get(name) or {}).get("seconds", 0.0)) for name in names)
