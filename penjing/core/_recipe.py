"""The recipe: what a run does, as a file that people can write and that cannot run code."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from penjing.core._belonging import strangers
from penjing.core._certify_options import CertifyOptions, ExplainOptions, StabilityOptions
from penjing.core._choose_options import ChooseOptions
from penjing.core._errors import UsageError
from penjing.core._places import RuntimeName
from penjing.core._recipe_mistakes import complaints, mistakes
from penjing.core._recipe_part import Count, CountOrNone, NonNegative, Part, Positive
from penjing.core._recipe_values import (
    REGISTERED,
    checked_budget,
    checked_margin,
    checked_name,
    checked_place,
    checked_rival,
    checked_space,
    checked_splits,
    data_named,
)
from penjing.core._step_defaults import step_defaults
from penjing.core._words import clean, cut
from penjing.core._yaml import dump_yaml, read_yaml

Number = int | float
BatchSize = Annotated[int, Field(ge=2, le=10**6)]
TaskName = Literal[
    "image-classification",
    "text-classification",
    "token-classification",
    "audio-classification",
    "speech-recognition",
]

ONE_CLASS_EACH = "loss dkd needs one class per example, and mixup gives two; use mixup: 0 or loss: kl"
_WEIGHTS = {"model": "weights", "teacher": "teacher_weights"}


class DataOptions(Part):
    """Which examples, how they are split, and how training examples are varied (null: as suits the data).
    max_length (tokens) cuts texts; seconds is what networks made for pictures see of a clip, max_seconds refuses longer
    clips; alphabet are the characters of transcripts.
    """

    source: Annotated[str, AfterValidator(checked_name)]
    splits: Annotated[tuple[Number, Number, Number] | None, BeforeValidator(checked_splits)] = None
    augment: Literal["none", "light", "standard"] | None = None
    skip_bad: bool = False
    path_column: str | None = None
    label_column: str | None = None
    text_column: str | None = None
    pair_column: str | None = None
    tokenizer: str | None = None
    max_length: Annotated[int, Field(ge=4, le=10**6)] | None = None
    seconds: Positive | None = None
    max_seconds: Positive | None = None
    alphabet: str | None = None


class _Training(Part):
    """What every kind of training takes; penjing.recover explains each field.

    mixup lays examples over each other, in shares drawn from Beta(mixup, mixup); 0 is off. bf16 auto is where the
    device is a GPU that has it; losses, weights and figures stay in float32.
    """

    epochs: Count = 8
    batch_size: BatchSize = 64
    lr: Positive = 1e-3
    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: NonNegative = 0.05
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.05
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    clip: Positive | None = None
    bn_momentum: Annotated[float, Field(ge=0, le=1)] = 0.1
    early_stopping: Count | None = None
    views: Count | None = None
    mixup: Annotated[float, Field(ge=0, le=100)] = 0.0
    bf16: bool | Literal["auto"] = "auto"


class TransferOptions(_Training):
    """New head, linear probe, then fine-tuning of everything."""

    epochs: Count = 6
    batch_size: BatchSize = 32
    lr: Positive = 3e-3
    probe_epochs: CountOrNone = 10
    probe_lr: Positive = 3e-3
    head_lr: Positive | None = None
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    regularizer: Literal["weight_decay", "l2sp"] = "weight_decay"
    bn_examples: CountOrNone = 1024
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0


class DistilOptions(_Training):
    """The transferred network learns from a teacher (only with `teacher`).

    "auto" is what suits classes, student and teacher; run.json says what it became. cache_mb keeps the teacher's
    answers for the length of the run, up to that many megabytes (0: none), and views are how many epochs' order and
    augmentation are served in turn (null: all).
    """

    loss: str = "auto"
    temperature: Annotated[float, Field(ge=0.01, le=1000)] | Literal["auto"] = "auto"
    weight: NonNegative | Literal["auto"] = "auto"
    guide: Literal["none", "teacher-guided"] = "none"
    guide_alpha: Positive = 1.0
    hidden: NonNegative | Literal["auto"] = "auto"
    hidden_layers: Literal["uniform", "middle", "last"] = "uniform"
    attention: NonNegative = 0.0
    attention_layer: int = -1
    cache_mb: NonNegative = 0.0

    @model_validator(mode="after")
    def _one_class_each(self) -> Self:
        if self.mixup and self.loss == "dkd":
            raise ValueError(ONE_CLASS_EACH)
        return self


class TrimOptions(Part):
    """Whole residual blocks dropped before units are pruned; `blocks: 0` drops none, "auto" as many as were chosen."""

    blocks: CountOrNone | Literal["auto"] = "auto"
    calibration: Count = 256


class AdjustOptions(Part):
    """Components changed before units are pruned (`penjing inspect --adjustments` lists what could be): as many `edits`
    as are done, those that cost least loss for what they save first; 0 none, "auto" as many as were chosen. Those
    in `do` are done before all others, worded as that list words them ("layer4.1: dropped").

    `kinds` are those that may be done (null: all). `calibration` examples fit a new component, as many others judge it;
    the search for them takes at most `seconds` (null: a third of what the step choose may take, or no limit).
    """

    edits: CountOrNone | Literal["auto"] = "auto"
    do: tuple[str, ...] = ()
    kinds: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    calibration: Annotated[int, Field(ge=16)] = 256
    seconds: Positive | None = None


class PruneOptions(Part):
    """Which units go: the criterion, how its scores are compared, and which kinds may shrink (null: all).

    "auto" is what the step choose found best, else what suits the task; scope auto is then loss for criteria in units
    of the loss, else global.
    rounds cut in that many steps, with `between` epochs of recovery after each but the last; "auto" is one where
    reconstruction follows, else steps of about 30% where the budget is a share below one half.
    """

    criterion: str = "auto"
    scope: Literal["auto", "uniform", "global", "loss"] = "auto"
    granularity: Annotated[tuple[str, ...], Field(min_length=1)] | Literal["auto"] | None = "auto"
    round_to: Count | Literal["auto"] = "auto"
    protect: tuple[str, ...] = ()
    calibration: Count = 512
    rounds: Annotated[int, Field(ge=1, le=20)] | Literal["auto"] = "auto"
    between: Count = 2


class _Regained(DistilOptions):
    bn_examples: CountOrNone = 1024


class RecoverOptions(_Regained):
    """Accuracy won back: closed-form reconstruction (auto: where it helps), learning-rate restart, distillation
    from the network before pruning, batch norm.
    """

    reconstruct: bool | Literal["auto"] = "auto"
    reconstruct_examples: Count = 1024


class TuneOptions(Part):
    """The recover step's options searched by recoveries of a `share` of its epochs; without trials or seconds none is.
    `space` null is around the recipe's rate and weights of the loss, `storage` null a file in the run folder."""

    trials: CountOrNone = 0
    seconds: Positive | None = None
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    space: Annotated[dict[str, tuple[Number | str, ...]] | None, BeforeValidator(checked_space)] = None
    stop_early: bool = True
    storage: Annotated[str, Field(pattern="://")] | None = None

    @property
    def on(self) -> bool:
        return bool(self.trials or self.seconds)

    @field_validator("space")
    @classmethod
    def _allowed(cls, space: Any) -> Any:
        try:
            _ = [RecoverOptions.model_validate({k: v}) for k, among in (space or {}).items() for v in among]
        except ValidationError as error:
            raise ValueError(f"{error.errors()[0]['loc'][0]}: {error.errors()[0]['msg']}") from None
        return space


