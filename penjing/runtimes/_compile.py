"""torch.compile."""

import sys
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from penjing.core import UsageError
from penjing.runtimes._agree import agree, answers
from penjing.runtimes._graph import quiet
from penjing.runtimes._inputs import ExampleInputs, as_call, batch_of, tensors_of
from penjing.runtimes._place import device_of, untouched
from penjing.runtimes._prepared import NodeTime, steady
from penjing.runtimes._require import cannot_take

APART: dict[str, Any] = (
    {"isolate_recompiles": True} if "isolate_recompiles" in signature(torch.compile).parameters else {}
)
WARM = 3  # runs in which it compiles, and may think again


@dataclass(slots=True, kw_only=True)
class Compiled:
    """Calls what torch.compile (inductor) made of the network, which stays in eval mode until `close`."""

    call: Any
    inputs: ExampleInputs
    device: torch.device
    threads: int
    batch_size: int
    runtime: str = "compile"
    note: str = ""
    held: ExitStack = field(default_factory=ExitStack)

    def run(self) -> Any:
        args, kwargs = as_call(self.inputs)
        with torch.inference_mode():
            return self.call(*args, **kwargs)

    def outputs(self) -> tuple[Tensor, ...]:
        return tuple(tensors_of(self.run()))

    def profile(self, runs: int) -> tuple[NodeTime, ...]:
        return ()

    def close(self) -> None:
        self.held.close()


def prepare_compile(model: nn.Module, inputs: ExampleInputs, threads: int) -> Compiled:
    """Compiles for exactly these sizes, before anything is timed."""
    device = device_of(model)
    if device.type == "cpu":
        _need_compiler()
    expected = answers(model, inputs)
    with ExitStack() as held:
        held.enter_context(untouched(model))
        found = Compiled(
            call=torch.compile(model, dynamic=False, **APART),
            inputs=inputs,
            device=device,
            threads=threads,
            batch_size=batch_of(inputs),
        )
        try:
            with steady(threads), quiet(), _without_end():
                for _ in range(WARM):
                    made = found.outputs()
            agree([tensor.cpu() for tensor in made], expected)
        except Exception as error:
            raise cannot_take(model, "compile", error) from error
        found.held = held.pop_all()
    return found


def _without_end() -> AbstractContextManager[None]:
    """torch.compile counts the networks of a class together and runs the ninth eagerly: inside, it compiles all."""
    return torch._dynamo.config.patch(recompile_limit=sys.maxsize, accumulated_recompile_limit=sys.maxsize)


def _need_compiler() -> None:
    """Raises UsageError where torch.compile would find no C++ compiler."""
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except Exception as error:
        raise UsageError(
            f"runtime compile needs a C++ compiler, and none is found here ({error}). "
            "Fix: install one (apt install g++), name it in the environment variable CXX, or use another runtime"
        ) from error
