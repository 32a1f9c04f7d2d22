"""The layers of a network, found by running an example, and which of a teacher's answers to which of a student's."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from penjing.core import UsageError
from penjing.recover._modules import call, kept_modes
from penjing.structure import fast_paths_off

LayerMap = str | Sequence[tuple[int | str, int | str]]
MAPS = ("uniform", "middle", "last")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """Modules that pass a stream on, in order: the layers of an encoder, or the stages of a convolutional network.

    `names` are their paths and `places` their numbers in the list that holds them, of `slots` entries: a layer
    that was dropped leaves its entry. `outputs` are the paths of the modules whose outputs the stream is read
    from: the layer itself, or where only parts of it are called the last part. `widths` are their numbers of
    channels. Layers pass on [batch, positions, width], or with `time_first` [positions, batch, width]; stages
    [batch, width, height, width of the picture], `grids` being the last two.
    """

    names: tuple[str, ...]
    outputs: tuple[str, ...]
    places: tuple[int, ...]
    slots: int
    widths: tuple[int, ...]
    time_first: bool = False
    grids: tuple[tuple[int, int], ...] = ()


def find_layers(model: nn.Module, inputs: Any) -> Layers | None:
    """The encoder's layers, or else a convolutional network's stages, from one run on `inputs` in eval mode.

    Layers are modules of one class in a `ModuleList` or `Sequential`, whose outputs (or the first of each) are
    all [batch, positions, width] of one shape. Where several lists are like that, the one with most parameters
    is meant. Stages end where the resolution changes: of all maps [batch, channels, height, width] of one
    resolution the one that is finished last, from modules that run once. None where there is neither.
    """
    calls, examples = _calls(model, inputs), examples_of(inputs)
    last: dict[str, tuple[str, torch.Size | None]] = {}
    for path, shape in calls:
        parts = path.split(".")
        for end in range(1, len(parts) + 1):
            last[".".join(parts[:end])] = path, shape
    found = []
    for path, module in model.named_modules():
        if isinstance(module, nn.ModuleList | nn.Sequential):
            layers = _layers_of(path, module, last, examples)
            if layers is not None:
                size = sum(p.numel() for p in module.parameters())
                found.append(((len(layers.names) > 1, size), layers))
    return max(found, key=lambda pair: pair[0])[1] if found else _stages(model, calls, examples)


@torch.no_grad()
def _calls(model: nn.Module, inputs: Any) -> list[tuple[str, torch.Size | None]]:
    """Path and output shape of every module that ran, in the order in which they finished."""
    calls: list[tuple[str, torch.Size | None]] = []

    def note(path: str, output: Any) -> None:
        tensor = stream_of(output)
        calls.append((path, None if tensor is None else tensor.shape))

    with kept_modes(model), fast_paths_off():
        model.eval()
        hooks = [
            module.register_forward_hook(lambda _, __, output, path=path: note(path, output))
            for path, module in model.named_modules()
        ]
        try:
            call(model, inputs)
        finally:
            for hook in hooks:
                hook.remove()
    return calls


def _stages(model: nn.Module, calls: Sequence[tuple[str, torch.Size | None]], examples: int) -> Layers | None:
    """A map's channels come first: as many as some weight gives or scales."""
    widths = {weight.shape[0] for weight in model.parameters() if weight.ndim}
    times, ends = Counter(path for path, _ in calls), {}
    for path, shape in calls:
        mapped = shape is not None and len(shape) == 4 and shape[0] == examples and shape[1] in widths
        if path and shape is not None and mapped and times[path] == 1:
            ends[shape[2:]] = path, shape[1]
    kept = sorted(
        ((grid, *end) for grid, end in ends.items() if grid.numel() > 1), key=lambda s: -s[0].numel()
    )
    if not kept:
        return None
    paths = tuple(path for _, path, _ in kept)
    return Layers(
        names=paths,
        outputs=paths,
        places=tuple(range(len(kept))),
        slots=len(kept),
        widths=tuple(width for *_, width in kept),
        grids=tuple((grid[0], grid[1]) for grid, *_ in kept),
    )


