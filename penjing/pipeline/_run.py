"""The run folder: what ran, what finished, and the proof that its files are the ones that were written."""

import hashlib
import platform
import shlex
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from penjing.core import Recipe, RunError, UsageError, read_yaml, runs_code
from penjing.pipeline._files import publish, read_sealed, room_left, sha256, write, write_sealed

# Files that hold measured times or facts of the machine: two equal runs differ in these alone.
MEASURED = frozenset({"metrics.json", "smaller.json", "tried.json", "volatile.json", "README.md"})
CACHE = ".cache"  # what a run keeps for its own length
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

    @property
    def steps_done(self) -> tuple[str, ...]:
        """The names of the finished steps, in order."""
        return tuple(record["name"] for record in self.ledger["steps"] if record["state"] == "finished")

    def remember(self, facts: Mapping[str, str]) -> None:
        """Keeps what identifies inputs that a step read; it joins the ledger with the step."""
        self.ledger["inputs"].update(facts)

    def recognise(self, facts: Mapping[str, str]) -> None:
        """Raises `RunError` where inputs differ from those that finished steps read."""
        known = self.ledger["inputs"]
        changed = [key for key in known.keys() & facts.keys() if known[key] != facts[key]]
        if changed:
            told = "; ".join(
                f"{key}: {known[key][:12]} then, {facts[key][:12]} now" for key in sorted(changed)
            )
            raise RunError(
                f"The inputs of {self.path} are not those it was started with ({told}). "
                "Restore them, or start a new run in another folder (--out)."
            )

    def adopt(self, recipe: Recipe, steps: tuple[str, ...]) -> None:
        """Takes over a recipe that agrees with this one in all that finished steps read."""
        text = recipe.to_yaml().encode()
        digest, names = hashlib.sha256(text).hexdigest(), [record["name"] for record in self.ledger["steps"]]
        if digest == self.ledger["recipe_sha256"] and names == list(steps):
            return
        known = {record["name"]: record for record in self.ledger["steps"]}
        self.ledger["next_recipe_sha256"] = digest  # until both files are written, either recipe is valid
        self._save()
        write(self.path / "recipe.yaml", text)
        del self.ledger["next_recipe_sha256"]
        done = self.steps_done
        self.ledger["steps"] = [known[name] if name in done else _pending(recipe, name) for name in steps]
        self.ledger["recipe_sha256"], self.recipe = digest, recipe
        self._save()

    @contextmanager
    def step(self, name: str) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Gives a folder to write into and a dict for figures; both join the run only at a clean end."""
        staging = self.path / ".staging" / name
        shutil.rmtree(staging, ignore_errors=True)
        figures: dict[str, Any] = {}
        started = time.time()
        with room_left(f"the step {name}", self.path, resume_command(self.recipe, self.path)):
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
        write_sealed(self.path / "volatile.json", self.volatile)
        write_sealed(self.path / "run.json", self.ledger)


def create(path: Path, recipe: Recipe, steps: tuple[str, ...]) -> RunFolder:
    """A fresh run in the empty or new folder `path`, which the caller has locked."""
    text = recipe.to_yaml().encode()
    ledger = {
        "schema_version": 1,
        "state": "stopped",
        "seed": recipe.seed,
        "recipe_sha256": hashlib.sha256(text).hexdigest(),
        "versions": _versions(),
        "inputs": {},
        "steps": [_pending(recipe, name) for name in steps],
    }
    for left_over in (".checkpoint", ".staging", CACHE):
        shutil.rmtree(path / left_over, ignore_errors=True)
    run = RunFolder(path=path, recipe=recipe, ledger=ledger, volatile=_volatile())
    with room_left("the start", path, resume_command(recipe, path)):
        write(path / "recipe.yaml", text)
        run._save()
    return run


def reopen(path: Path, recipe: Recipe) -> RunFolder:
    """The run that `path` holds, every recorded file checked; the caller has locked it."""
    ledger, volatile = read_ledger(path), read_sealed(path / "volatile.json")
    check_files(path, ledger, volatile)
    if ledger["versions"] != _versions():
        volatile["resumed_with"] = _versions()
    return RunFolder(path=path, recipe=recipe, ledger=ledger, volatile=volatile)


def check_files(path: Path, ledger: Mapping[str, Any], volatile: Mapping[str, Any]) -> None:
    """Raises `RunError` where a file of a finished step is not the one that was written."""
    for record in ledger["steps"]:
        if record["state"] == "finished":
            measured = volatile["steps"].get(record["name"], {}).get("checksums", {})
            for file, digest in (record["files"] | measured).items():
                _check(path / file, digest)


def read_ledger(path: Path) -> dict[str, Any]:
    """The content of run.json, it and the recipe beside it checked."""
    ledger = read_sealed(path / "run.json")
    valid = (ledger["recipe_sha256"], ledger.get("next_recipe_sha256", ledger["recipe_sha256"]))
    _check(path / "recipe.yaml", *valid)
    return ledger


def occupant(path: Path) -> Recipe | None:
    """The recipe of the run in `path`, None where the folder is free or no step of its run has finished.

    Anything else there is refused.
    """
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
    ledger = read_ledger(path)
    begun = any(record["state"] == "finished" for record in ledger["steps"])
    return stored_recipe(path) if begun else None


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
    keys = changed(ours, theirs)
    return "; ".join(f"{key}: {right.get(key)} there, {left.get(key)} asked" for key in keys)


def changed(ours: Recipe, theirs: Recipe) -> tuple[str, ...]:
    """The dotted names of the settings in which two recipes differ."""
    left, right = _flat(ours.model_dump(mode="json")), _flat(theirs.model_dump(mode="json"))
    return tuple(key for key in left | right if left.get(key) != right.get(key))


def resume_command(recipe: Recipe, path: str | Path) -> str:
    """What to type, in any shell, to go on with the run of `recipe` in `path`: code has to be named again."""
    named = (("--model", recipe.model), ("--teacher", recipe.teacher or ""))
    code = [word for option, source in named if runs_code(source) for word in (option, source)]
    return shlex.join(["penjing", "shape", *code, "--out", str(path), "--resume"])


def seed_of(seed: int, step: str) -> int:
    """A step's own seed: a resumed run draws the same numbers as an unbroken one."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{step}".encode()).digest()[:4], "big") >> 1


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def _pending(recipe: Recipe, step: str) -> dict[str, Any]:
    return {"name": step, "state": "pending", "seed": seed_of(recipe.seed, step)}


def _check(path: Path, *digests: str) -> None:
    found = sha256(path) if path.is_file() else "missing"
    if found not in digests:
        what = (
            "missing"
            if found == "missing"
            else "torn or altered (its checksum differs from the recorded one)"
        )
        raise RunError(
            f"{path} is {what}; the run can be neither shown nor gone on with. Restore the file, or start again in "
            "another folder (--out)."
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
