"""A session of ONNX Runtime on the CPU."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from penjing.runtimes._inputs import ExampleInputs, tensors_of
from penjing.runtimes._prepared import own_denormals
from penjing.runtimes._require import require


def open_session(
    path: Path, threads: int, *, profile: Path | None = None, lowered: Path | None = None
) -> Any:
    """A session of ONNX Runtime on `threads` threads, which flushes denormals and rests between runs."""
    runtime = require("onnxruntime", "runtime onnx", "onnx")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4  # what fails is raised
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    options.add_session_config_entry("session.force_spinning_stop", "1")  # two in turns: only one is busy
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    if lowered is not None:
        options.optimized_model_filepath = str(lowered)
    with own_denormals():
        return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def feed_of(session: Any, names: Sequence[str], inputs: ExampleInputs) -> dict[str, Any]:
    """The arrays by the names that the session still asks for: inputs nothing reads may be gone."""
    wanted = {value.name for value in session.get_inputs()}
    arrays = zip(names, tensors_of(inputs), strict=True)
    return {name: tensor.numpy(force=True) for name, tensor in arrays if name in wanted}


def ran(session: Any, feed: dict[str, Any]) -> tuple[Tensor, ...]:
    """Every tensor of the session's answer, in order."""
    with own_denormals():
        return tuple(torch.from_numpy(value) for value in session.run(None, feed))
