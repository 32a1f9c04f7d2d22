"""The whole of a training between two epochs, and its flat form."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from penjing.core import UsageError

SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainState:
    """Where a training stands at the end of an epoch: nothing else is needed to go on bit for bit.

    Every random choice of an epoch is a function of (seed, stage, epoch), so no generator state is kept; the
    seed is in `settings`, which a resumed run must share. `model` holds parameters and all buffers by name;
    `optimizer` goes from "parameter/field" to tensor; `ema` is the running average or None; `best` are the
    tensors of the best epoch so far (0 is the start), with `score` (larger is better); `start_right` says per example
    of the selection split whether the start got it right, where that matters; `extra` belongs to the step (L2-SP keeps
    its anchors there, hidden-state matching its linear maps).
    """

    stage: str
    epoch: int
    step: int
    model: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    best: Mapping[str, Tensor]
    best_epoch: int
    score: tuple[float, ...]
    ema: Mapping[str, Tensor] | None = None
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    start: Mapping[str, float] = field(default_factory=dict)
    start_right: Tensor | None = None
    history: tuple[Mapping[str, float], ...] = ()
    seconds: float = 0.0
    settings: Mapping[str, Any] = field(default_factory=dict)

    def to_tensors(self) -> dict[str, Tensor]:
        """Contiguous tensors under flat names, fit for safetensors; a shared `best` is not repeated."""
        parts = {"model": self.model, "optimizer": self.optimizer, "ema": self.ema or {}, "extra": self.extra}
        if self._best_is() == "own":
            parts["best"] = self.best
        if self.start_right is not None:
            parts["start"] = {"right": self.start_right}
        return {
            f"{part}/{name}": t.contiguous() for part, named in parts.items() for name, t in named.items()
        }

    def to_json(self) -> str:
        """Everything that is not a tensor."""
        plain = {name: getattr(self, name) for name in _PLAIN}
        return json.dumps({"schema": SCHEMA, "best": self._best_is(), "ema": self.ema is not None, **plain})

    @classmethod
    def from_parts(cls, tensors: Mapping[str, Tensor], text: str) -> "TrainState":
        """The state back from `to_tensors` and `to_json`; anything else raises UsageError."""
        try:
            told = json.loads(text)
            if told["schema"] != SCHEMA:
                raise UsageError(
                    f"This training state has schema {told['schema']}; this version reads {SCHEMA}."
                )
            parts: dict[str, dict[str, Tensor]] = {
                p: {} for p in ("model", "optimizer", "ema", "extra", "best", "start")
            }
            for name, tensor in tensors.items():
                part, _, rest = name.partition("/")
                parts[part][rest] = tensor
            plain = {name: told[name] for name in _PLAIN}
            best = parts["best" if told["best"] == "own" else told["best"]]
            ema = parts["ema"] if told["ema"] else None
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise UsageError(
                f"This is not a training state ({error!r}); pass what TrainState wrote."
            ) from error
        plain |= {"score": tuple(plain["score"]), "history": tuple(plain["history"])}
        return cls(
            model=parts["model"],
            optimizer=parts["optimizer"],
            extra=parts["extra"],
            best=best,
            ema=ema,
            start_right=parts["start"].get("right"),
            **plain,
        )

    def _best_is(self) -> str:
        return "model" if self.best is self.model else "ema" if self.best is self.ema else "own"


_PLAIN = ("stage", "epoch", "step", "best_epoch", "score", "start", "history", "seconds", "settings")


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: Mapping[Tensor, str]) -> dict[str, Tensor]:
    """A copy of the optimizer's state under "parameter/field" names."""
    return {
        f"{names[parameter]}/{key}": value.clone()
        for parameter, fields in optimizer.state.items()
        for key, value in fields.items()
        if isinstance(value, Tensor)
    }


def fill_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], names: Mapping[Tensor, str]
) -> None:
    """Put such a copy into a fresh optimizer, in each parameter's own memory layout."""
    by_name = {name: parameter for parameter, name in names.items()}
    for key, value in tensors.items():
        name, _, part = key.rpartition("/")
        parameter = by_name[name]
        if value.shape == parameter.shape:
            value = torch.empty_like(parameter.detach(), dtype=value.dtype).copy_(value)
        else:
            value = value.clone()
        optimizer.state[parameter][part] = value


def check_state(
    state: TrainState, stage: str, model: Mapping[str, Tensor], settings: Mapping[str, Any]
) -> None:
    """Refuse to go on from the state of another step, network or set of options; the message says which."""
    shapes = [{name: tuple(t.shape) for name, t in named.items()} for named in (state.model, model)]
    others = sorted(
        name for name in shapes[0].keys() | shapes[1].keys() if shapes[0].get(name) != shapes[1].get(name)
    )
    if state.stage != stage or others:
        raise UsageError(
            f"Cannot resume {stage}: the state is of {state.stage} and of "
            f"{'another network, which differs in ' + ', '.join(others[:3]) if others else 'this network'}. "
            "Pass the state of the same step, and the network that its first run was given."
        )
    own, kept = json.loads(json.dumps(settings)), json.loads(json.dumps(state.settings))
    for name in sorted(own.keys() | kept.keys()):
        off = name not in kept and not own[name]  # an option that came later
        if own.get(name) != kept.get(name) and not off:
            raise UsageError(
                f"Cannot resume {stage}: {name} was {kept.get(name)!r} and is now {own.get(name)!r}. "
                "Resume with the options of the first run, or start anew with resume=None."
            )
