"""Fused attention and recurrent layers in plain operators, which can be followed, replayed and run in float64."""

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

_MODULE = "torch.nn.attention.flex_attention"


@contextmanager
def fast_paths_off() -> Iterator[None]:
    """Inside, transformer layers run their modules' own code, and `flex_attention` computes what it says."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with _flex_attention_written_out():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


@contextmanager
def kernels_written_out() -> Iterator[None]:
    """Inside, recurrent layers run as matrix products."""
    before = torch.backends.mkldnn.set_flags(False)[0]
    try:
        with torch.backends.cudnn.flags(enabled=False):
            yield
    finally:
        torch.backends.mkldnn.set_flags(before)


@contextmanager
def _flex_attention_written_out() -> Iterator[None]:
    """Nothing is done where `torch.nn.attention.flex_attention` is not loaded."""
    flex: Any = sys.modules.get(_MODULE)
    if flex is None:
        yield
        return
    before = flex.flex_attention_hop, flex._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG
    flex.flex_attention_hop, flex._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG = _attend, True
    try:
        yield
    finally:
        flex.flex_attention_hop, flex._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG = before


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    score_mod: Callable[..., torch.Tensor],
    block_mask: tuple[Any, ...],
    scale: float,
    kernel_options: Mapping[str, Any],
    *_: Any,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Outputs, log2-sum-exp and largest scores, the last two only where they are asked for."""
    if key.shape[1] != query.shape[1]:
        groups = query.shape[1] // key.shape[1]
        key, value = (t.repeat_interleave(groups, dim=1) for t in (key, value))
    scores = (query @ key.transpose(-2, -1)) * scale
    flex: Any = sys.modules[_MODULE]
    changed, masked = score_mod is not flex._identity, block_mask[-1] is not flex.noop_mask
    if changed or masked:
        places = _places(scores)
        scores = score_mod(scores, *places) if changed else scores
        scores = scores.masked_fill(~block_mask[-1](*places), float("-inf")) if masked else scores
    nothing = scores.new_empty(0)
    sums = scores.logsumexp(-1) / math.log(2) if kernel_options.get("OUTPUT_LOGSUMEXP") else nothing
    largest = scores.amax(-1) / math.log(2) if kernel_options.get("OUTPUT_MAX") else nothing
    return torch._safe_softmax(scores, -1) @ value, sums, largest


def _places(scores: torch.Tensor) -> list[torch.Tensor]:
    """Numbers of batch, head, query and key, each along its own axis."""
    shapes = [[-1 if axis == own else 1 for axis in range(4)] for own in range(4)]
    return [
        torch.arange(n, device=scores.device).view(shape)
        for n, shape in zip(scores.shape, shapes, strict=True)
    ]
