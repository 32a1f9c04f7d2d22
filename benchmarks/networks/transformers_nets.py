"""Tiny random-weight networks of `transformers`: one table row per architecture, nothing is downloaded.

A row names the head class, what it is fed, and the config (its class is the head's own `config_class`).
"""

import torch
from torch import nn

from benchmarks.networks._transformers_inputs import Inputs
from benchmarks.networks._transformers_text import TEXT
from benchmarks.networks._transformers_vision import VISION

ROWS = {**TEXT, **VISION}
NAMES: tuple[str, ...] = tuple(ROWS)


def build(name: str) -> tuple[nn.Module, Inputs]:
    """The network in eval mode with seeded random weights, and its example inputs."""
    import transformers

    row = ROWS[name]
    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    head = getattr(transformers, row.head)
    config = head.config_class(**row.config)
    if row.attention is not None:
        config._attn_implementation = row.attention
    model = head(config).eval()
    _settle_weights(model)
    return model, row.feed()


def _settle_weights(model: nn.Module) -> None:
    """Constant parameters (zeros, ones) become random and faint weights grow: both would hide mistakes."""
    generator = torch.Generator().manual_seed(1)
    for tensor in model.parameters():
        if not tensor.is_floating_point() or tensor.numel() < 2:
            continue
        if tensor.std() < 1e-3:
            tensor.data.add_(torch.randn(tensor.shape, generator=generator).to(tensor.dtype) * 0.1)
        if tensor.dim() > 1:
            wanted = tensor[0].numel() ** -0.5
            tensor.data.mul_(max(1.0, wanted / tensor.std().item()))
