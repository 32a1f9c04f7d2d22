"""What the outputs of a checkpoint's own head stand for, and that head with its outputs in another order."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from penjing.core import DataError, SourceError, blank_in, clean, symbols_in

VOCABULARY = "vocab.json"
GENERIC = re.compile(r"label_?\d+", re.IGNORECASE)
SHOWN = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnLabels:
    """The names of a trained head's outputs in order, () where nothing tells them, and `why`."""

    names: tuple[str, ...] = ()
    why: str = ""

    def places(self, labels: Sequence[str] | None) -> tuple[int, ...] | None:
        """For each of `labels` its place among the names; None where they are not the same names."""
        if labels is None or not self.names or sorted(labels) != sorted(self.names):
            return None
        number = {name: n for n, name in enumerate(self.names)}
        return tuple(number[label] for label in labels)


def own_labels(config: Any, *, spells: bool, folder: Path) -> OwnLabels:
    """The classes that the configuration names, or for a network that `spells` the symbols of its vocab.json."""
    if spells:
        return _spelt(config, folder)
    names = tuple(str(config.id2label[n]) for n in sorted(config.id2label or {}))
    if not names or any(GENERIC.fullmatch(name) for name in names):
        return OwnLabels(why=f"the checkpoint gives its classes no names ({_listed(names)})")
    if len(set(names)) != len(names):
        return OwnLabels(why=f"two classes of the checkpoint have one name ({_listed(names)})")
    return OwnLabels(names=names)


def described(own: OwnLabels, labels: Sequence[str], places: Sequence[int] | None, *, spells: bool) -> str:
    """Whether the head of the checkpoint stays, and why not, as a sentence."""
    if places is not None:
        moved = "" if list(places) == sorted(places) else ", its rows in the data's order"
        return f"the checkpoint's own head is kept: it was trained for these {_what(spells)}{moved}"
    if own.why:
        return f"the head is new: {own.why}"
    if spells:
        return f"the head is new: the checkpoint's own is for another alphabet ({_listed(own.names)})"
    return (
        f"the head is new: the checkpoint's own is for {_listed(own.names)}, the data has {_listed(labels)}"
    )


@torch.no_grad()
def reorder(model: nn.Module, wider: nn.Module, places: Sequence[int]) -> None:
    """Put outputs `places` of `model` first, second and so on, in place: all that depends on their number is moved.

    `wider` is the same network with one output more: what has another size there depends on it. Raises SourceError
    where nothing does, or not as one row per output.
    """
    larger, count = dict(_tensors(wider)), len(places)
    moves = [
        (name, tensor, dim)
        for name, tensor in _tensors(model)
        for dim, (own, more) in enumerate(zip(tensor.shape, larger[name].shape, strict=True))
        if own != more
    ]
    odd = [
        name
        for name, tensor, dim in moves
        if (tensor.shape[dim], larger[name].shape[dim]) != (count, count + 1)
    ]
    if odd or not moves:
        raise SourceError(f"it has no row per output in {odd[0] if odd else 'any of its weights'}")
    index = torch.tensor(places)
    for _, tensor, dim in moves:
        tensor.copy_(tensor.index_select(dim, index.to(tensor.device)))


def _spelt(config: Any, folder: Path) -> OwnLabels:
    path = folder / VOCABULARY
    if not path.is_file():
        return OwnLabels(why=f"the checkpoint has no {VOCABULARY} that tells its alphabet")
    try:
        symbols = symbols_in(path, int(config.vocab_size))
    except DataError as error:
        return OwnLabels(why="of the checkpoint, " + str(error).partition(" Fix:")[0].rstrip("."))
    if len(set(symbols)) != len(symbols):
        return OwnLabels(why="the checkpoint's alphabet has a symbol twice")
    pad = getattr(config, "pad_token_id", None)
    if pad is None or pad != blank_in(symbols):
        return OwnLabels(
            why=f"its blank is {pad} to its configuration and {blank_in(symbols)} to its tokenizer"
        )
    return OwnLabels(names=symbols)


def _what(spells: bool) -> str:
    return "symbols" if spells else "classes"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(clean(name) for name in names[:SHOWN]) + more


def _tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [*model.named_parameters(), *model.named_buffers()]
