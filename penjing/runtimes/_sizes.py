"""Other sizes of the same inputs: batches and lengths that a file for elsewhere may meet."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from penjing.core import UsageError
from penjing.runtimes._agree import answers
from penjing.runtimes._inputs import ExampleInputs, batch_of, map_tensors, rebatch, tensors_of

BATCH, LENGTH = "batch", "length"
FAR = 64  # times the example's size: a limit beyond that is believed

Limits = Mapping[
    str, tuple[int, int | None]
]  # the least and the most of what may vary; None: no end is known


@dataclass(frozen=True, slots=True)
class Trial:
    """Inputs of some size; `longer` than the example, which PyTorch itself may refuse."""

    inputs: ExampleInputs
    longer: bool = False


def check_lengths(inputs: ExampleInputs, lengths: object) -> None:
    """Raises UsageError unless `lengths` are dims, after the batch's, that some input has."""
    whole = isinstance(lengths, tuple) and all(type(dim) is int and dim >= 1 for dim in lengths)
    if not whole:
        raise UsageError(
            f"lengths={lengths!r} must be a tuple of dims from 1 on that may vary, such as (1,) for token ids"
        )
    most = max((tensor.dim() for tensor in tensors_of(inputs)), default=0)
    if isinstance(lengths, tuple) and any(dim >= most for dim in lengths):
        raise UsageError(f"lengths={lengths!r} names a dim that no input has: they have at most {most}")


def resized(
    inputs: ExampleInputs,
    lengths: tuple[int, ...],
    *,
    batch: int | None = None,
    length: Callable[[int], int] | None = None,
) -> ExampleInputs:
    """The inputs with `batch` examples, and `length` of what they have in the dims `lengths`: repeated or cut."""
    made = rebatch(inputs, batch)
    if length is None:
        return made

    def change(tensor: Tensor) -> Tensor:
        for dim in (dim for dim in lengths if tensor.dim() > dim and tensor.shape[dim]):
            now, wanted = tensor.shape[dim], length(tensor.shape[dim])
            tensor = torch.cat([tensor] * -(-wanted // now), dim).narrow(dim, 0, wanted)
        return tensor.clone()

    return map_tensors(change, made)


def shorter(length: int) -> int:
    return max(1, 3 * length // 4)


def longer(length: int) -> int:
    return length + max(1, length // 4)


def length_of(inputs: ExampleInputs, lengths: tuple[int, ...]) -> int:
    """The first size in one of the dims `lengths`; 1 where no input has them."""
    sizes = (t.shape[dim] for t in tensors_of(inputs) for dim in lengths if t.dim() > dim)
    return next(sizes, 1)


def other(inputs: ExampleInputs, vary: str, lengths: tuple[int, ...]) -> ExampleInputs:
    """The inputs with two examples more, or shorter, as long as that can be."""
    if vary == BATCH:
        return resized(inputs, lengths, batch=batch_of(inputs) + 2)
    return resized(inputs, lengths, length=shorter if length_of(inputs, lengths) > 1 else longer)


def trials(inputs: ExampleInputs, vary: tuple[str, ...], lengths: tuple[int, ...]) -> Iterator[Trial]:
    """The inputs as they are; other batches, a single example among them; shorter and longer ones; both together."""
    examples = batch_of(inputs)
    yield Trial(map_tensors(torch.clone, inputs))
    if BATCH in vary:
        yield Trial(other(inputs, BATCH, lengths))
        if examples > 1:
            yield Trial(resized(inputs, lengths, batch=1))
    if LENGTH in vary:
        yield Trial(other(inputs, LENGTH, lengths), longer=length_of(inputs, lengths) == 1)
        yield Trial(resized(inputs, lengths, length=longer), longer=True)
    if len(vary) > 1:
        yield Trial(other(other(inputs, LENGTH, lengths), BATCH, lengths))


def ranges(exported: Any, asked: list[dict[int, str]]) -> Limits:
    """What torch.export found out about sizes while it followed one way through the network."""
    if exported is None:
        return {}
    found: dict[str, tuple[int, int | None]] = {}
    values = {node.name: node.meta.get("val") for node in exported.graph.nodes if node.op == "placeholder"}
    for name, dims in zip(exported.graph_signature.user_inputs, asked, strict=False):
        for dim, what in dims.items():
            size = values[name].shape[dim] if values.get(name) is not None else None
            bounds = exported.range_constraints.get(getattr(getattr(size, "node", None), "expr", None))
            if bounds is not None:
                low = int(bounds.lower) if int(bounds.lower) > 2 else 1  # 0 and 1 are never told from 2
                high = int(bounds.upper) if bounds.upper.is_Integer else None
                before = found.get(what, (1, None))
                found[what] = max(low, before[0]), min(filter(None, (high, before[1])), default=None)
    return {what: ends for what, ends in found.items() if ends != (1, None)}


def goes_on_beyond(
    model: nn.Module, inputs: ExampleInputs, limits: Limits, lengths: tuple[int, ...]
) -> tuple[str, int] | None:
    """What varies and a size of it beyond its limits that PyTorch answers all the same; None where it answers none."""
    for what, (low, high) in limits.items():
        now = batch_of(inputs) if what == BATCH else length_of(inputs, lengths)
        for size in (low - 1, 0 if high is None else high + 1):
            if 1 <= size <= FAR * now and _answers(model, inputs, what, size, lengths):
                return what, size
    return None


def _answers(model: nn.Module, inputs: ExampleInputs, what: str, size: int, lengths: tuple[int, ...]) -> bool:
    batch, length = (size, None) if what == BATCH else (None, lambda _: size)
    try:
        answers(model, resized(inputs, lengths, batch=batch, length=length))
    except Exception:
        return False
    return True


def limits_told(limits: Limits) -> Iterator[str]:
    """
    >>> list(limits_told({"length": (5, 512), "batch": (5, None)}))[1]
    'the batch may be 5 or more: PyTorch itself refuses others'
    """
    for what, (low, high) in limits.items():
        ends = f"{low} or more" if high is None else f"{low} to {high}"
        yield f"the {what} may be {ends}: PyTorch itself refuses others"
