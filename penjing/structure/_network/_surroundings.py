"""Forwards on data that neither take over what surrounds the call nor leave traces in the network."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn


@contextmanager
def surroundings_off() -> Iterator[None]:
    """Inside, networks run as they are, not in a caller's inference mode, which hides operators and gradients, nor in
    its autocast, which puts casts between weights and their products. Gradients stay on or off.
    """
    grad = torch.is_grad_enabled()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.set_grad_enabled(grad))
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


@contextmanager
def buffers_kept(model: nn.Module) -> Iterator[None]:
    """Every buffer comes out with the values it had, whatever forwards count or store there."""
    before = [(b, b.detach().clone()) for b in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, held in before:
                if not buffer.is_meta and not torch.equal(buffer, held):
                    buffer.copy_(held)
