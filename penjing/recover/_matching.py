"""Hidden states and attention matched between teacher and student: what is watched, and the terms it gives."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from penjing.core import Plan, UsageError
from penjing.recover._attention import Attended, attentions, relation_distance
from penjing.recover._hidden import hidden_distance, kept_channels
from penjing.recover._layers import LayerMap, Layers, examples_of, find_layers, layer_pairs, streams
from penjing.recover._modules import call, device_of, kept_modes, place
from penjing.recover._positions import at_length, filled
from penjing.recover._protocols import Batch, Task
from penjing.structure import fast_paths_off


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A student's layer and the teacher's that it is drawn to, by the module whose output is the stream.

    `kept` are the teacher's channels that the student still has; `mapped` is the number of the linear map from the
    student's width to the teacher's; with neither the widths are the same.
    """

    student: str
    teacher: str
    kept: Tensor | None = None
    mapped: int | None = None

    @property
    def how(self) -> str:
        return "kept" if self.kept is not None else "same" if self.mapped is None else "mapped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one call of a network left: streams by module path, and self-attentions in order."""

    hidden: Mapping[str, Tensor] = field(default_factory=dict)
    attended: list[Attended] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Matching:
    """Which layers are drawn together and how strongly; `match` makes one.

    `maps` are learned along and thrown away: give their parameters to the optimizer. A weight of 0 watches
    nothing and costs nothing. `whole` are the numbers of self-attentions of student and teacher; in a step that
    skips layers (layer drop) those are left out of the mean, and attention is not compared.
    """

    hidden: float = 0.0
    attention: float = 0.0
    attention_layer: int = -1
    whole: tuple[int, int] = (0, 0)
    pairs: tuple[Pair, ...] = ()
    maps: nn.ModuleList = field(default_factory=nn.ModuleList)
    student_time_first: bool = False
    teacher_time_first: bool = False

    @contextmanager
    def watching(self, model: nn.Module, inputs: Any, *, teacher: bool = False) -> Iterator[Seen]:
        """Inside, a call of the model on `inputs` is seen."""
        paths = tuple(pair.teacher if teacher else pair.student for pair in self.pairs)
        with ExitStack() as stack:
            found: list[Attended] = []
            if self.attention:
                found = stack.enter_context(attentions(model, examples_of(inputs)))
            elif self.hidden:
                stack.enter_context(fast_paths_off())
            yield Seen(hidden=stack.enter_context(streams(model, paths)), attended=found)

    @property
    def on(self) -> bool:
        return bool(self.hidden or self.attention)

    def distance(self, student: Seen, teacher: Seen, task: Task, batch: Batch, logits: Tensor) -> Tensor:
        """hidden * the mean over pairs of `hidden_distance` + attention * `relation_distance`, without padding."""
        mask, parts = filled(task, batch, task.inputs(batch), logits), []
        if self.hidden:
            parts.append(self.hidden * self._hidden(student, teacher, mask))
        if self.attention and self.whole == (len(student.attended), len(teacher.attended)):
            own, other = (seen.attended[self.attention_layer] for seen in (student, teacher))
            keep = at_length(mask, len(own.query), own.query.shape[2], own.query.device)
            parts.append(self.attention * relation_distance(own, other, keep))
        return torch.stack(parts).sum() if parts else logits.new_zeros(())

    def _hidden(self, student: Seen, teacher: Seen, mask: Tensor | None) -> Tensor:
        found = []
        for pair in self.pairs:
            if pair.student in student.hidden and pair.teacher in teacher.hidden:
                own = _batch_first(student.hidden[pair.student], self.student_time_first)
                other = _batch_first(teacher.hidden[pair.teacher], self.teacher_time_first)
                own = own if pair.mapped is None else self.maps[pair.mapped](own)
                other = other if pair.kept is None else other[..., pair.kept]
                keep = at_length(mask, len(own), own.shape[1], own.device)
                found.append(hidden_distance(own, other, keep))
        nothing = next(iter(teacher.hidden.values())).new_zeros(())
        return torch.stack(found).mean() if found else nothing

    def settings(self) -> dict[str, Any]:
        """Plain values that a resumed run must share."""
        return {
            "hidden": self.hidden,
            "hidden_pairs": [[pair.student, pair.teacher, pair.how] for pair in self.pairs],
            "attention": self.attention,
            "attention_layer": self.attention_layer,
        }


NOTHING = Matching()


