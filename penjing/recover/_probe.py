"""Training a head on a frozen body."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from penjing.core import UsageError
from penjing.recover._engine import Checkpoint, Fit, Job, run
from penjing.recover._modules import call, channels_last, device_of, kept_gradients_flags, kept_modes, place
from penjing.recover._optim import param_groups
from penjing.recover._protocols import Batch, Data, Progress, SequenceTask, Task
from penjing.recover._state import TrainState
from penjing.recover._training import Training

FEATURE_BYTES = 2**30


@dataclass(frozen=True, slots=True)
class Features:
    """A split's head inputs and targets in memory, served as data."""

    splits: dict[str, tuple[Tensor, Tensor]]

    def n(self, split: str) -> int:
        return len(self.splits[split][1])

    def batches(
        self,
        split: str,
        batch_size: int,
        *,
        augment: Any = "none",
        seed: int = 0,
        epoch: int = 0,
        shuffle: bool = False,
        limit: int | None = None,
    ) -> Iterator[Batch]:
        inputs, targets = self.splits[split]
        order = torch.arange(len(targets))
        if shuffle:
            order = torch.randperm(
                len(targets), generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch)
            )
        for rows in order[:limit].to(targets.device).split(batch_size):
            yield inputs[rows], targets[rows]


def linear_probe(
    model: nn.Module,
    task: Task,
    data: Data,
    training: Training,
    *,
    head: str,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
    resume: TrainState | None = None,
) -> Fit:
    """Train the module `head` alone, in place; the body is frozen and in eval mode, its batch norms too.

    The first half of linear-probe-then-fine-tune (Kumar et al., ICLR 2022). Without augmentation the body
    runs once over each split and its features are kept in memory (up to 1 GiB); then an epoch costs next to
    nothing. Where that cannot be, an epoch costs a forward pass: gradients are computed in the head alone.
    """
    module = find_module(model, head)
    features = (
        cache_features(model, module, task, data, training) if training.augment in (False, "none") else None
    )
    whole = features is None
    trained = model if whole else module

    def mode() -> None:
        model.eval()
        module.train()

    with kept_modes(model), kept_gradients_flags(model):
        model.requires_grad_(False)
        module.requires_grad_(True)
        job = Job(
            stage="probe",
            model=trained,
            task=task,
            data=data if features is None else features,
            training=training,
            groups=partial(param_groups, trained, lr=training.lr, weight_decay=training.weight_decay),
            loss=lambda batch, step, total: task.loss(call(trained, task.inputs(batch)), batch),
            mode=mode,
            settings={"head": head, "cached": not whole},
        )
        fit = run(job, progress=progress, checkpoint=checkpoint, resume=resume)
    return replace(fit, model=model)


def find_module(model: nn.Module, path: str) -> nn.Module:
    """The module at `path`; an unknown path raises UsageError naming the last modules of the model."""
    known = dict(model.named_modules())
    if path not in known or not path:
        last = ", ".join(list(known)[-5:])
        raise UsageError(f"The model has no module {path!r} to use as head; its last modules are: {last}.")
    return known[path]


@torch.no_grad()
def cache_features(
    model: nn.Module, module: nn.Module, task: Task, data: Data, training: Training
) -> Features | None:
    """Inputs of `module` over "train" and "selection"; None where the head alone does not make the logits.

    That is the case when something follows the head, when it is called more than once or on more than one
    tensor, when batches are not pairs, when the features would not fit, and for sequences: what a head gets of
    one example then depends on how far its batch is padded.
    """
    if isinstance(task, SequenceTask):
        return None
    splits: dict[str, tuple[Tensor, Tensor]] = {}
    with kept_modes(model), channels_last(model, on=training.channels_last) as memory_format:
        model.eval()
        for split in ("train", "selection"):
            kept: list[tuple[Tensor, Tensor]] = []
            for raw in data.batches(split, training.eval_batch_size):
                pair = _features_of(model, module, task, place(raw, device_of(model), memory_format))
                if pair is None or not len(pair[0]) or pair[0][0].nbytes * data.n(split) > FEATURE_BYTES:
                    return None
                if kept and pair[0].shape[1:] != kept[0][0].shape[1:]:
                    return None
                kept.append(pair)
            if not kept:
                return None
            splits[split] = torch.cat([x for x, _ in kept]), torch.cat([y for _, y in kept])
    return Features(splits)


def _features_of(
    model: nn.Module, module: nn.Module, task: Task, batch: Batch
) -> tuple[Tensor, Tensor] | None:
    if not (isinstance(batch, tuple | list) and len(batch) == 2):
        return None
    seen: list[tuple[Any, ...]] = []
    hook = module.register_forward_pre_hook(lambda _, args: seen.append(args))
    try:
        logits = task.logits(call(model, task.inputs(batch)))
    finally:
        hook.remove()
    if len(seen) != 1 or len(seen[0]) != 1 or not isinstance(seen[0][0], Tensor):
        return None
    features, targets = seen[0][0], task.targets(batch)
    if (
        not isinstance(targets, Tensor)
        or len(features) != len(targets)
        or not _passes(task, features, targets)
    ):
        return None
    again = module(features)
    if (
        not isinstance(again, Tensor)
        or again.shape != logits.shape
        or not torch.allclose(again, logits, atol=1e-5)
    ):
        return None
    return features, targets


def _passes(task: Task, features: Tensor, targets: Tensor) -> bool:
    """Whether the task takes a pair (inputs, targets) apart as it stands."""
    try:
        pair = (features, targets)
        return task.inputs(pair) is features and task.targets(pair) is targets
    except (KeyError, IndexError, TypeError, AttributeError):
        return False
