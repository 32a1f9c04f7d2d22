"""ONNX Runtime."""

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from penjing.core import UsageError
from penjing.runtimes._agree import agree, answers
from penjing.runtimes._graph import Written, open_fixed
from penjing.runtimes._inputs import ExampleInputs, batch_of
from penjing.runtimes._place import device_of
from penjing.runtimes._prepared import WARM_UP, NodeTime
from penjing.runtimes._require import require
from penjing.runtimes._session import feed_of, open_session, ran

_CONTROL = (
    "If",
    "Loop",
    "Scan",
)  # their time holds that of the operators inside, which are listed themselves
_MADE_UP = ("gemm_input_reshape_arg", "gemm_output_reshape_arg")
_NCHWC = "_nchwc"  # what the runtime adds to names in its blocked layout

Shapes = tuple[tuple[int, ...], ...]


@dataclass(slots=True, kw_only=True)
class Onnx:
    """A session on the CPU over a file of fixed sizes, which lies in a folder of its own until `close`."""

    path: Path
    feed: dict[str, Any]
    session: Any
    threads: int
    batch_size: int
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    runtime: str = "onnx"
    note: str = ""

    def run(self) -> Any:
        return self.session.run(None, self.feed)

    def outputs(self) -> tuple[Tensor, ...]:
        return ran(self.session, self.feed)

    def profile(self, runs: int) -> tuple[NodeTime, ...]:
        with tempfile.TemporaryDirectory() as folder:
            lowered = Path(folder, "lowered.onnx")
            session = open_session(self.path, self.threads, profile=Path(folder, "p"), lowered=lowered)
            for _ in range(WARM_UP + runs):
                session.run(None, self.feed)
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
            return _times(events, _nodes(lowered))

    def close(self) -> None:
        self.session = None
        shutil.rmtree(self.path.parent, ignore_errors=True)


def prepare_onnx(model: nn.Module, inputs: ExampleInputs, threads: int) -> Onnx:
    require("onnxruntime", "runtime onnx", "onnx")
    on_cpu(model, "onnx")
    folder, expected = Path(tempfile.mkdtemp(prefix="penjing-onnx-")), answers(model, inputs)

    def opened(written: Written) -> Onnx:
        session = open_session(written.path, threads)
        feed = feed_of(session, written.inputs, inputs)
        agree(ran(session, feed), expected)
        return Onnx(
            path=written.path, feed=feed, session=session, threads=threads, batch_size=batch_of(inputs)
        )

    try:
        return open_fixed(model, inputs, folder, "onnx", opened)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def on_cpu(model: nn.Module, runtime: str) -> None:
    if device_of(model).type != "cpu":
        raise UsageError(
            f"runtime {runtime} is measured on the cpu, and the network lives on {device_of(model)}. "
            "Fix: use device cpu, or runtime eager or compile"
        )


@dataclass(frozen=True, slots=True)
class _Node:
    """A node of the graph as the runtime runs it: its key, and per input a weight's shape or None."""

    key: str
    inputs: tuple[tuple[int, ...] | None, ...]


def _nodes(path: Path) -> dict[str, _Node]:
    """The nodes of the runtime's own graph by name, where a name is one node's alone."""
    graph = require("onnx", "runtime onnx", "onnx").load(str(path), load_external_data=False).graph
    weights = {weight.name: tuple(weight.dims) for weight in graph.initializer}
    readers = {name: node for node in reversed(graph.node) for name in node.input}
    found: dict[str, _Node] = {}
    doubled: set[str] = set()
    for node in graph.node:
        (doubled if node.name in found else set()).add(node.name)
        shapes = tuple(weights.get(name) for name in node.input if name)
        found[node.name] = _Node(key=_key(node, readers), inputs=shapes)
    return {name: node for name, node in found.items() if name and name not in doubled}


def _key(node: Any, readers: Mapping[str, Any]) -> str:
    """The output's name in the file that was exported, whatever layout the runtime chose for it; where the runtime made
    the name up, which counts what it changed before, that of the first node that reads it.
    """
    name, reader = node.output[0], readers.get(node.output[0])
    if node.name.endswith(_NCHWC):
        return node.name.removesuffix(_NCHWC)
    if name.startswith(_MADE_UP) and reader is not None:
        return f"{node.op_type}>{_key(reader, readers)}"
    return f"{node.op_type}:{name}" if node.op_type.startswith("Reorder") else name


def _times(events: Sequence[Mapping[str, Any]], nodes: Mapping[str, _Node]) -> tuple[NodeTime, ...]:
    """Kernel times by node and run; a node inside a loop runs several times, which add up."""
    spans = [(e["ts"], e["ts"] + e["dur"]) for e in events if e["name"] == "model_run"]
    spans = sorted(spans)[WARM_UP:]
    first: dict[tuple[str, str], Mapping[str, Any]] = {}
    spent: dict[tuple[str, str], list[float]] = {}
    for event, run in _kernels(events, spans):
        place = (str(event["args"].get("node_index")), event["name"].removesuffix("_kernel_time"))
        first.setdefault(place, event["args"])
        spent.setdefault(place, [0.0] * len(spans))[run] += event["dur"] / 1e3
    found: list[NodeTime] = []
    seen: dict[str, int] = {}
    for (_, name), args in zip(first, first.values(), strict=True):
        node = nodes.get(name)
        key = node.key if node else name.removesuffix(_NCHWC)
        seen[key] = seen.get(key, 0) + 1
        found.append(
            NodeTime(
                key=key if seen[key] == 1 else f"{key}#{seen[key]}",
                op=args["op_name"],
                inputs=_whole(_shapes(args["input_type_shape"]), node),
                outputs=_shapes(args["output_type_shape"]),
                milliseconds=tuple(spent[(str(args.get("node_index")), name)]),
            )
        )
    return tuple(found)


def _kernels(
    events: Sequence[Mapping[str, Any]], spans: Sequence[tuple[int, int]]
) -> Iterator[tuple[Mapping[str, Any], int]]:
    """The kernels' events with the number of the run they happened in, in order of time."""
    run = 0
    for event in sorted(events, key=lambda event: event["ts"]):
        kernel = event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
        if not kernel or event["args"]["op_name"] in _CONTROL:
            continue
        while run < len(spans) and event["ts"] > spans[run][1]:
            run += 1
        if run < len(spans) and event["ts"] >= spans[run][0]:
            yield event, run


def _shapes(written: Sequence[Mapping[str, Sequence[int]]]) -> Shapes:
    return tuple(tuple(map(int, shape)) for one in written for shape in one.values())


def _whole(given: Shapes, node: _Node | None) -> Shapes:
    """Shapes of all inputs: weights that the runtime packed away are missing from what it tells."""
    if node is None or len(given) >= len(node.inputs):
        return given
    told = iter(given)
    found: list[tuple[int, ...]] = []
    missing = len(node.inputs) - len(given)
    for shape in node.inputs:
        if shape is not None and missing and len(shape) > 1:
            missing -= 1
            found.append(shape)
        else:
            found.append(next(told, shape or ()))
    return tuple(found)