def match(
    student: nn.Module,
    teacher: nn.Module,
    task: Task,
    batch: Batch,
    *,
    hidden: float = 0.0,
    hidden_layers: LayerMap = "uniform",
    attention: float = 0.0,
    attention_layer: int = -1,
    plan: Plan | None = None,
    seed: int = 0,
) -> Matching:
    """What to draw together, found by running both networks on `batch` in eval mode.

    Layers are found and paired as `find_layers` and `layer_pairs` say. Where widths differ, the student's channels
    are compared with those of the teacher that `plan` left (it must have cut the student from this teacher), or
    without a plan that says so through a linear map per pair, drawn from `seed` and learned along (TinyBERT, Jiao et
    al., 2020, eq. 8). Equal widths are compared as they are. Attention is matched in one layer, the last or the
    one called `attention_layer` (MiniLMv2 takes the last of a small teacher, an upper middle one of a large one).
    UsageError where a network has no such layers or attention, or another number of positions.
    """
    if hidden < 0 or attention < 0:
        raise UsageError(f"hidden and attention must be at least 0, not {hidden!r} and {attention!r}.")
    matching = Matching(hidden=hidden, attention=attention, attention_layer=attention_layer)
    if hidden:
        matching = _with_layers(matching, (student, teacher), task, batch, hidden_layers, plan, seed)
    if not matching.on:
        return matching
    own, other = _rehearsed(matching, student, teacher, task, batch)
    return replace(matching, whole=(len(own.attended), len(other.attended)))


def _with_layers(
    matching: Matching,
    models: tuple[nn.Module, nn.Module],
    task: Task,
    batch: Batch,
    how: LayerMap,
    plan: Plan | None,
    seed: int,
) -> Matching:
    student, teacher = models
    own = _layers(student, "student", task.inputs(place(batch, device_of(student))))
    inputs = task.inputs(place(batch, device_of(teacher)))
    other = _layers(teacher, "teacher", inputs)
    numbers, same = layer_pairs(own, other, how), own.width == other.width
    kept: Mapping[int, Tensor] = {}
    if plan is not None and not same:
        kept = kept_channels(teacher, plan, inputs, other, {j: own.width for _, j in numbers})
    pairs, maps = [], nn.ModuleList()
    for i, j in numbers:
        mapped = None if same or j in kept else len(maps)
        if mapped is not None:
            maps.append(_linear(own.width, other.width, seed + mapped))
        pairs.append(Pair(student=own.outputs[i], teacher=other.outputs[j], kept=kept.get(j), mapped=mapped))
    return replace(
        matching,
        pairs=tuple(pairs),
        maps=maps.to(device_of(student)),
        student_time_first=own.time_first,
        teacher_time_first=other.time_first,
    )


def _layers(model: nn.Module, whose: str, inputs: Any) -> Layers:
    layers = find_layers(model, inputs)
    if layers is None:
        raise UsageError(
            f"hidden matches the layers of encoders, and the {whose} has none: no list of modules of one class "
            "whose outputs are all [batch, positions, width]. Use hidden=0."
        )
    return layers


def _linear(width: int, high: int, seed: int) -> nn.Linear:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Linear(width, high)


@torch.no_grad()
def _rehearsed(
    matching: Matching, student: nn.Module, teacher: nn.Module, task: Task, batch: Batch
) -> list[Seen]:
    """What both show in eval mode. Refuses attention that is not seen and positions that differ before any training."""
    seen = []
    for model, taught in ((student, False), (teacher, True)):
        inputs = task.inputs(place(batch, device_of(model)))
        with kept_modes(model), matching.watching(model, inputs, teacher=taught) as found:
            model.eval()
            call(model, inputs)
        seen.append(found)
        last = matching.attention_layer
        if matching.attention and not -len(found.attended) <= last < len(found.attended):
            raise UsageError(
                f"attention needs self-attention number {last} of the {'teacher' if taught else 'student'}, in which "
                f"{len(found.attended)} were seen: those computed by scaled_dot_product_attention, or by matmul, "
                "softmax and matmul. Use attention=0 or another attention_layer."
            )
    own, other = (_positions(matching, found) for found in seen)
    if own != other:
        raise UsageError(
            f"The student's layers have {own} positions and the teacher's {other}: their frame rates or tokens differ, "
            "so hidden states and attention cannot be compared. Use hidden=0 and attention=0, or another teacher."
        )
    return seen


def _positions(matching: Matching, seen: Seen) -> list[int]:
    hidden = [sorted(stream.shape[:2]) for stream in seen.hidden.values()]
    attended = [seen.attended[matching.attention_layer].query.shape[2]] if seen.attended else []
    return sorted({size for sizes in hidden for size in sizes}) + attended


def _batch_first(stream: Tensor, time_first: bool) -> Tensor:
    return stream.transpose(0, 1) if time_first else stream
