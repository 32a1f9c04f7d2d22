"""Knowledge distillation, and recovery after pruning."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn

from penjing.core import Plan, UsageError
from penjing.core._recipe import ONE_CLASS_EACH
from penjing.recover._bn import settle_bn
from penjing.recover._cache import TeacherCache
from penjing.recover._choice import AUTO, resolved
from penjing.recover._counting import sample
from penjing.recover._defaults import DISTIL, RECOVER
from penjing.recover._distillation import blaming, distillation_loss
from penjing.recover._engine import Checkpoint, Fit, Job, run
from penjing.recover._layers import LayerMap
from penjing.recover._losses import DistillationLoss, name_of, needs_of
from penjing.recover._matching import NOTHING, match
from penjing.recover._mixup import mixing
from penjing.recover._modules import channels_last, kept_modes
from penjing.recover._optim import param_groups
from penjing.recover._protocols import Data, Progress, Task
from penjing.recover._state import TrainState
from penjing.recover._teachers import check_teacher
from penjing.recover._teaching import teaching
from penjing.recover._together import spread
from penjing.recover._training import Training, training_with
from penjing.structure import surroundings_off

Number = float | Literal["auto"]
Say = Callable[[str], None]


def distil(
    student: nn.Module,
    teacher: nn.Module,
    task: Task,
    data: Data,
    *,
    loss: str | DistillationLoss = DISTIL.loss,
    temperature: Number = DISTIL.temperature,
    weight: Number = DISTIL.weight,
    guide: str = DISTIL.guide,
    guide_alpha: float = DISTIL.guide_alpha,
    hidden: Number = DISTIL.hidden,
    hidden_layers: LayerMap = DISTIL.hidden_layers,
    attention: float = DISTIL.attention,
    attention_layer: int = DISTIL.attention_layer,
    plan: Plan | None = None,
    cache: TeacherCache | None = None,
    say: Say | None = None,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
    resume: TrainState | None = None,
    **options: Any,
) -> Fit:
    """Train `student`, in place, on the task and on `teacher`'s outputs (`distillation_loss`).

    The teacher stays in eval mode and unchanged; it may have another architecture, but must have the same
    classes (UsageError) and take the same inputs. `loss` is a name of `loss_names`, a function of one's own, or
    "auto": plain KL below five classes and where `plan` cut the student from this teacher, DIST where the teacher
    errs much less and batches are 64 or more, else standardised KL; `temperature` and `weight` are then those of the
    loss's paper, and `hidden` is on where the student was cut from this teacher, an encoder. What "auto" became is
    in the result's `notes` and `chosen`, and told to `say` before training.

    `hidden` and `attention` are the weights of terms that draw hidden states and attention to the teacher's;
    `hidden_layers` and `attention_layer` say which, and `plan` is what cut the student from this teacher, if anything
    did (`match`). `cache` keeps the teacher's answers where they are all that is looked at. Options are the fields of
    `Training`; the defaults are `DISTIL`. Returns the student in its best epoch on the selection split; as it was given
    only where that is better by more than one standard error, paired by example (`within_noise`): an untrained
    student that agrees with the selection split by chance is no reason to throw the training away.
    """
    terms = {"loss": loss, "temperature": temperature, "weight": weight, "hidden": hidden}
    more = {"guide": guide, "guide_alpha": guide_alpha}
    layers = {"hidden_layers": hidden_layers, "attention": attention, "attention_layer": attention_layer}
    training = training_with(DISTIL.training, options)
    asked = Asked(terms=terms, more=more, layers=layers, plan=plan, cache=cache, say=say)
    with distillation_job("distil", student, teacher, task, data, training, asked, resume) as (job, fill):
        return fill(run(job, progress=progress, checkpoint=checkpoint, resume=resume))


def recover(
    slim: nn.Module,
    teacher: nn.Module | None,
    task: Task,
    data: Data,
    *,
    loss: str | DistillationLoss = RECOVER.loss,
    temperature: Number = RECOVER.temperature,
    weight: Number = RECOVER.weight,
    guide: str = RECOVER.guide,
    guide_alpha: float = RECOVER.guide_alpha,
    hidden: Number = RECOVER.hidden,
    hidden_layers: LayerMap = RECOVER.hidden_layers,
    attention: float = RECOVER.attention,
    attention_layer: int = RECOVER.attention_layer,
    plan: Plan | None = None,
    cache: TeacherCache | None = None,
    say: Say | None = None,
    bn_examples: int = RECOVER.bn_examples,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
    resume: TrainState | None = None,
    **options: Any,
) -> Fit:
    """Win back, in place, what pruning lost: a learning-rate restart with distillation from `teacher`.

    The rate rises over 5% of the steps to its peak, then follows a cosine to 0 (Le & Hua, ICLR 2021).
    `teacher` is the network before pruning, or None for the task loss alone. Before the first and after the
    last epoch batch-norm statistics are re-estimated on `bn_examples` training examples without augmentation
    (EagleEye, ECCV 2020) and kept where the selection split says that they help; 0 is off. The other arguments are as
    in `distil`. Options are the fields of `Training`; the defaults are `RECOVER`. `start` of the result also holds
    given_loss and given_accuracy, the figures before any of this.
    """
    terms = {"loss": loss, "temperature": temperature, "weight": weight, "hidden": hidden}
    more = {"guide": guide, "guide_alpha": guide_alpha}
    layers = {"hidden_layers": hidden_layers, "attention": attention, "attention_layer": attention_layer}
    training = training_with(RECOVER.training, options)
    asked = Asked(terms=terms, more=more, layers=layers, plan=plan, cache=cache, say=say)
    spread(slim)
    settle = partial(settle_bn, slim, task, data, training, examples=bn_examples)
    with (
        surroundings_off(),
        kept_modes(slim),
        channels_last(slim, on=training.channels_last),
        distillation_job("recover", slim, teacher, task, data, training, asked, resume) as (job, fill),
    ):
        job = replace(job, settings={**job.settings, "bn_examples": bn_examples})
        if resume is None:
            before, _ = settle()
            job = replace(job, given={f"given_{name}": value for name, value in before.items()})
        fit = run(job, progress=progress, checkpoint=checkpoint, resume=resume)
        _, after = settle()
    return fill(replace(fit, selection=after))


def recovery_terms(
    slim: nn.Module,
    teacher: nn.Module,
    task: Task,
    data: Data,
    plan: Plan | None,
    asked: Mapping[str, Any],
    batch_size: int = RECOVER.training.batch_size,
) -> dict[str, Any]:
    """loss, temperature, weight and hidden of `asked` with every "auto" as `recover` would choose it."""
    training = training_with(RECOVER.training, {"batch_size": batch_size})
    classes = check_teacher(slim, teacher, task, data)
    return resolved(asked, (slim, teacher), task, data, training, plan, classes, True)[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the caller wants of a distillation: `terms` may be "auto"."""

    terms: Mapping[str, Any]
    more: Mapping[str, Any]
    layers: Mapping[str, Any]
    plan: Plan | None
    cache: TeacherCache | None
    say: Say | None
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        if text:
            self.notes.append(text)
            self.tell(text)

    def tell(self, text: str) -> None:
        if self.say is not None:
            self.say(text)


