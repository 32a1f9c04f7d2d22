"""Hidden states and attention matched between teacher and student: what is watched, and the terms it gives."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from penjing.core import Plan, UsageError
from penjing.recover._attention import Attended, attentions
from penjing.recover._hidden import kept_channels
from penjing.recover._layers import (
    LayerMap,
    Layers,
    as_positions,
    examples_of,
    find_layers,
    layer_pairs,
    streams,
)
from penjing.recover._loss_streams import attention_maps, attention_relations, hidden_states
from penjing.recover._losses import DistillationLoss, Needs, Related, Signals, Stream, name_of
from penjing.recover._modules import call, device_of, kept_modes, place
from penjing.recover._positions import at_length, filled
from penjing.recover._protocols import Batch, SequenceTask, Task
from penjing.recover._training import inside
from penjing.structure import fast_paths_off
from penjing.tasks import padding_mask


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

    `terms` are losses with their weights, taken on what is watched; `attends` says whether self-attentions are, and
    `pairs` which streams. `maps` are learned along and thrown away: give their parameters to the optimizer. Nothing
    to watch costs nothing. `whole` are the numbers of self-attentions of student and teacher; in a step that skips
    layers (layer drop) those are left out of the mean, and attention is not compared.
    """

    terms: tuple[tuple[float, DistillationLoss], ...] = ()
    attends: bool = False
    attention_layer: int = -1
    whole: tuple[int, int] = (0, 0)
    pairs: tuple[Pair, ...] = ()
    maps: nn.ModuleList = field(default_factory=nn.ModuleList)
    layers: tuple[Layers, Layers] | None = None

    @contextmanager
    def watching(self, model: nn.Module, inputs: Any, *, teacher: bool = False) -> Iterator[Seen]:
        """Inside, a call of the model on `inputs` is seen."""
        paths = tuple(pair.teacher if teacher else pair.student for pair in self.pairs)
        with ExitStack() as stack:
            found: list[Attended] = []
            if self.attends:
                found = stack.enter_context(attentions(model, examples_of(inputs)))
            elif self.pairs:
                stack.enter_context(fast_paths_off())
            yield Seen(hidden=stack.enter_context(streams(model, paths)), attended=found)

    @property
    def on(self) -> bool:
        return bool(self.pairs or self.attends)

    def signals(
        self, found: Signals, student: Seen, teacher: Seen, task: Task, batch: Batch, logits: Tensor
    ) -> Signals:
        """`found` with what was seen of both networks, padding marked. `logits` are the student's, all positions."""
        if not self.on:
            return found
        mask = filled(task, batch, task.inputs(batch), logits)
        related = None
        if self.attends and self.whole == (len(student.attended), len(teacher.attended)):
            own, other = (seen.attended[self.attention_layer] for seen in (student, teacher))
            keep = at_length(mask, len(own.query), own.query.shape[2], own.query.device)
            related = Related(student=own, teacher=other, keep=keep)
        return replace(found, streams=tuple(self._streams(student, teacher, mask)), attention=related)

    def distance(self, signals: Signals) -> Tensor:
        """The sum of weight * loss over the terms."""
        nothing = signals.student.new_zeros((), dtype=torch.float32)
        return sum((weight * loss(signals) for weight, loss in self.terms), nothing)

    def _streams(self, student: Seen, teacher: Seen, mask: Tensor | None) -> Iterator[Stream]:
        for pair in self.pairs if self.layers else ():
            if self.layers and pair.student in student.hidden and pair.teacher in teacher.hidden:
                own = as_positions(student.hidden[pair.student], self.layers[0])
                other = as_positions(teacher.hidden[pair.teacher], self.layers[1])
                yield Stream(
                    student=own,
                    teacher=other,
                    mapped=own if pair.mapped is None else self.maps[pair.mapped](own),
                    aim=other if pair.kept is None else other[..., pair.kept],
                    keep=None if mask is None else at_length(mask, len(own), own.shape[1], own.device),
                )

    def settings(self) -> dict[str, Any]:
        """Plain values that a resumed run must share."""
        return {
            **{name_of(loss): weight for weight, loss in self.terms},
            "hidden_pairs": [[pair.student, pair.teacher, pair.how] for pair in self.pairs],
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
    needs: Needs = "answers",
) -> Matching:
    """What to draw together, found by running both networks on `batch` in eval mode.

    `hidden` is the weight of "hidden" over the layers of encoders, or the stages of convolutional networks, found and
    paired as `find_layers` and `layer_pairs` say. `attention` is that of "minilm" in one self-attention, the last or
    the one called `attention_layer` (MiniLMv2 takes the last of a small teacher, an upper middle one of a large one),
    and of "attention-transfer" where the layers are stages. `needs` is what the loss on top of them has to see.

    Where widths differ, the student's channels are compared with those of the teacher that `plan` left (it must have
    cut the student from this teacher), or without a plan that says so through a linear map per pair, drawn from
    `seed` and learned along (TinyBERT, Jiao et al., 2020, eq. 8; on maps it is the 1 x 1 regressor of FitNets). Equal
    widths are compared as they are. UsageError where a network has no such layers or attention, or another number of
    positions.
    """
    inside("hidden", hidden, 0)
    inside("attention", attention, 0)
    if not (hidden or attention) and needs == "answers":
        return NOTHING
    both = _both_layers((student, teacher), task, batch)
    staged = both[0] is not None and bool(both[0].grids)
    attends = needs == "attention" or (attention > 0 and not staged)
    terms = [(hidden, hidden_states), (attention, attention_maps if staged else attention_relations)]
    matching = Matching(
        terms=tuple(term for term in terms if term[0]), attends=attends, attention_layer=attention_layer
    )
    if hidden or needs == "streams" or (attention and staged):
        matching = _with_layers(matching, (student, teacher), both, task, batch, hidden_layers, plan, seed)
    own, other = _rehearsed(matching, student, teacher, task, batch)
    return replace(matching, whole=(len(own.attended), len(other.attended)))


