"""Exponential moving average of a model's tensors."""

from collections.abc import Mapping

import torch
from torch import Tensor


class Average:
    """A running average beside the weights: avg += (1 - d) * (w - avg), d = min(decay, (1 + t) / (10 + t)).

    The bound on d lets a short training forget its start (as in TensorFlow's ExponentialMovingAverage).
    Integer buffers are copied. Batch-norm statistics are averaged too.
    """

    def __init__(self, live: Mapping[str, Tensor], decay: float) -> None:
        self._decay = decay
        self.tensors = {name: t.clone() for name, t in live.items()}
        names = [name for name, t in live.items() if t.is_floating_point()]
        self._float = (names, [self.tensors[name] for name in names])
        self._other = [name for name, t in live.items() if not t.is_floating_point()]

    @torch.no_grad()
    def update(self, live: Mapping[str, Tensor], step: int) -> None:
        """Move towards `live`, the same mapping of tensors as at the start, after optimizer step `step`."""
        names, averaged = self._float
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(averaged, [live[name] for name in names], 1 - decay)
        for name in self._other:
            self.tensors[name].copy_(live[name])
