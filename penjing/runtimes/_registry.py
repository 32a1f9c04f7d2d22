"""The runtimes by name, and a network placed in one of them."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches

import torch
from torch import nn

from penjing.core import UsageError
from penjing.runtimes._compile import prepare_compile
from penjing.runtimes._eager import prepare_eager
from penjing.runtimes._inputs import ExampleInputs, forward
from penjing.runtimes._onnx import prepare_onnx
from penjing.runtimes._openvino import prepare_openvino
from penjing.runtimes._place import in_place, untouched
from penjing.runtimes._prepared import Prepared, checked_threads, steady

Builder = Callable[[nn.Module, ExampleInputs, int], Prepared]

RUNTIMES: Mapping[str, Builder] = {
    "eager": prepare_eager,
    "compile": prepare_compile,
    "onnx": prepare_onnx,
    "openvino": prepare_openvino,
}


def prepare(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    runtime: str = "eager",
    threads: int | None = None,
    batch_size: int | None = None,
    device: torch.device | str | None = None,
) -> Prepared:
    """`model` in `runtime`, on `threads` threads (None: torch's present number) with `batch_size` examples.

    Raises UsageError for a runtime that is not known or not installed, where the network does not run on the inputs,
    and where the runtime cannot take it.
    """
    refuse_unknown_runtime(runtime)
    pinned = checked_threads(threads)
    model, inputs = in_place(model, example_inputs, batch_size, device)
    with steady(pinned), untouched(model):
        forward(model, inputs)
    return RUNTIMES[runtime](model, inputs, pinned)


def refuse_unknown_runtime(runtime: str) -> None:
    if runtime not in RUNTIMES:
        near = get_close_matches(runtime, RUNTIMES, n=1)
        hint = f"; did you mean {near[0]!r}" if near else ""
        raise UsageError(f"unknown runtime {runtime!r}{hint}. Known: {', '.join(RUNTIMES)}")
