"""Whether one network can teach another: they read the same inputs and answer in the same places."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from penjing.core import UsageError
from penjing.recover._counting import classes_last, sample
from penjing.recover._modules import call, device_of, kept_modes, place
from penjing.recover._protocols import Data, SequenceTask, Task


def check_teacher(student: nn.Module, teacher: nn.Module, task: Task, data: Data) -> int:
    """Runs both on two examples and returns the number of classes; a UsageError says what differs and what to do.

    They must read the same inputs, tokens of the same table among them, give the same number of positions (for
    a sequence task) and have the same classes.
    """
    if teacher is student:
        raise UsageError(
            "The teacher is the student itself; pass copy.deepcopy(model) taken before the change."
        )
    _separate(student, teacher)
    batch = sample(data)
    own, tables = _outputs(student, task, batch, "student")
    taught, others = _outputs(teacher, task, batch, "teacher")
    _same_tables(tables, others)
    if isinstance(task, SequenceTask) and own.shape[:-1] != taught.shape[:-1]:
        raise UsageError(
            f"The teacher gives {taught.shape[1]} positions where the student gives {own.shape[1]}: their frame "
            "rates differ, so their outputs cannot be compared. Choose a teacher of the student's frame rate."
        )
    if not isinstance(task, SequenceTask):
        own, taught = (classes_last(logits, task.targets(batch)) for logits in (own, taught))
    if own.shape[-1] != taught.shape[-1]:
        raise UsageError(
            f"The teacher gives {taught.shape[-1]} classes and the student {own.shape[-1]}: "
            "their outputs cannot be compared. Transfer the teacher to this task first "
            "(penjing.recover.transfer), or choose one trained on its labels."
        )
    if not isinstance(task, SequenceTask) and own.shape != taught.shape:
        raise UsageError(
            f"The teacher's logits have the shape {list(taught.shape)} and the student's {list(own.shape)} on the same "
            "two examples. Choose a teacher that answers as the student does, or a task whose logits() brings both to "
            "one shape."
        )
    if taught.isnan().any():
        raise UsageError(
            "The teacher answers NaN on the first two examples of the selection split. Look for NaN in its weights and "
            "batch-norm statistics, and train or load it again."
        )
    return own.shape[-1]


def _separate(student: nn.Module, teacher: nn.Module) -> None:
    own = {id(tensor) for _, tensor in _changing(student)}
    shared = [name for name, tensor in _changing(teacher) if id(tensor) in own]
    if shared:
        raise UsageError(
            f"Teacher and student share {len(shared)} tensors that training changes, such as the teacher's "
            f"{shared[0]!r}. Pass copy.deepcopy(teacher) taken before the change."
        )


def _changing(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """What training changes: parameters that learn, and the running statistics of norms."""
    yield from ((name, tensor) for name, tensor in model.named_parameters() if tensor.requires_grad)
    for path, module in model.named_modules():
        for name in ("running_mean", "running_var"):
            if isinstance(tensor := getattr(module, name, None), Tensor):
                yield f"{path}.{name}" if path else name, tensor


@torch.no_grad()
def _outputs(model: nn.Module, task: Task, batch: Any, whose: str) -> tuple[Tensor, list[int]]:
    """The logits in eval mode, and the sizes of the tables in which the inputs' own numbers were looked up."""
    with kept_modes(model):
        model.eval()
        inputs = task.inputs(place(batch, device_of(model)))
        with _looked_up(model, _token_ids(inputs)) as tables:
            outputs = _answered(model, inputs, whose)
    try:
        logits = task.logits(outputs)
    except UsageError as error:
        raise UsageError(f"The {whose}'s answers cannot be read. {error}") from error
    if not isinstance(logits, Tensor) or logits.ndim < 2:
        shown = (
            f"a tensor of shape {list(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        )
        raise UsageError(
            f"The {whose} answers with {type(outputs).__name__}, in which logits() of the task {task.name!r} finds "
            f"{shown}, not a tensor [examples, ..., classes]. Return one from the network, or find it in the task's "
            "logits()."
        )
    return logits, tables


def _answered(model: nn.Module, inputs: Any, whose: str) -> Any:
    """What the network gives; a UsageError where a teacher cannot take the inputs, whatever it raises."""
    try:
        return call(model, inputs)
    except Exception as error:
        if whose == "student":
            raise
        raise UsageError(
            f"The teacher cannot read the student's inputs ({type(error).__name__}: {error}). Teacher and student "
            "get the same batch: choose a teacher of the same input size, tokenizer and features."
        ) from error


def _token_ids(inputs: Any) -> Tensor | None:
    """The integer tensor among the inputs with the largest number: masks and numbers of segments are small."""
    parts = (
        inputs.values() if isinstance(inputs, Mapping) else inputs if isinstance(inputs, tuple) else (inputs,)
    )
    numbers = [
        part for part in parts if isinstance(part, Tensor) and not part.is_floating_point() and part.numel()
    ]
    return max(numbers, key=lambda part: int(part.max()), default=None)


@contextmanager
def _looked_up(model: nn.Module, ids: Tensor | None) -> Iterator[list[int]]:
    """Rows of each embedding that the token ids are looked up in, in the order of the calls."""
    tables: list[int] = []

    def note(module: nn.Module, args: tuple[Any, ...]) -> None:
        given = args[0] if args else None
        if not (isinstance(given, Tensor) and isinstance(ids, Tensor) and isinstance(module, nn.Embedding)):
            return
        if torch.equal(given, ids):
            tables.append(module.num_embeddings)

    found = [] if ids is None else [m for m in model.modules() if isinstance(m, nn.Embedding)]
    hooks = [m.register_forward_pre_hook(note) for m in found]
    try:
        yield tables
    finally:
        for hook in hooks:
            hook.remove()


def _same_tables(student: list[int], teacher: list[int]) -> None:
    if student and teacher and student[0] != teacher[0]:
        raise UsageError(
            f"The teacher looks tokens up in a table of {teacher[0]} and the student in one of {student[0]}: they "
            "have different vocabularies, and the same ids would mean different words to them. Choose a teacher "
            "with the student's tokenizer."
        )
