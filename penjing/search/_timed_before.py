"""Networks timed in earlier searches: plain JSON in the user's cache folder, one file per network and place.

What is kept are observations, never a verdict: the network that a search returns is measured anew each time.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from penjing.core._groups import PruneGroup
from penjing.packages import cache_folder
from penjing.runtimes import tensors_of
from penjing.search._latency_table import Observation
from penjing.search._node_time import Seen
from penjing.search._select import Rounding, floor_choices
from penjing.structure import Structure, fingerprint

SCHEMA = 3
SEAL = "sha256"


@dataclass(frozen=True, slots=True)
class Shelf:
    """The file for one network in one place; `about` says which. None as a path keeps and finds nothing."""

    path: Path | None
    about: Mapping[str, Any]

    def read(self) -> tuple[tuple[Observation, ...], str]:
        """What was timed, the whole network first, and a note where a file lies there that cannot be used."""
        if self.path is None:
            return (), ""
        try:
            record = json.loads(self.path.read_text(encoding="utf-8"))
            told = record.pop(SEAL)
            if told != _digest(record) or record["about"] != self.about:
                raise ValueError(
                    "its content does not fit its own checksum, or is of another network or machine"
                )
            return tuple(map(observation_of, record["networks"])), ""
        except FileNotFoundError:
            return (), ""
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            return (), f"{self.path} was not used, and the networks were timed anew: {error}"

    def write(self, observations: Sequence[Observation]) -> str:
        """Replaces the file in one step; a note where the folder cannot be written."""
        if self.path is None:
            return ""
        record: dict[str, Any] = {"about": self.about, "networks": [record_of(one) for one in observations]}
        text = json.dumps({**record, SEAL: _digest(record)}, allow_nan=False)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _replace(self.path, text)
        except OSError as error:
            return f"{self.path} could not be written: {error}"
        return ""


def shelf_for(
    model: nn.Module,
    structure: Structure,
    groups: Sequence[PruneGroup],
    rounding: Rounding,
    *,
    place: Mapping[str, Any],
    example_inputs: Any,
    fresh: bool = False,
) -> Shelf:
    """Where the times of `model` lie that were taken at `place` (`Timekeeper.place`); `fresh` finds and keeps none."""
    about = {
        "schema": SCHEMA,
        "place": dict(place),
        "network": fingerprint(model),
        "graph": _digest([_call(structure, call) for call in structure.graph.calls]),
        "inputs": [[list(t.shape), str(t.dtype)] for t in tensors_of(example_inputs)],
        "groups": {g.name: _digest(floor_choices(g, rounding).tolist()) for g in groups},
    }
    name = f"{_digest(about)[:32]}.json"
    return Shelf(None if fresh else cache_folder() / "latency" / name, about)


def _call(structure: Structure, call: Any) -> list[Any]:
    values = structure.graph.values
    plain = [repr(a) for a in (*call.args, *call.kwargs.items())]
    return [str(call.op), plain, [list(values[v].shape) for v in (*call.inputs, *call.outputs)]]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def record_of(one: Observation) -> dict[str, Any]:
    operators = {
        key: [[list(s) for s in seen.shapes], seen.milliseconds] for key, seen in one.operators.items()
    }
    return {"kept": dict(one.kept), "milliseconds": one.milliseconds, "operators": operators}


def observation_of(record: Mapping[str, Any]) -> Observation:
    operators = {
        key: Seen(tuple(tuple(map(int, s)) for s in shapes), float(milliseconds))
        for key, (shapes, milliseconds) in record["operators"].items()
    }
    kept = {name: int(count) for name, count in record["kept"].items()}
    return Observation(kept=kept, operators=operators, milliseconds=float(record["milliseconds"]))


def _replace(path: Path, text: str) -> None:
    """Writes under another name first: another process, or a crash, never sees a part."""
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise
