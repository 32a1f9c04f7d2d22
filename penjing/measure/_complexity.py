"""The figures of one network: what it holds, what it computes, what it takes."""

import json
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from penjing.core import Measurement, UsageError
from penjing.measure._latency import latency as measure_latency
from penjing.measure._macs import count_macs
from penjing.measure._memory import peak_memory
from penjing.measure._state import count_params, state_bytes
from penjing.runtimes import ExampleInputs, refuse_unknown_runtime


@dataclass(frozen=True, slots=True, kw_only=True)
class Complexity:
    """Parameters, multiply-accumulates of one forward on the example inputs as given, bytes of the state.

    `latency` (ms per batch) and `peak_memory` (bytes) carry their environment; None where not asked for.
    Fewer MACs are no promise of less time: compare `latency`, or better ask `speedup`.
    """

    params: int
    macs: int
    size_bytes: int
    latency: Measurement | None = None
    peak_memory: Measurement | None = None

    def __post_init__(self) -> None:
        if min(self.params, self.macs, self.size_bytes) < 0:
            raise UsageError(f"a count cannot be negative: {self}")

    def to_dict(self) -> dict[str, Any]:
        measured = {"latency": self.latency, "peak_memory": self.peak_memory}
        counted = {"params": self.params, "macs": self.macs, "size_bytes": self.size_bytes}
        return counted | {name: figure and figure.to_dict() for name, figure in measured.items()}

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Complexity":
        record = json.loads(text)
        for name in ("latency", "peak_memory"):
            record[name] = record.get(name) and Measurement.from_dict(record[name])
        return cls(**record)


def measure(
    model: nn.Module,
    example_inputs: ExampleInputs,
    runtime: str = "eager",
    batch_size: int | None = None,
    *,
    latency: bool = True,
    memory: bool = True,
    repeats: int = 50,
    warmup: int = 20,
    seconds: float = 10.0,
    threads: int | None = None,
    device: torch.device | str | None = None,
) -> Complexity:
    """Measure a network and leave it as it was.

    `batch_size` re-batches the example inputs (repeating along dim 0) for latency and peak memory; the MACs
    are those of the inputs as given. `runtime` is that of the latency; memory is that of PyTorch itself. See
    `latency`, `count_macs` and `peak_memory` for what each figure is and is not. Counts alone
    (latency=False, memory=False) also work for a network on the meta device.
    UsageError for a runtime that is not known, and where the network does not run on the inputs.
    """
    refuse_unknown_runtime(runtime)
    timed = peak = None
    if latency:
        timed = measure_latency(
            model,
            example_inputs,
            runtime=runtime,
            batch_size=batch_size,
            repeats=repeats,
            warmup=warmup,
            seconds=seconds,
            threads=threads,
            device=device,
        )
    if memory:
        peak = peak_memory(model, example_inputs, batch_size=batch_size, threads=threads, device=device)
    return Complexity(
        params=count_params(model),
        macs=count_macs(model, example_inputs),
        size_bytes=state_bytes(model),
        latency=timed,
        peak_memory=peak,
    )
