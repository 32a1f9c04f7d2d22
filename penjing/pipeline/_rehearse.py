"""All that can fail is tried before anything is trained."""

from collections.abc import Sequence

import torch
from torch import nn

from penjing.core import Budget, BudgetError, Limit, Reads, Recipe, SourceError, Texts, UsageError
from penjing.criteria import CRITERIA, Context, prepare_criterion
from penjing.export import read_structure
from penjing.pipeline._adjust import check_named
from penjing.pipeline._answer import check_answer
from penjing.pipeline._heldout import check_teacher
from penjing.pipeline._job import Inputs
from penjing.pipeline._open import artifact_of, reads_of
from penjing.pipeline._settle import folds
from penjing.pipeline._shrink import absolute, check_budget, prune_to, sizes_of
from penjing.pipeline._smaller import check_rival
from penjing.recover import Sparsity, Training, find_loss, mixing, sparse_masks
from penjing.runtimes import prepare
from penjing.search import DEFAULT_GRANULARITY, Rounding, check_optuna, check_storage, fastest, trim
from penjing.sources import parse_source
from penjing.surgery import ADJUSTMENT_KINDS
from penjing.tasks import tokens_disagree


def rehearse(inputs: Inputs, *, deeper: bool = False) -> None:
    """Raises what a run of this recipe would raise later, as far as a few seconds can tell; `deeper` where the run may
    drop blocks or adjust components that the recipe does not name yet.

    Options, the weights of network and teacher, the classes and the picture size that they take, the criterion,
    and one cut of the untrained network to the budget.
    """
    recipe = inputs.recipe
    check_budget(recipe)
    _check_device(recipe.device)
    _check_loss(recipe.steps.recover.loss)
    _check_tuning(recipe)
    _check_mixup(inputs)
    with torch.random.fork_rng():
        whole = inputs.fresh(recipe.weights)
        _answers(inputs, recipe.model, whole)
        _check_runtime(inputs, whole)
        if recipe.steps.prune.criterion not in CRITERIA:
            prepare_criterion(recipe.steps.prune.criterion, whole, Context())
        _try_cut(inputs, whole, deeper=deeper)
        check_rival(inputs)
        if recipe.teacher:
            _check_loss(recipe.steps.distil.loss)
            _try_teacher(inputs, recipe.teacher)


def _check_loss(name: str) -> None:
    if name != "auto":
        find_loss(name)


def _check_tuning(recipe: Recipe) -> None:
    """Raises UsageError where Optuna is not installed, its storage cannot be opened, or a loss is not known."""
    if recipe.steps.tune.on:
        check_optuna()
        if recipe.steps.tune.storage:
            check_storage(recipe.steps.tune.storage)
        for name in (recipe.steps.tune.space or {}).get("loss", ()):
            _check_loss(str(name))


def _check_mixup(inputs: Inputs) -> None:
    """Raises UsageError where a step that runs would lay examples over each other that cannot be."""
    steps = inputs.recipe.steps
    asked = [steps.transfer.mixup, steps.recover.mixup]
    asked += [max(map(float, (steps.tune.space or {}).get("mixup", (0,))))] if steps.tune.on else []
    asked += [steps.distil.mixup] if inputs.recipe.teacher else []
    asked += [steps.sparsify.mixup] if steps.sparsify.on else []
    if any(asked):
        mixing(inputs.task(), inputs.data, Training(epochs=1, mixup=max(asked)))


def _answers(inputs: Inputs, name: str, model: nn.Module) -> None:
    """Raises `SourceError` unless `model` answers the data's examples with logits over its classes."""
    check_answer(name, model, inputs.example(), inputs.reads, task=inputs.task(), classes=inputs.classes)


