"""A teacher that answers out of its cache: which batches, and what goes along with them."""

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from penjing.recover._cache import TeacherCache, View, as_logits, as_rows, digest
from penjing.recover._counting import sample
from penjing.recover._matching import Matching
from penjing.recover._mixup import Mixed
from penjing.recover._modules import call, device_of, kept_modes, place
from penjing.recover._protocols import Batch, Data, SequenceTask, Task, TracedData
from penjing.recover._training import Training, least_batch, narrows


class Taught(NamedTuple):
    """A batch, and the teacher's logits on it."""

    batch: Batch
    logits: Tensor


class Teaching:
    """Serves the training batches of an epoch together with the teacher's answers."""

    def __init__(
        self,
        teacher: nn.Module,
        task: Task,
        data: TracedData,
        training: Training,
        cache: TeacherCache,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._say, self._failed = say, False
        self._teacher, self._task, self._data, self._training = teacher, task, data, training
        self._format = torch.channels_last if training.channels_last else None
        self._dtype, self._shape, self._width = self._form()
        about = {
            "bf16": narrows(training.bf16, device_of(teacher)),
            "channels_last": training.channels_last,
            "mixup": training.mixup,
        }
        self._shelf = cache.of(teacher, **about)

    def stored_views(self) -> int:
        return self._shelf.stored_views(self._training.seed)

    def along(self, batches: Iterable[Batch], epoch: int) -> Iterator[Batch]:
        """`batches` of that epoch, each as `Taught` where the cache has room for the epoch; they stay as they are
        where it has none, and the teacher answers then itself.
        """
        training = self._training
        least = least_batch(self._data.n("train"), training.batch_size)
        chunks = self._data.indices(
            "train", training.batch_size, seed=training.seed, epoch=epoch, shuffle=True
        )
        chunks = [chunk for chunk in chunks if len(chunk) >= least]
        view = self._view(epoch, [i for chunk in chunks for i in chunk])
        if view is None:
            yield from batches
            return
        for batch, chunk in zip(batches, chunks, strict=True):
            yield Taught(batch, self._answers(view, batch, list(chunk)))

    def _view(self, epoch: int, examples: Sequence[int]) -> View | None:
        """None where there is no room; what is not the limit's doing is said once."""
        try:
            return self._shelf.view(self._training.seed, epoch, examples, self._width)
        except OSError as error:
            if not self._failed:
                self._say(f"the teacher answers itself: its cache cannot be written ({error})")
            self._failed = True
            return None

    def _answers(self, view: View, batch: Batch, examples: list[int]) -> Tensor:
        inputs, partners = self._key(batch, examples)
        found = view.read(examples, inputs, partners)
        if found is not None:
            return as_logits(found, len(examples), self._dtype).view(len(examples), *self._shape)
        fresh = self._fresh(batch)
        view.write(examples, inputs, as_rows(fresh), partners)
        return fresh

    def _key(self, batch: Batch, examples: Sequence[int]) -> tuple[bytes, list[int] | None]:
        """What tells apart the inputs of a batch, and which example each one is mixed with."""
        inputs = digest(self._task.inputs(batch))
        if not isinstance(batch, Mixed):
            return inputs, None
        return inputs + struct.pack("<d", batch.share), [examples[row] for row in batch.partners]

    @torch.no_grad()
    def _fresh(self, batch: Batch) -> Tensor:
        device = device_of(self._teacher)
        placed = place(batch, device, self._format)
        with torch.autocast(device.type, torch.bfloat16, enabled=narrows(self._training.bf16, device)):
            return self._task.logits(call(self._teacher, self._task.inputs(placed)))

    def _form(self) -> tuple[torch.dtype, torch.Size, int]:
        """The dtype of the teacher's logits, and the shape and bytes of one example's."""
        with kept_modes(self._teacher):
            self._teacher.eval()
            logits = self._fresh(sample(self._data))
        return logits.dtype, logits.shape[1:], logits[0].numel() * logits.itemsize


def teaching(
    teacher: nn.Module,
    task: Task,
    data: Data,
    training: Training,
    cache: TeacherCache,
    matching: Matching,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[Teaching | None, str]:
    """The teacher behind its cache, or None, and what there is to say about it."""
    why = ""
    if matching.on:
        why = "hidden states or attention are matched, which no cache holds"
    elif isinstance(task, SequenceTask):
        why = "its answers are one per position, and the cache holds one row per example"
    elif not isinstance(data, TracedData):
        why = "the data has no method `indices` that says which examples a batch holds"
    if why or not isinstance(data, TracedData):
        return None, f"the teacher stays online: {why}"
    made = Teaching(teacher, task, data, training, cache, say)
    views = min(training.epochs, training.views or training.epochs)
    classes, itemsize = made._width // made._dtype.itemsize, made._dtype.itemsize
    count = data.n("train")
    each = cache.view_bytes(count, classes, itemsize=itemsize)
    missing = max(0, views - made.stored_views())
    fit = cache.views_that_fit(missing, count, classes, itemsize=itemsize)
    said = (
        f"teacher cache: {count} examples x {classes} classes x {views} views take {megabytes(views * each)}, "
        f"limit {megabytes(cache.limit)}, in {cache.folder}"
    )
    if fit < missing:
        said += f"; room is left for {fit} of {missing} new views, in the others the teacher answers itself"
    return made, said


def megabytes(count: int) -> str:
    return f"{count / 1e6:.3g} MB"
