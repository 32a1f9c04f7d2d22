"""The run folder: what ran, what finished, and the proof that its files are the ones that were written."""

import hashlib
import platform
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from penjing.core import Recipe, RunError, UsageError, read_yaml
from penjing.pipeline._files import publish, read_json, room_left, sha256, write, write_json

# Files that hold measured times or facts of the machine: two equal runs differ in these alone.
MEASURED = frozenset({"metrics.json", "volatile.json", "README.md"})
_PACKAGES = ("penjing", "torch", "torchvision", "timm", "numpy", "safetensors")


@dataclass(slots=True, kw_only=True)
class RunFolder:
    """A run on disk. `run.json` is its ledger: what is not recorded there as finished did not happen."""

    path: Path
    recipe: Recipe
    ledger: dict[str, Any]
    volatile: dict[str, Any] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        return self.ledger["state"] == "finished"

    def done(self, step: str) -> bool:
        return self.record(step)["state"] == "finished"

    def record(self, step: str) -> dict[str, Any]:
        return next(record for record in self.ledger["steps"] if record["name"] == step)

    def set_state(self, state: str) -> None:
        self.ledger["state"] = state
        self._save()

    def remember(self, key: str, value: Any) -> None:
        """Keeps a fact about the run's inputs; on resume another value is refused."""
        known = self.ledger["inputs"].setdefault(key, value)
        if known != value:
            raise RunError(
                f"{self.path} was started with other inputs: {key} was {known}, now it is {value}. "
                "Restore them to resume, or start in another folder (--out)."
            )

    @contextmanager
    def step(self, name: str) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Gives a folder to write into and a dict for figures; both join the run only at a clean end."""
        staging = self.path / ".staging" / name
        shutil.rmtree(staging, ignore_errors=True)
        figures: dict[str, Any] = {}
        started = time.time()
        with room_left(f"the step {name}", self.path):
            try:
                staging.mkdir(parents=True)
                yield staging, figures
                self._commit(name, publish(staging, self.path), figures, started)
            finally:
                shutil.rmtree(self.path / ".staging", ignore_errors=True)

    def _commit(self, name: str, files: tuple[str, ...], figures: Mapping[str, Any], started: float) -> None:
        sums = {file: sha256(self.path / file) for file in files}
        measured = {file: digest for file, digest in sums.items() if Path(file).name in MEASURED}
        seconds = round(time.time() - started, 3)
        times = {"started": _stamp(started), "finished": _stamp(), "seconds": seconds, "checksums": measured}
        self.volatile["steps"][name] = times
        kept = {file: digest for file, digest in sums.items() if file not in measured}
        self.record(name).update(state="finished", figures=dict(figures), files=kept)
        self._save()

    def _save(self) -> None:
        write_json(self.path / "volatile.json", self.volatile)
        write_json(self.path / "run.json", self.ledger)


def create(path: Path, recipe: Recipe, steps: tuple[str, ...]) -> RunFolder:
    """A fresh run in the empty or new folder `path`, which the caller has locked."""
    text = recipe.to_yaml().encode()
    ledger = {
        "schema_version": 1,
        "state": "running",
        "seed": recipe.seed,
        "recipe_sha256": hashlib.sha256(text).hexdigest(),
        "versions": _versions(),
        "inputs": {},
        "steps": [{"name": name, "state": "pending", "seed": seed_of(recipe.seed, name)} for name in steps],
    }
    run = RunFolder(path=path, recipe=recipe, ledger=ledger, volatile=_volatile())
    with room_left("the start", path):
        write(path / "recipe.yaml", text)
        run._save()
    return run


def reopen(path: Path, recipe: Recipe) -> RunFolder:
    """The run that `path` holds, every recorded file checked; the caller has locked it."""
    ledger, volatile = read_json(path / "run.json"), read_json(path / "volatile.json")
    _check(path / "recipe.yaml", ledger["recipe_sha256"])
    for record in ledger["steps"]:
        if record["state"] == "finished":
            measured = volatile["steps"].get(record["name"], {}).get("checksums", {})
            for file, digest in (record["files"] | measured).items():
                _check(path / file, digest)
    if ledger["versions"] != _versions():
        volatile["resumed_with"] = _versions()
    return RunFolder(path=path, recipe=recipe, ledger=ledger, volatile=volatile)


def occupant(path: Path) -> Recipe | None:
    """The recipe of the run in `path`, None where the folder is free; anything else there is refused."""
    if path.exists() and not path.is_dir():
        raise RunError(f"{path} is a file; a run needs a folder of its own (--out).")
    if not path.exists():
        return None
    if not (path / "run.json").exists():
        begun = {
            ".lock",
            "recipe.yaml",
            "volatile.json",
        }  # all that a run killed before its first record leaves
        if {entry.name for entry in path.iterdir() if not entry.name.endswith(".tmp")} <= begun:
            return None
        raise RunError(f"{path} is not empty and holds no run of Penjing; choose another folder with --out.")
    return stored_recipe(path)


def stored_recipe(path: Path) -> Recipe:
    """The recipe a run folder was started with."""
    file = path / "recipe.yaml"
    if not file.exists():
        raise RunError(f"{path} holds no run: {file} is missing.")
    try:
        return Recipe.of(read_yaml(file), where=str(file))
    except UsageError as error:
        raise RunError(f"{file} is torn or altered: {error}") from None


def differences(ours: Recipe, theirs: Recipe) -> str:
    """The settings in which two recipes differ, for people."""
    left, right = _flat(ours.model_dump(mode="json")), _flat(theirs.model_dump(mode="json"))
    keys = [key for key in left | right if left.get(key) != right.get(key)]
    return "; ".join(f"{key}: {right.get(key)} there, {left.get(key)} asked" for key in keys)


def seed_of(seed: int, step: str) -> int:
    """A step's own seed: a resumed run draws the same numbers as an unbroken one."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{step}".encode()).digest()[:4], "big") >> 1


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def _check(path: Path, digest: str) -> None:
    found = sha256(path) if path.is_file() else "missing"
    if found != digest:
        what = (
            "missing"
            if found == "missing"
            else "torn or altered (its checksum differs from the recorded one)"
        )
        raise RunError(
            f"{path} is {what}; the run cannot go on from it. Start again in another folder (--out)."
        )


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _volatile() -> dict[str, Any]:
    host = {"name": platform.node(), "system": platform.platform(), "machine": platform.machine()}
    return {"started": _stamp(), "host": host, "steps": {}}


def _stamp(moment: float | None = None) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
