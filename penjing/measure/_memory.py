"""The most memory one forward holds at a time."""

import weakref
from contextlib import closing
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from penjing.core import Measurement
from penjing.measure._clock import measurement
from penjing.measure._state import state_bytes
from penjing.runtimes import Eager, ExampleInputs, eager, forward, steady, tensors_of


def peak_memory(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    batch_size: int | None = None,
    threads: int | None = None,
    device: torch.device | str | None = None,
) -> Measurement:
    """Bytes of weights, buffers, inputs and activations alive together at the worst moment of one forward.

    On the CPU the live tensors are counted as operations create and release them. What a kernel allocates
    inside (im2col, packed weights, oneDNN scratch) is not seen, nor are Python, torch itself, the allocator's
    slack or training's gradients: it is not the resident set of the process. On CUDA the allocator's own peak
    is used, above what was allocated before, so other networks on the device do not count.
    """
    with closing(eager(model, example_inputs, threads=threads, batch_size=batch_size, device=device)) as one:
        with steady(threads):
            forward(one.model, one.inputs)
            peak = _cuda_peak(one) if one.device.type == "cuda" else _tracked_peak(one)
        return measurement("memory", "bytes", [float(peak)], model, one)


def _tracked_peak(one: Eager) -> int:
    with torch.inference_mode(False), torch.no_grad(), _LiveBytes() as live:
        live.hold((tuple(one.model.parameters()), tuple(one.model.buffers()), one.inputs))
        forward(one.model, one.inputs)
    return live.peak


def _cuda_peak(one: Eager) -> int:
    torch.cuda.synchronize(one.device)
    torch.cuda.reset_peak_memory_stats(one.device)
    before = torch.cuda.memory_allocated(one.device)
    forward(one.model, one.inputs)
    torch.cuda.synchronize(one.device)
    inputs = sum(tensor.numel() * tensor.element_size() for tensor in tensors_of(one.inputs))
    return state_bytes(one.model) + inputs + torch.cuda.max_memory_allocated(one.device) - before


class _LiveBytes(TorchDispatchMode):
    """Adds a storage when an operation first touches it, takes it off when nothing refers to it any more."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self._held: dict[int, weakref.finalize] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.hold((args, kwargs))
        out = func(*args, **(kwargs or {}))
        self.hold(out)
        return out

    def hold(self, value: Any) -> None:
        for tensor in tensors_of(value):
            storage = tensor.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key not in self._held:
                self.now += size
                self._held[key] = weakref.finalize(storage, self._release, key, size)
        self.peak = max(self.peak, self.now)

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for last in self._held.values():
            last.detach()

    def _release(self, key: int, size: int) -> None:
        del self._held[key]
        self.now -= size
