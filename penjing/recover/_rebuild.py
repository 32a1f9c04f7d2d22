"""Reconstruction as a step of a recovery: on training examples, kept where the selection split says that it helps."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

from torch import nn

from penjing.core import Plan, UsageError
from penjing.recover._defaults import RECOVER
from penjing.recover._evaluate import score, select
from penjing.recover._modules import tensors_of, write_tensors
from penjing.recover._protocols import Data, Task
from penjing.recover._reconstruct import reconstruct
from penjing.recover._refitted import Reconstruction
from penjing.recover._training import Training

BATCH = 64
WHEN = (True, False, "auto")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """A reconstruction, the selection figures before it and with it, and whether it was kept."""

    found: Reconstruction
    before: Mapping[str, float]
    after: Mapping[str, float]
    kept: bool


def rebuild(
    slim: nn.Module,
    model: nn.Module,
    plan: Plan,
    task: Task,
    data: Data,
    *,
    when: bool | str = RECOVER.reconstruct,
    examples: int = RECOVER.reconstruct_examples,
    seed: int = 0,
) -> Rebuilt | None:
    """`reconstruct` in place on random training examples without augmentation; None with when=False.

    "auto" takes it back unless the selection split gets better, True keeps it.
    """
    if when not in WHEN:
        raise UsageError(f"reconstruct must be true, false or auto, not {when!r}.")
    if when is False:
        return None
    training = Training(epochs=1, seed=seed)
    own = {name: tensor.clone() for name, tensor in tensors_of(slim).items()}
    before = select(slim, task, data, training)
    batches = islice(data.batches("train", BATCH, seed=seed, shuffle=True), math.ceil(examples / BATCH))
    try:
        found = reconstruct(model, slim, plan, batches, task=task, seed=seed)
        after = select(slim, task, data, training)
        kept = when is True or score(after, task) > score(before, task)
    except BaseException:
        write_tensors(slim, own)
        raise
    if not kept:
        write_tensors(slim, own)
    return Rebuilt(found=found, before=before, after=after, kept=kept)