def _both_layers(
    models: tuple[nn.Module, nn.Module], task: Task, batch: Batch
) -> tuple[Layers | None, Layers | None]:
    found = [find_layers(model, task.inputs(place(batch, device_of(model)))) for model in models]
    return found[0], found[1]


def _with_layers(
    matching: Matching,
    models: tuple[nn.Module, nn.Module],
    found: tuple[Layers | None, Layers | None],
    task: Task,
    batch: Batch,
    how: LayerMap,
    plan: Plan | None,
    seed: int,
) -> Matching:
    student, teacher = models
    own, other = (
        _checked(layers, whose) for layers, whose in zip(found, ("student", "teacher"), strict=True)
    )
    inputs = task.inputs(place(batch, device_of(teacher)))
    numbers = _paired(own, other, how)
    narrower = {j: own.widths[i] for i, j in numbers if own.widths[i] != other.widths[j]}
    kept = kept_channels(teacher, plan, inputs, other, narrower) if plan is not None and narrower else {}
    pairs, maps = [], nn.ModuleList()
    for i, j in numbers:
        mapped = len(maps) if j in narrower and j not in kept else None
        if mapped is not None:
            maps.append(_linear(own.widths[i], other.widths[j], seed + mapped))
        pairs.append(Pair(student=own.outputs[i], teacher=other.outputs[j], kept=kept.get(j), mapped=mapped))
    padded = own.grids and (isinstance(task, SequenceTask) or padding_mask(inputs) is not None)
    if padded:
        raise UsageError(
            "The inputs are padded, and nothing says which places of a stage it covers: padding would be compared. "
            "Use hidden=0 and attention=0, and a loss that looks at answers alone, such as 'kl'."
        )
    return replace(matching, pairs=tuple(pairs), maps=maps.to(device_of(student)), layers=(own, other))


def _checked(layers: Layers | None, whose: str) -> Layers:
    if layers is None:
        raise UsageError(
            f"hidden matches the layers of encoders and the stages of convolutional networks, and the {whose} has "
            "none: no list of modules of one class whose outputs are all [batch, positions, width], and no map "
            "[batch, channels, height, width]. Use hidden=0."
        )
    return layers


def _paired(own: Layers, other: Layers, how: LayerMap) -> Sequence[tuple[int, int]]:
    if bool(own.grids) != bool(other.grids):
        kinds = ("stages", "layers") if own.grids else ("layers", "stages")
        raise UsageError(
            f"The student has {kinds[0]} and the teacher {kinds[1]}: an encoder's hidden states and a convolutional "
            "network's maps cannot be compared. Use hidden=0 and attention=0, or another teacher."
        )
    numbers = layer_pairs(own, other, how)
    if not numbers:
        raise UsageError(
            f"No stage of the student has the resolution of one of the teacher's: {_grids(own)} and {_grids(other)}. "
            "Use hidden=0 and attention=0, or another teacher."
        )
    return numbers


def _grids(layers: Layers) -> str:
    return ", ".join(f"{height}x{width}" for height, width in layers.grids)


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
        if matching.attends and not -len(found.attended) <= last < len(found.attended):
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
    staged = matching.layers is not None and bool(matching.layers[0].grids)
    hidden = [sorted(stream.shape[2:] if staged else stream.shape[:2]) for stream in seen.hidden.values()]
    attended = [seen.attended[matching.attention_layer].query.shape[2]] if seen.attended else []
    return sorted({size for sizes in hidden for size in sizes}) + attended