def _check_device(device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("device: cuda is not available on this machine; use --device cpu.")


def _check_runtime(inputs: Inputs, whole: nn.Module) -> None:
    """Raises UsageError where the recipe's runtime is not installed or does not take the network."""
    recipe = inputs.recipe
    if recipe.runtime != "eager":
        size = recipe.steps.measure.batch_sizes[0]
        prepare(whole, inputs.example(1), runtime=recipe.runtime, batch_size=size).close()


def _try_cut(inputs: Inputs, whole: nn.Module, *, deeper: bool) -> None:
    """One cut to the budget; where that is out of reach, one more after dropping blocks, if that is asked."""
    options, limits, sizes = inputs.recipe.steps, absolute(inputs, whole), sizes_of(inputs, whole)
    asked = Budget.parse(inputs.recipe.budget)
    if options.adjust.kinds is not None and (odd := set(options.adjust.kinds) - set(ADJUSTMENT_KINDS)):
        raise UsageError(
            f"steps.adjust.kinds: {', '.join(sorted(odd))} is none. Known: {', '.join(ADJUSTMENT_KINDS)}"
        )
    if options.adjust.do and not options.trim.blocks:
        check_named(inputs, whole)
    deeper = deeper or bool(options.trim.blocks or options.adjust.edits or options.adjust.do)
    timed, counts = asked.limit("latency"), [m.metric for m in asked.limits if m.metric != "latency"]
    if timed is not None:
        _try_zeros(inputs, whole)
        if not deeper:
            _try_time(inputs, whole, timed)
        if counts and not deeper:
            prune_to(inputs, whole, whole, "l2", 1, options.prune.protect, metrics=counts)
        return None
    if (
        asked.limit("memory") is None
        and not deeper
        and all(sizes[metric] <= limit for metric, limit in limits.items())
    ):
        own = ", ".join(f"{metric} {size}" for metric, size in sizes.items())
        raise UsageError(
            f"The budget {inputs.recipe.budget} holds already: {inputs.recipe.model} has {own}. "
            "Fix: ask for less, for example --budget 'macs<=0.5x'"
        )
    protect = options.prune.protect
    try:
        slim, _ = prune_to(inputs, whole, whole, "l2", 1, protect)
    except BudgetError:
        if not deeper:
            raise
        if not options.trim.blocks:
            return None
        trimmed, _, _ = trim(whole, inputs.example(), evaluate=lambda _: 0.0, drop=int(options.trim.blocks))
        slim, _ = prune_to(inputs, trimmed, whole, "l2", 1, ())
    _try_zeros(inputs, slim)
    return None


def _try_zeros(inputs: Inputs, model: nn.Module) -> None:
    """Raises UsageError where the zeros asked for fit no layer."""
    sparse = inputs.recipe.steps.sparsify
    if not sparse.on:
        return
    masks = sparse_masks(model, Sparsity(sparse.share, sparse.pattern, layers=sparse.layers))
    if sparse.pattern is not None and not masks:
        raise UsageError(
            f"steps.sparsify.pattern: {sparse.pattern} fits no layer, whose inputs would have to come in multiples of "
            f"{sparse.pattern.partition(':')[2]}. Fix: a shorter pattern such as 2:4, or a share"
        )


def _try_time(inputs: Inputs, whole: nn.Module, limit: Limit) -> None:
    """Raises `BudgetError` where even the narrowest network takes longer than the budget's milliseconds."""
    recipe = inputs.recipe
    options, most = recipe.steps.prune, recipe.steps.measure.batch_sizes[0]
    least, full = fastest(
        whole,
        inputs.example(1),
        granularity=options.granularity or DEFAULT_GRANULARITY,
        protect=options.protect,
        rounding=Rounding(round_to=int(options.round_to)),
        runtime=recipe.runtime,
        batch_size=most,
        folded=folds(recipe),
    )
    if least > limit.absolute(full):
        raise BudgetError(
            f"The budget {recipe.budget} cannot be met on {recipe.runtime} at batch size {most}: the narrowest network "
            f"takes {least:.4g}ms, measured, the whole one {full:.4g}ms; the nearest that can is about "
            f"latency<={least / full:.2g}x. Fix: raise the budget, drop residual blocks first (steps.trim.blocks) "
            "or adjust components (steps.adjust.edits)",
            nearest=least,
            metric="latency",
        )


def _try_teacher(inputs: Inputs, spec: str) -> None:
    parse_source(spec)
    if not inputs.saved_teacher:
        source = inputs.teacher_source(inputs.recipe.teacher_weights)
        _same_tokens(inputs, spec, source.reads)
        return _answers(inputs, spec, source.model)
    artifact = artifact_of(spec)
    about = read_structure(artifact) if artifact else {}
    labels = about.get("labels")
    if labels is not None and tuple(labels) != inputs.data.labels:
        raise SourceError(
            f"The teacher {spec} knows the classes {', '.join(labels[:8])}, the data has "
            f"{', '.join(inputs.data.labels[:8])}: {_apart(labels, inputs.data.labels)}. Fix: give a teacher made for "
            "this data, or a source such as timm:resnet50, which is transferred to it first"
        )
    if artifact and about.get("preprocessing") is not None:
        _same_tokens(inputs, spec, reads_of(artifact, about))
    _answers(inputs, spec, inputs.load_teacher())
    check_teacher(inputs, spec)
    return None


def _apart(teacher: Sequence[str], data: Sequence[str]) -> str:
    """What tells the classes of a teacher from those of the data, up to eight of each."""
    alone = [
        f"only the {whose} {'has' if whose == 'data' else 'knows'} {', '.join(own[:8])}"
        for whose, own in (
            ("teacher", [label for label in teacher if label not in set(data)]),
            ("data", [label for label in data if label not in set(teacher)]),
        )
        if own
    ]
    return " and ".join(alone) or "the same, in another order"


def _same_tokens(inputs: Inputs, spec: str, reads: Reads) -> None:
    """Raises UsageError where the teacher was made with a tokenizer whose ids mean other tokens."""
    own = inputs.reads
    unlike = tokens_disagree(own, reads) if isinstance(own, Texts) and isinstance(reads, Texts) else ""
    if unlike:
        raise UsageError(
            f"The teacher {spec} was made with another tokenizer than {inputs.recipe.model}: {unlike}. Both read the "
            "same batch. Fix: choose a teacher with the network's tokenizer"
        )
