"""OpenVINO."""

import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from penjing.runtimes._agree import agree, answers
from penjing.runtimes._graph import Written, open_fixed
from penjing.runtimes._inputs import ExampleInputs, batch_of
from penjing.runtimes._onnx import on_cpu
from penjing.runtimes._openvino_core import answer_of, arrays_of, compiled, read
from penjing.runtimes._prepared import WARM_UP, NodeTime
from penjing.runtimes._require import require

_NUMBERED = re.compile(r"^([A-Za-z]+)_\d+$")  # a name that the runtime made up, numbered through the process

Shapes = tuple[tuple[int, ...], ...]


@dataclass(slots=True, kw_only=True)
class OpenVino:
    """A request on the CPU over a model of fixed sizes."""

    model: Any
    arrays: dict[str, Any]
    request: Any
    threads: int
    batch_size: int
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    runtime: str = "openvino"
    note: str = ""

    def run(self) -> Any:
        return self.request.infer(self.arrays, share_inputs=True, share_outputs=True)

    def outputs(self) -> tuple[Tensor, ...]:
        return answer_of(self.request, self.arrays)

    def profile(self, runs: int) -> tuple[NodeTime, ...]:
        timed = compiled(self.model, self.threads, timed=True)
        request = timed.create_infer_request()
        first, last = (self._averages(request, count) for count in (WARM_UP, runs))
        spent = _after(first, last, WARM_UP, runs)
        return _nodes(timed.get_runtime_model().get_ordered_ops(), spent)

    def _averages(self, request: Any, runs: int) -> dict[str, float]:
        for _ in range(runs):
            request.infer(self.arrays, share_inputs=True, share_outputs=True)
        return _averages(request.get_profiling_info())

    def close(self) -> None:
        self.request = self.model = None


def prepare_openvino(model: nn.Module, inputs: ExampleInputs, threads: int) -> OpenVino:
    require("openvino", "runtime openvino", "openvino")
    on_cpu(model, "openvino")
    folder, expected = Path(tempfile.mkdtemp(prefix="penjing-openvino-")), answers(model, inputs)

    def opened(written: Written) -> OpenVino:
        network = read(written.path)
        ready = compiled(network, threads)
        request, arrays = ready.create_infer_request(), arrays_of(ready, written.inputs, inputs)
        agree(answer_of(request, arrays), expected)
        return OpenVino(
            model=network, arrays=arrays, request=request, threads=threads, batch_size=batch_of(inputs)
        )

    try:
        return open_fixed(model, inputs, folder, "openvino", opened)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _averages(told: Iterable[Any]) -> dict[str, float]:
    """What the operators took on average since the start, by name, in milliseconds: whole microseconds, 0 below."""
    return {one.node_name: 1e3 * one.real_time.total_seconds() for one in told}


def _after(
    first: Mapping[str, float], last: Mapping[str, float], skipped: int, runs: int
) -> dict[str, float]:
    """The averages over the `runs` that came after the `skipped` ones.

    >>> round(_after({"a": 9.0}, {"a": 4.0}, 2, 8)["a"], 6)  # 10 runs at 4 on average, the first two at 9
    2.75
    """
    return {
        name: max(0.0, (value * (skipped + runs) - first.get(name, value) * skipped) / runs)
        for name, value in last.items()
    }


def _nodes(operators: Iterable[Any], spent: Mapping[str, float]) -> tuple[NodeTime, ...]:
    """The operators that ran, in the order of the model that the runtime made, each with its average."""
    times: list[NodeTime] = []
    seen: Counter[str] = Counter()
    for node in operators:
        name = node.get_friendly_name()
        if name not in spent or _kind(node) in ("Input", "Output"):
            continue
        made_up = _NUMBERED.match(name)
        key = made_up.group(1) if made_up else name
        seen[key] += 1
        times.append(
            NodeTime(
                key=f"{key}#{seen[key]}" if made_up or seen[key] > 1 else key,
                op=_kind(node),
                inputs=_shapes(node.inputs()),
                outputs=_shapes(node.outputs()),
                milliseconds=(spent[name],),
            )
        )
    return tuple(times)


def _kind(node: Any) -> str:
    told = node.get_rt_info()
    return str(told["layerType"].value) if "layerType" in told else node.get_type_name()


def _shapes(ports: Iterable[Any]) -> Shapes:
    return tuple(tuple(map(int, port.get_shape())) for port in ports if port.get_partial_shape().is_static)
