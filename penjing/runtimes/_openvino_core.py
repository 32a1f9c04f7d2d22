"""OpenVINO on the CPU: models read and compiled, and what they answer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from penjing.runtimes._inputs import ExampleInputs, tensors_of
from penjing.runtimes._prepared import own_denormals
from penjing.runtimes._require import require

PRECISION = "INFERENCE_PRECISION_HINT"


def read(path: Path) -> Any:
    """The model in an ONNX file or in OpenVINO's own .xml."""
    return _openvino().Core().read_model(str(path))


def compiled(model: Any, threads: int, *, timed: bool = False) -> Any:
    """`model` for the CPU: one request at a time on `threads` threads, in float32, denormals flushed.

    `timed` makes its requests tell what every operator took.
    """
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,
        PRECISION: "f32",
        "CPU_DENORMALS_OPTIMIZATION": True,
        "PERF_COUNT": timed,
    }
    with own_denormals():
        return _openvino().Core().compile_model(model, "CPU", options)


def read_and_compiled(path: Path) -> Any:
    """The model in a file, compiled as OpenVINO does where it is told nothing."""
    with own_denormals():
        return _openvino().Core().compile_model(str(path), "CPU")


def arrays_of(model: Any, names: Sequence[str], inputs: ExampleInputs) -> dict[str, Any]:
    """The arrays by the names that the compiled model still asks for."""
    wanted = {name for port in model.inputs for name in port.get_names()}
    arrays = zip(names, tensors_of(inputs), strict=True)
    return {name: tensor.numpy(force=True) for name, tensor in arrays if name in wanted}


def answer_of(request: Any, arrays: dict[str, Any]) -> tuple[Tensor, ...]:
    """Every tensor of one inference, in order."""
    with own_denormals():
        return tuple(torch.from_numpy(value.copy()) for value in request.infer(arrays).values())


def _openvino() -> Any:
    return require("openvino", "runtime openvino", "openvino")
