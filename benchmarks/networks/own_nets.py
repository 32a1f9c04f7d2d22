"""Users' own networks, each a few lines, each with something in it that breaks others."""

from typing import Any

from torch import nn

from benchmarks.networks import own_attention, own_habits, own_sequence, own_vision

_NETWORKS = {
    **own_vision.NETWORKS,
    **own_sequence.NETWORKS,
    **own_attention.NETWORKS,
    **own_habits.NETWORKS,
}
NAMES: tuple[str, ...] = tuple(_NETWORKS)


def build(name: str) -> tuple[nn.Module, Any]:
    model, example = _NETWORKS[name]()
    return model.eval(), example
