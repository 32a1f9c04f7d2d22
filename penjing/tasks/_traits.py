"""What can be told of an example without its label: how long, how loud, how bright it is."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from penjing.core import Pictures, Reads, Sounds

PARTS = 4
NAMES = ("lowest", "lower", "higher", "highest")
FEWEST = 40  # examples that quarters are made of


def traits(inputs: Any, reads: Reads) -> Mapping[str, Tensor]:
    """Of a batch of inputs, float64 [n] each: brightness and contrast of pictures, tokens of texts, length and loudness
    of sounds; nothing where the inputs do not tell.
    """
    if isinstance(reads, Pictures):
        pixels = _first(inputs).double().flatten(1)
        return {"brightness": pixels.mean(1), "contrast": pixels.std(1)}
    mask = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
    length = {} if mask is None or mask.dim() < 2 else {"length": mask.flatten(1).sum(1).double()}
    if isinstance(reads, Sounds):
        values = _first(inputs).double().flatten(1)
        return length | {"loudness": values.square().mean(1).sqrt()}
    return length


def quarters(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """By name ("length: lowest quarter") which examples belong to it, bool [n], ties going to the lower one.

    >>> int(quarters({"length": np.arange(100.0)})["length: highest quarter"].sum())
    25
    """
    found: dict[str, np.ndarray] = {}
    for trait, told in values.items():
        if len(told) < FEWEST or not np.isfinite(told).all():
            continue
        ends = np.quantile(told, np.arange(1, PARTS) / PARTS)
        at = np.searchsorted(ends, told, side="left")
        if len(np.unique(at)) > 1:
            found |= {f"{trait}: {name} quarter": at == part for part, name in enumerate(NAMES)}
    return {name: part for name, part in found.items() if part.any()}


def traits_of(batches: Any, reads: Reads) -> dict[str, np.ndarray]:
    """The traits of all examples in batches of inputs, in order."""
    told = [traits(inputs, reads) for inputs in batches]
    return {name: torch.cat([one[name] for one in told]).numpy() for name in (told[0] if told else ())}


def _first(inputs: Any) -> Tensor:
    """The tensor that holds the example itself."""
    if isinstance(inputs, Tensor):
        return inputs
    values = inputs.values() if isinstance(inputs, Mapping) else inputs
    return next(value for value in values if isinstance(value, Tensor))