def _layers_of(
    path: str, module: nn.Module, last: Mapping[str, tuple[str, torch.Size | None]], examples: int
) -> Layers | None:
    children = [f"{path}.{name}" if path else name for name, _ in module.named_children()]
    kept = [
        (place, children[place], child)
        for place, child in enumerate(module.children())
        if any(True for _ in child.parameters())
    ]
    ends = [last.get(name, ("", None)) for _, name, _ in kept]
    shape = ends[0][1] if ends else None
    if shape is None or len(shape) != 3 or any(end[1] != shape for end in ends):
        return None
    if len({type(child) for *_, child in kept}) > 1 or examples not in shape[:2]:
        return None
    if not any(shape[2] in p.shape for p in kept[0][2].parameters()):
        return None
    return Layers(
        names=tuple(name for _, name, _ in kept),
        outputs=tuple(end[0] for end in ends),
        places=tuple(place for place, *_ in kept),
        slots=len(children),
        widths=(shape[2],) * len(kept),
        time_first=shape[0] != examples,
    )


def layer_pairs(student: Layers, teacher: Layers, how: LayerMap = "uniform") -> tuple[tuple[int, int], ...]:
    """Numbers (from 0) of the student's layers and of those of the teacher that they should be like.

    "uniform" gives the m-th of M layers the teacher's layer round(m * L / M), counted from 1, so that the last
    goes to the last (Jiao et al., "TinyBERT", Findings of EMNLP 2020, section 4); where the student is the teacher
    less some layers, each goes to itself. A stage goes to the one of its own resolution. "middle" matches one pair
    halfway up (Romero et al., "FitNets", ICLR 2015, section 2.2), "last" the last layers alone. Or pairs
    (student, teacher) of numbers, negative ones from the end, or module paths. Raises UsageError.
    """
    if not isinstance(how, str):
        return tuple(
            (_number(student, own, "student"), _number(teacher, other, "teacher")) for own, other in how
        )
    if how not in MAPS:
        raise UsageError(f"The layer map is one of {', '.join(MAPS)} or pairs of layers, not {how!r}.")
    pairs = _all_pairs(student, teacher)
    return pairs if how == "uniform" else pairs[-1:] if how == "last" else pairs[(len(pairs) - 1) // 2 :][:1]


def _all_pairs(student: Layers, teacher: Layers) -> tuple[tuple[int, int], ...]:
    depth, high = len(student.names), len(teacher.names)
    if student.grids or teacher.grids:
        own, other = student.grids, teacher.grids
        return tuple((i, other.index(grid)) for i, grid in enumerate(own) if grid in other)
    if student.slots == teacher.slots and set(student.places) <= set(teacher.places):
        return tuple((i, teacher.places.index(place)) for i, place in enumerate(student.places))
    return tuple((m - 1, max(1, int(m * high / depth + 0.5)) - 1) for m in range(1, depth + 1))


def _number(layers: Layers, which: int | str, whose: str) -> int:
    if isinstance(which, str) and which in layers.names:
        return layers.names.index(which)
    if isinstance(which, int) and -len(layers.names) <= which < len(layers.names):
        return which % len(layers.names)
    raise UsageError(
        f"The {whose} has no layer {which!r}: it has {len(layers.names)}, {layers.names[0]} to {layers.names[-1]}. "
        "Count from 0, or from -1 at the end."
    )


@contextmanager
def streams(model: nn.Module, paths: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Inside, each call of the model leaves the streams behind the modules at `paths` in the mapping.

    A module that is skipped (layer drop in training) leaves none.
    """
    seen: dict[str, Tensor] = {}

    def note(path: str, output: Any) -> None:
        tensor = stream_of(output)
        if tensor is not None:
            seen[path] = tensor

    hooks = [
        model.get_submodule(path).register_forward_hook(lambda _, __, output, path=path: note(path, output))
        for path in paths
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def stream_of(output: Any) -> Tensor | None:
    """A tensor, or the first of a tuple, list or mapping; None for anything else."""
    if isinstance(output, Mapping):
        output = next(iter(output.values()), None)
    if isinstance(output, tuple | list):
        output = output[0] if output else None
    return output if isinstance(output, Tensor) else None


def examples_of(inputs: Any) -> int:
    """The first dim of the first tensor that the network is called with."""
    parts = (
        inputs.values() if isinstance(inputs, Mapping) else inputs if isinstance(inputs, tuple) else (inputs,)
    )
    return next((len(part) for part in parts if isinstance(part, Tensor) and part.ndim), 0)


def as_positions(stream: Tensor, layers: Layers) -> Tensor:
    """[batch, positions, width]: of a picture every place is a position."""
    if layers.grids:
        return stream.flatten(2).transpose(1, 2)
    return stream.transpose(0, 1) if layers.time_first else stream
