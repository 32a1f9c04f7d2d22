"""Where a forward's time goes, block by block."""

import statistics
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from penjing.measure._state import count_params
from penjing.runtimes import ExampleInputs, as_call, untouched

MOST, HELD = 24, 0.12  # blocks, and the share of the parameters above which a block is taken apart
WARM_UP = 3
LISTS = (nn.ModuleList, nn.ModuleDict)


def blocks_of(model: nn.Module, most: int = MOST) -> tuple[str, ...]:
    """Modules that the forward consists of, at most about `most`: the largest are taken apart, in the order in which
    they are held.
    """
    parts = [name for name, _ in model.named_children()]
    whole = max(1, count_params(model))
    while parts:
        able = [path for path in parts if _may_open(model, path, whole)]
        lists = [path for path in able if isinstance(model.get_submodule(path), LISTS)]
        able = lists or [path for path in able if len(parts) + _children(model, path) - 1 <= most]
        if not able:
            break
        largest = max(able, key=lambda path: count_params(model.get_submodule(path)))
        at = parts.index(largest)
        parts[at : at + 1] = [
            f"{largest}.{name}" for name, _ in model.get_submodule(largest).named_children()
        ]
    return tuple(parts)


def block_times(
    model: nn.Module, inputs: ExampleInputs, blocks: tuple[str, ...], *, repeats: int = 15
) -> Mapping[str, float]:
    """Median milliseconds of each block in a forward of the ordinary runtime, all its calls together, and "" of the
    whole.

    Blocks that the network lacks, and those that are never called, are left out. Times are of the CPU's clock: on a GPU
    they say when work was handed over, not how long it took. What happens between the blocks is in the whole alone.
    """
    there = dict(model.named_modules())
    known = [path for path in blocks if path in there]
    spent: dict[str, list[float]] = {path: [] for path in ("", *known)}
    args, kwargs = as_call(inputs)
    handles: list[Any] = []
    for path in known:
        handles += _timed(there[path], spent[path])
    try:
        with untouched(model), torch.inference_mode():
            model.eval()
            for _ in range(WARM_UP + repeats):
                for path in known:
                    spent[path].append(0.0)
                begun = time.perf_counter()
                model(*args, **kwargs)
                spent[""].append(1e3 * (time.perf_counter() - begun))
    finally:
        for handle in handles:
            handle.remove()
    medians = {path: statistics.median(times[WARM_UP:]) for path, times in spent.items()}
    return {path: value for path, value in medians.items() if value > 0}


def _timed(module: nn.Module, spent: list[float]) -> list[Any]:
    """Adds the time of every call to the last of `spent`."""
    begun: list[float] = []

    def start(*_: Any) -> None:
        begun.append(time.perf_counter())

    def end(*_: Any) -> None:
        spent[-1] += 1e3 * (time.perf_counter() - begun.pop())

    return [module.register_forward_pre_hook(start), module.register_forward_hook(end)]


def _may_open(model: nn.Module, path: str, whole: int) -> bool:
    module = model.get_submodule(path)
    if not _children(model, path):
        return False
    return isinstance(module, LISTS) or count_params(module) / whole > HELD


def _children(model: nn.Module, path: str) -> int:
    return sum(1 for _ in model.get_submodule(path).children())
