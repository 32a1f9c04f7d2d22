"""PyTorch as it is."""

import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from penjing.runtimes._inputs import ExampleInputs, as_call, batch_of, tensors_of
from penjing.runtimes._place import device_of, in_place, untouched
from penjing.runtimes._prepared import WARM_UP, NodeTime, checked_threads, steady

Shapes = tuple[tuple[int, ...], ...]


@dataclass(slots=True, kw_only=True)
class Eager:
    """Calls the network itself, which stays in eval mode until `close`."""

    model: nn.Module
    inputs: ExampleInputs
    device: torch.device
    threads: int
    batch_size: int
    runtime: str = "eager"
    note: str = ""
    held: ExitStack = field(default_factory=ExitStack)

    def run(self) -> Any:
        args, kwargs = as_call(self.inputs)
        with torch.inference_mode():
            return self.model(*args, **kwargs)

    def outputs(self) -> tuple[Tensor, ...]:
        return tuple(tensors_of(self.run()))

    def profile(self, runs: int) -> tuple[NodeTime, ...]:
        with steady(self.threads):
            made = [self._stamped() for _ in range(WARM_UP + runs)][WARM_UP:]
        return _together(made)

    def _stamped(self) -> "list[_Stamp]":
        with _Stamps(self.device, self.threads) as stamps:
            self.run()
        return stamps.taken

    def close(self) -> None:
        self.held.close()


def prepare_eager(model: nn.Module, inputs: ExampleInputs, threads: int) -> Eager:
    found = Eager(
        model=model, inputs=inputs, device=device_of(model), threads=threads, batch_size=batch_of(inputs)
    )
    found.held.enter_context(untouched(model))
    return found


def eager(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    threads: int | None = None,
    batch_size: int | None = None,
    device: torch.device | str | None = None,
) -> Eager:
    """The network as PyTorch runs it, with its inputs beside it."""
    return prepare_eager(*in_place(model, example_inputs, batch_size, device), checked_threads(threads))


@dataclass(frozen=True, slots=True)
class _Stamp:
    op: str
    inputs: Shapes
    outputs: Shapes
    milliseconds: float


class _Stamps(TorchDispatchMode):
    """Times every operator that one forward dispatches; in inference mode a linear layer is one. On one thread of the
    CPU by that thread's own time, which leaves out the turns of other programs.
    """

    def __init__(self, device: torch.device, threads: int) -> None:
        super().__init__()
        self.taken: list[_Stamp] = []
        self._cuda = device.type == "cuda"
        alone = device.type == "cpu" and threads == 1
        self._now = time.thread_time_ns if alone else time.perf_counter_ns

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._wait()
        start = self._now()
        out = func(*args, **(kwargs or {}))
        self._wait()
        taken = (self._now() - start) / 1e6
        op = f"{func.namespace}.{func.overloadpacket.__name__}"
        self.taken.append(_Stamp(op, _shapes((args, kwargs)), _shapes(out), taken))
        return out

    def _wait(self) -> None:
        if self._cuda:
            torch.cuda.synchronize()


def _shapes(value: Any) -> Shapes:
    return tuple(tuple(tensor.shape) for tensor in tensors_of(value))


def _together(runs: list[list[_Stamp]]) -> tuple[NodeTime, ...]:
    """The operators that every run dispatched at the same place."""
    return tuple(
        NodeTime(
            key=f"{place}:{stamps[0].op}",
            op=stamps[0].op,
            inputs=stamps[0].inputs,
            outputs=stamps[0].outputs,
            milliseconds=tuple(stamp.milliseconds for stamp in stamps),
        )
        for place, stamps in enumerate(zip(*runs, strict=False))
        if len({stamp.op for stamp in stamps}) == 1
    )