def _untaught(asked: Asked) -> dict[str, Any]:
    """The terms without a teacher."""
    if asked.layers["attention"] or asked.terms["hidden"] not in (0, AUTO):
        raise UsageError("hidden and attention draw the student to a teacher; give one, or leave them at 0.")
    return {"loss": "kl", "temperature": 1.0, "weight": 0.0, "hidden": 0.0}


def _chosen(
    stage: str,
    models: tuple[nn.Module, nn.Module],
    task: Task,
    data: Data,
    training: Training,
    asked: Asked,
    resume: TrainState | None,
) -> dict[str, Any]:
    """The terms of a distillation with every "auto" replaced, as the first run did where one is resumed."""
    classes, pruned = check_teacher(*models, task, data), stage == "recover" or asked.plan is not None
    found, why = resolved(asked.terms, models, task, data, training, asked.plan, classes, pruned)
    if resume is not None:
        first = {**dict.fromkeys(found, 0.0), **resume.settings}
        again = {name: first[name] if asked.terms[name] == AUTO else value for name, value in found.items()}
        found, why = again, why if again == found else f"chosen by the first run: {again}"
    asked.note(why)
    return found


@contextmanager
def distillation_job(
    stage: str,
    student: nn.Module,
    teacher: nn.Module | None,
    task: Task,
    data: Data,
    training: Training,
    asked: Asked,
    resume: TrainState | None,
) -> Iterator[tuple[Job, Callable[[Fit], Fit]]]:
    """The training, and what writes into its result what was chosen; an error on the way says which term it was."""
    matching, along = NOTHING, None
    learned = mixing(task, data, training)
    if training.mixup and teacher is not None and name_of(asked.terms["loss"]) == "dkd":
        raise UsageError(ONE_CLASS_EACH)
    if teacher is None:
        terms = _untaught(asked)
    else:
        terms = _chosen(stage, (student, teacher), task, data, training, asked, resume)
        batch, own = sample(data), needs_of(terms["loss"])
        drawn = {**asked.layers, "hidden": terms["hidden"], "plan": asked.plan, "seed": training.seed}
        matching = match(student, teacher, task, batch, needs=own, **drawn)
        if asked.cache is not None:
            along, said = teaching(teacher, learned, data, training, asked.cache, matching, asked.tell)
            asked.tell(said)
    hidden, parts = terms.pop("hidden"), dict[str, Tensor]()

    def mode() -> None:
        student.train()
        if teacher is not None:
            teacher.eval()

    named = {**terms, "loss": name_of(terms["loss"])}
    job = Job(
        stage=stage,
        model=student,
        task=task,
        data=data,
        training=training,
        groups=partial(param_groups, student, lr=training.lr, weight_decay=training.weight_decay),
        loss=distillation_loss(
            student, teacher, learned, **terms, **asked.more, matching=matching, parts=parts
        ),
        mode=mode,
        settings={**named, **asked.more, "teacher": teacher is not None, **matching.settings()},
        helpers=matching.maps,
        doubt=True,
        beside=() if teacher is None else (teacher,),
    )
    if along is not None:
        job = replace(job, along=along.along)
    with blaming(parts, named["loss"]):
        yield job, partial(replace, notes=tuple(asked.notes), chosen={**named, "hidden": hidden})