class SparsifyOptions(_Regained):
    """Single weights made zero after recovery, and kept so while training: for size on disk, not for speed.

    `share` of the weights, or an N:M `pattern`; neither is off. `layers` names which (null: all that can).
    """

    epochs: Count = 4
    share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    pattern: Annotated[str, Field(pattern=r"^[1-9][0-9]*:[1-9][0-9]*$")] | None = None
    method: Literal["magnitude", "wanda"] = "magnitude"
    layers: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    ramp: Annotated[float, Field(ge=0, lt=1)] = 0.5
    calibration: Count = 512

    @property
    def on(self) -> bool:
        return self.share > 0 or self.pattern is not None


class FoldOptions(Part):
    """Batch norms folded into the layers before them once training is over, which changes no answer; auto is where the
    runtime does not do so itself (eager, compile). Rivals are treated alike.
    """

    norms: bool | Literal["auto"] = "auto"


class ControlOptions(Part):
    """Rivals given the same recovery: a ready-made smaller member of the network's family at equal latency, the slim
    structure from scratch, and random units.

    `smaller` is auto, none, or the source to take.
    """

    smaller: Annotated[str, BeforeValidator(checked_rival)] = "auto"
    scratch: bool = True
    random: bool = False


class MeasureOptions(Part):
    """How latency is timed; speed-ups are interleaved runs at each of these batch sizes.

    `elsewhere` also times other batch sizes, numbers of threads and installed runtimes, a few rounds each.
    """

    batch_sizes: Annotated[tuple[Count, ...], Field(min_length=1)] = (32, 1)
    repeats: Annotated[int, Field(ge=3)] = 50
    rounds: Annotated[int, Field(ge=3)] = 30
    elsewhere: bool = True


