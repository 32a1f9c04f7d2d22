"""The one interface of distillation losses: what they look at, their registry, and what each needs to see."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from penjing.core import UsageError
from penjing.recover._attention import Attended

Needs = Literal["answers", "streams", "attention"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One stream of the student beside the teacher's that it is drawn to, each [batch, positions, width].

    `mapped` is the student's brought to the teacher's width (itself where widths agree), and `aim` the part of the
    teacher's that it is compared with; `keep` [batch, positions] is false where there is padding, None without any.
    """

    student: Tensor
    teacher: Tensor
    mapped: Tensor
    aim: Tensor
    keep: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Related:
    """One self-attention of both networks, and which positions [batch, positions] count."""

    student: Attended
    teacher: Attended
    keep: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Signals:
    """What a distillation loss may look at for one batch.

    `student` and `teacher` are logits (..., classes), of sequences [n, classes] at the positions that count;
    `targets` are the task's, selected likewise where there is one per position; `progress` runs from 0 to 1
    over the training. `streams` are the layers (or stages) that `match` paired, and `attention` the self-attention
    that it chose; without `match` there are none.
    """

    student: Tensor
    teacher: Tensor
    targets: Any = None
    temperature: float = 1.0
    progress: float = 0.0
    streams: tuple[Stream, ...] = ()
    attention: Related | None = None


DistillationLoss = Callable[[Signals], Tensor]
_LOSSES: dict[str, DistillationLoss] = {}
_NEEDS: dict[DistillationLoss, Needs] = {}


def register_loss(name: str, *, needs: Needs = "answers") -> Callable[[DistillationLoss], DistillationLoss]:
    """Decorator that makes a distillation loss selectable by name; a name already taken raises UsageError.

    `needs` says what must be watched for it: the answers alone, "streams" behind layers, or "attention".
    """

    def add(loss: DistillationLoss) -> DistillationLoss:
        if name in _LOSSES:
            raise UsageError(f"The distillation loss {name!r} is registered already; choose another name.")
        _LOSSES[name], _NEEDS[loss] = loss, needs
        return loss

    return add


def loss_names() -> tuple[str, ...]:
    """The registered names, sorted."""
    return tuple(sorted(_LOSSES))


def find_loss(loss: "str | DistillationLoss") -> DistillationLoss:
    """The loss of that name (a callable is returned as it is); an unknown name raises UsageError."""
    if callable(loss):
        return loss
    if loss not in _LOSSES:
        near = difflib.get_close_matches(loss, _LOSSES, n=1, cutoff=0.0)
        raise UsageError(
            f"Unknown distillation loss {loss!r}; known: {', '.join(loss_names())}. Did you mean {near[0]!r}?"
        )
    return _LOSSES[loss]


def needs_of(loss: "str | DistillationLoss") -> Needs:
    """What must be watched for it; a callable that is not registered gets the answers, and what else is watched."""
    return _NEEDS.get(find_loss(loss), "answers")


def name_of(loss: "str | DistillationLoss") -> str:
    """The registered name, or that of a function of one's own."""
    own = next((name for name, known in _LOSSES.items() if known is loss), None)
    return loss if isinstance(loss, str) else own or getattr(loss, "__qualname__", type(loss).__name__)
