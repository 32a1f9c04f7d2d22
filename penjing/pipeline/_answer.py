"""Whether a network takes the inputs it is given and answers with logits."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from penjing.core import Pictures, Reads, SourceError, Texts, UsageError
from penjing.recover import call
from penjing.tasks import SequenceTask, Task, image_classification


@torch.no_grad()
def check_answer(
    name: str,
    model: nn.Module,
    example: Any,
    reads: Reads,
    *,
    task: Task | None = None,
    classes: int | None = None,
) -> None:
    """Raises `SourceError` unless `model`, in eval mode, maps `example` to logits [n, classes] ([n, T, classes] where
    the task is about sequences, or none is named and `model` reads no pictures).
    """
    model.eval()
    dims = (3,) if isinstance(task, SequenceTask) else (2,)
    if task is None and not isinstance(reads, Pictures):
        dims = (2, 3)
    task = task or image_classification()
    try:
        answer = call(model, example)
    except Exception as error:
        why = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".")
        raise SourceError(f"{name} fails on {described(example, reads)}: {why}. {_way_out(reads)}") from error
    try:
        logits = None if isinstance(answer, tuple | list) else task.logits(answer)
    except UsageError as error:
        if isinstance(answer, Tensor) or isinstance(task, SequenceTask):
            raise SourceError(f"{name}: {error}") from error
        logits = None
    if logits is None:
        raise SourceError(
            f"{name} answers with a {type(answer).__name__}, not with a tensor of logits. "
            "Fix: wrap it in a module whose forward returns the logits alone"
        )
    _check_shape(name, logits, len(first_tensor(example)), dims, classes)


def _check_shape(
    name: str, logits: Tensor, examples: int, dims: tuple[int, ...], classes: int | None
) -> None:
    """Raises `SourceError` unless `logits` have one of the numbers of `dims`, of that many examples and classes."""
    shape, sequence = tuple(logits.shape), dims == (3,)
    wanted = shape[-1] if classes is None and shape else classes
    fits = len(shape) in dims and shape[0] == examples and shape[-1] == wanted
    if not fits:
        form = f"({examples}, {'T, ' if sequence else ''}{classes or 'classes'})"
        raise SourceError(
            f"{name} answers {examples} examples with a tensor of shape {shape}, not with logits {form}. "
            f"Fix: return one row of logits per {'position' if sequence else 'example'}"
        )


def first_tensor(inputs: Any) -> Tensor:
    """The first tensor of inputs: a tensor, a tuple, or a dict."""
    if isinstance(inputs, Mapping):
        inputs = tuple(inputs.values())
    return first_tensor(inputs[0]) if isinstance(inputs, tuple | list) else inputs


def shapes(inputs: Any) -> Any:
    """The shapes of all tensors in inputs, in their structure."""
    if isinstance(inputs, Mapping):
        return {name: shapes(value) for name, value in inputs.items()}
    return [shapes(value) for value in inputs] if isinstance(inputs, tuple | list) else tuple(inputs.shape)


def described(example: Any, reads: Reads) -> str:
    """Inputs in words: 'pictures of 3x32x32', 'texts of 16 tokens'."""
    shape = first_tensor(example).shape[1:]
    if isinstance(reads, Texts):
        return f"texts of {shape[0]} tokens"
    kind = "pictures" if isinstance(reads, Pictures) else "sounds"
    return f"{kind} of {'x'.join(map(str, shape))}"


def _way_out(reads: Reads) -> str:
    inspected = (
        "or, to inspect a network that reads something else, set its attribute example_inputs to a tensor, a tuple or "
        "a dict"
    )
    if isinstance(reads, Pictures):
        return f"Fix: give a size it takes (--image-size; without it the network's own is used), {inspected}"
    if isinstance(reads, Texts):
        return f"Fix: give shorter texts (data.max_length), {inspected}"
    return f"Fix: choose a network that takes such sounds, {inspected}"