class Steps(Part):
    """The options of every step of a run."""

    transfer: TransferOptions = TransferOptions()
    distil: DistilOptions = DistilOptions()
    choose: ChooseOptions = ChooseOptions()
    trim: TrimOptions = TrimOptions()
    adjust: AdjustOptions = AdjustOptions()
    prune: PruneOptions = PruneOptions()
    tune: TuneOptions = TuneOptions()
    recover: RecoverOptions = RecoverOptions()
    sparsify: SparsifyOptions = SparsifyOptions()
    fold: FoldOptions = FoldOptions()
    controls: ControlOptions = ControlOptions()
    measure: MeasureOptions = MeasureOptions()
    certify: CertifyOptions = CertifyOptions()
    stability: StabilityOptions = StabilityOptions()
    explain: ExplainOptions = ExplainOptions()


def _filled_steps(values: Mapping[str, Any]) -> Any:
    """The steps with the options that suit the task where they say nothing; anything else is left to be refused."""
    written = values.get("steps", {})
    suits = step_defaults(str(values.get("task")), pretrained=values.get("weights") != "none")
    if not isinstance(written, Mapping):
        return written
    steps = dict(written)
    for step, options in suits.items():
        own = steps.get(step, {})
        steps[step] = {**options, **own} if isinstance(own, Mapping) else own
    return steps


class Recipe(Part):
    """What a run does. Names only: code comes in from the command line or Python, never from a recipe.

    `model_args` go to the network's builder or configuration; `beam` is the width speech is read with (0: greedily).
    `margin` is the loss of the headline metric, in points, that is accepted. The slim network is timed in the places
    of `also`, too: "cuda", "openvino,batch=8", "threads=2". With `seeds` above 1 the recovery is repeated with other
    seeds, which shows how far its result is chance.
    """

    schema_version: Literal[1] = 1
    task: TaskName
    model: str
    model_args: dict[str, Any] = {}
    weights: str
    teacher: str | None = None
    teacher_weights: str
    data: Annotated[DataOptions, BeforeValidator(data_named)]
    budget: Annotated[str, AfterValidator(checked_budget)]
    margin: Annotated[float, AfterValidator(checked_margin)] | None = None
    runtime: RuntimeName = "eager"
    device: Literal["cpu", "cuda"] = "cpu"
    also: tuple[Annotated[str, AfterValidator(checked_place)], ...] = ()
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    seeds: Annotated[int, Field(ge=1, le=20)] = 1
    image_size: Annotated[int, Field(ge=8, le=4096)] | None = None
    beam: CountOrNone = 0
    steps: Steps = Steps()

    @model_validator(mode="before")
    @classmethod
    def _weights(cls, values: Any) -> Any:
        """Registered models start pretrained; code and saved folders bring what they have."""
        if not isinstance(values, dict):
            return values
        filled = dict(values)
        for key in ("model", "teacher"):
            name = values.get(key)
            registered = isinstance(name, str) and name.startswith(REGISTERED)
            filled.setdefault(_WEIGHTS[key], "pretrained" if registered else "none")
        filled["steps"] = _filled_steps(filled)
        return filled

    @classmethod
    def of(
        cls, values: Mapping[str, Any], *, where: str = "the recipe", given: Collection[str] = ()
    ) -> "Recipe":
        """Checks and completes `values`; a mistake is a `UsageError` naming file, key and way out.

        `given` are the keys (as in "data.source") that came from the command line, where their mistakes are.
        """
        try:
            recipe = cls.model_validate(dict(values))
        except ValidationError as error:
            raise UsageError(complaints(mistakes(error, cls), where, given)) from None
        idle = [(key, why, f"{key}: {why}") for key, why in strangers(recipe.task, recipe)]
        if idle:
            raise UsageError(complaints(idle, where, given))
        return recipe

    @classmethod
    def load(cls, path: str | Path) -> "Recipe":
        """The recipe in a YAML file, which may name registered models and data but no `file:` code."""
        values = read_yaml(path)
        refuse_code(values, where=str(path))
        return cls.of(values, where=str(path))

    def to_yaml(self) -> str:
        """This recipe with every default written out."""
        return dump_yaml(self.model_dump(mode="json"))


def refuse_code(values: Mapping[str, Any], *, where: str) -> None:
    """Raises `UsageError` where a recipe's model or teacher names code."""
    for key in ("model", "teacher"):
        if isinstance(values.get(key), str) and runs_code(values[key]):
            raise UsageError(
                f"{clean(where)}: `{key}: {cut(clean(values[key]))}` names code, and a recipe may not run "
                f"code. If you trust that code, give it on the command line: --{key} {clean(values[key])}"
            )


def runs_code(source: str) -> bool:
    """True for a source that runs code from outside the installed packages."""
    return source.startswith(("file:", "hub:"))
