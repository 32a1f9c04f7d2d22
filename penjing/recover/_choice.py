"""What a distillation does where nothing is asked: the loss, its temperature and weight, and hidden matching."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from penjing.core import Plan
from penjing.recover._counting import sample
from penjing.recover._evaluate import select
from penjing.recover._layers import find_layers
from penjing.recover._losses import DistillationLoss
from penjing.recover._modules import device_of, place
from penjing.recover._protocols import Data, SequenceTask, Task
from penjing.recover._training import Training
from penjing.tasks import headline

AUTO = "auto"
FEW_CLASSES = 5
LARGE_BATCH = 64
# Temperature and weight by loss: Hinton et al., 2015; Sun et al., CVPR 2024, section 5.1; Huang et al., NeurIPS 2022,
# section 4.1; Zhao et al., CVPR 2022, appendix A.1. A name that is not here gets those of "kl".
SETTINGS: Mapping[str, tuple[float, float]] = {
    "kl": (2.0, 1.0),
    "standardized-kl": (2.0, 9.0),
    "dist": (1.0, 2.0),
    "dkd": (4.0, 1.0),
}
HIDDEN_LAYERS, HIDDEN_STAGES = 3.0, 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What the choice looks at: the number of classes, whether each example has one class number, the batch size,
    whether the student was cut from the teacher, and both errors on the selection split where they were needed.
    """

    classes: int
    numbered: bool
    batch_size: int
    pruned: bool
    errors: tuple[float, float] | None = None

    @property
    def much_stronger(self) -> bool:
        """The student errs at least one and a half times as often as the teacher, and in 2 points more cases."""
        if self.errors is None:
            return False
        own, taught = self.errors
        return own >= 1.5 * taught and own - taught >= 0.02


def choose_loss(about: Situation) -> tuple[str, str]:
    """The loss and why.

    Measured: small students of a much stronger teacher on digits (6 runs each) reach 89.0% with DIST, 88.0% with
    standardised and 86.4% with plain KL; a network cut in half and recovered on digits (9 runs each) loses 0.4
    points with plain and 1.3 with standardised KL.
    """
    if not about.numbered:
        return "kl", "the answers are no class numbers"
    if about.classes < FEW_CLASSES:
        return (
            "kl",
            f"{about.classes} classes, and standardising fewer than {FEW_CLASSES} logits erases confidence",
        )
    if about.pruned:
        return "kl", "the student was cut from the teacher"
    if about.much_stronger and about.errors is not None:
        own, taught = (f"{100 * error:.1f}%" for error in about.errors)
        return "dist", f"the teacher is much stronger (it errs in {taught}, the student in {own})"
    return "standardized-kl", f"{about.classes} classes"


def resolved(
    asked: Mapping[str, Any],
    models: tuple[nn.Module, nn.Module],
    task: Task,
    data: Data,
    training: Training,
    plan: Plan | None,
    classes: int,
    pruned: bool,
) -> tuple[dict[str, Any], str]:
    """`asked` (loss, temperature, weight, hidden) with every "auto" replaced, and a sentence that says by what and why,
    empty where nothing was left open.
    """
    chosen, said = dict(asked), []
    if asked["loss"] == AUTO:
        chosen["loss"], why = choose_loss(_situation(models, task, data, training, classes, pruned))
        said.append(f"loss {chosen['loss']}: {why}")
    own = _settings(chosen["loss"])
    if classes == 1 and asked["loss"] == AUTO:
        own = (own[0], 0.0)
        said.append("one output has no probabilities to compare")
    for name, value in zip(("temperature", "weight"), own, strict=True):
        if asked[name] == AUTO:
            chosen[name] = value
            said.append(f"{name} {value:g}")
    if asked["hidden"] == AUTO:
        chosen["hidden"], why = _hidden(models, task, data, plan)
        said.append(f"hidden {chosen['hidden']:g}: {why}")
    return chosen, f"chosen: {'; '.join(said)}" if said else ""


def _settings(loss: str | DistillationLoss) -> tuple[float, float]:
    return SETTINGS.get(loss, SETTINGS["kl"]) if isinstance(loss, str) else SETTINGS["kl"]


def _situation(
    models: tuple[nn.Module, nn.Module],
    task: Task,
    data: Data,
    training: Training,
    classes: int,
    pruned: bool,
) -> Situation:
    targets = task.targets(sample(data))
    numbered = isinstance(targets, Tensor) and not targets.is_floating_point()
    if isinstance(task, SequenceTask):
        numbered = numbered and isinstance(targets, Tensor) and targets.ndim == 2
    about = Situation(classes=classes, numbered=numbered, batch_size=training.batch_size, pruned=pruned)
    name, larger = headline(task)
    fair = numbered and not about.pruned and classes >= FEW_CLASSES and larger
    if not fair or training.batch_size < LARGE_BATCH:
        return about
    figures = [select(model, task, data, training) for model in models]
    if any(name not in found for found in figures):
        return about
    return replace(about, errors=(1 - figures[0][name], 1 - figures[1][name]))


def _hidden(
    models: tuple[nn.Module, nn.Module], task: Task, data: Data, plan: Plan | None
) -> tuple[float, str]:
    if plan is None:
        return 0.0, "the student was not cut from the teacher"
    batch = sample(data)
    found = [find_layers(model, task.inputs(place(batch, device_of(model)))) for model in models]
    if any(layers is None for layers in found):
        return 0.0, "no layers or stages were found"
    if any(layers.grids for layers in found if layers is not None):
        return HIDDEN_STAGES, "the student was cut from the teacher, a convolutional network"
    return HIDDEN_LAYERS, "the student was cut from the teacher"
