"""The recipe: what a run does, as a file that people can write and that cannot run code."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from penjing.core._budget import Budget
from penjing.core._errors import UsageError

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, lt=1)]

_WEIGHTS = {"model": "weights", "teacher": "teacher_weights"}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataOptions(_Part):
    """Which examples, how they are split, and how training pictures are varied (null: as suits the data)."""

    source: str
    splits: tuple[Share, Share, Share] | None = None
    augment: Literal["none", "light", "standard"] | None = None
    skip_bad: bool = False
    path_column: str | None = None
    label_column: str | None = None


class _Training(_Part):
    """What every kind of training takes; penjing.recover explains each field."""

    epochs: Count = 8
    batch_size: Annotated[int, Field(ge=2)] = 64
    lr: Positive = 1e-3
    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: NonNegative = 0.05
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.05
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    clip: Positive | None = None
    bn_momentum: Annotated[float, Field(ge=0, le=1)] = 0.1
    early_stopping: Count | None = None


class TransferOptions(_Training):
    """New head, linear probe, then fine-tuning of everything."""

    epochs: Count = 6
    batch_size: Annotated[int, Field(ge=2)] = 32
    lr: Positive = 3e-3
    probe_epochs: Annotated[int, Field(ge=0)] = 10
    probe_lr: Positive = 3e-3
    head_lr: Positive | None = None
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    regularizer: Literal["weight_decay", "l2sp"] = "weight_decay"
    bn_examples: Annotated[int, Field(ge=0)] = 1024
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0


class DistilOptions(_Training):
    """The transferred network learns from a teacher (only with `teacher`)."""

    loss: str = "kl"
    temperature: Positive = 2.0
    weight: NonNegative = 1.0
    guide: Literal["none", "teacher-guided"] = "none"
    guide_alpha: Positive = 1.0


class TrimOptions(_Part):
    """Whole residual blocks dropped before units are pruned; `blocks: 0` drops none."""

    blocks: Annotated[int, Field(ge=0)] = 0
    calibration: Count = 256


class PruneOptions(_Part):
    """Which units go: the criterion, and how its scores are compared."""

    criterion: str = "taylor"
    scope: Literal["uniform", "global"] = "global"
    round_to: Count = 8
    protect: tuple[str, ...] = ()
    calibration: Count = 512


class RecoverOptions(DistilOptions):
    """Accuracy won back: learning-rate restart, distillation from the network before pruning, batch norm."""

    bn_examples: Annotated[int, Field(ge=0)] = 1024


class ControlOptions(_Part):
    """Rivals given the same recovery: the slim structure from scratch, and random units."""

    scratch: bool = True
    random: bool = False


class MeasureOptions(_Part):
    """How latency is timed; speed-ups are interleaved runs at each of these batch sizes."""

    batch_sizes: Annotated[tuple[Count, ...], Field(min_length=1)] = (32, 1)
    repeats: Annotated[int, Field(ge=3)] = 50
    rounds: Annotated[int, Field(ge=3)] = 30


class Steps(_Part):
    """The options of every step of a run."""

    transfer: TransferOptions = TransferOptions()
    distil: DistilOptions = DistilOptions()
    trim: TrimOptions = TrimOptions()
    prune: PruneOptions = PruneOptions()
    recover: RecoverOptions = RecoverOptions()
    controls: ControlOptions = ControlOptions()
    measure: MeasureOptions = MeasureOptions()


def _budget(text: str) -> str:
    return str(Budget.parse(text))


def _data(value: object) -> object:
    return {"source": value} if isinstance(value, str) else value


class Recipe(_Part):
    """What a run does. Names only: code comes in from the command line or Python, never from a recipe."""

    schema_version: Literal[1] = 1
    task: Literal["image-classification"]
    model: str
    weights: str
    teacher: str | None = None
    teacher_weights: str
    data: Annotated[DataOptions, BeforeValidator(_data)]
    budget: Annotated[str, AfterValidator(_budget)]
    runtime: Literal["eager"] = "eager"
    device: Literal["cpu", "cuda"] = "cpu"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    image_size: Annotated[int, Field(ge=8)] | None = None
    steps: Steps = Steps()

    @model_validator(mode="before")
    @classmethod
    def _weights(cls, values: Any) -> Any:
        """Registered models start pretrained; code and saved folders bring what they have."""
        if not isinstance(values, dict):
            return values
        filled = dict(values)
        for key in ("model", "teacher"):
            registered = str(values.get(key)).startswith(("timm:", "torchvision:"))
            filled.setdefault(_WEIGHTS[key], "pretrained" if registered else "none")
        return filled

    @classmethod
    def of(cls, values: Mapping[str, Any], *, where: str = "the recipe") -> "Recipe":
        """Checks and completes `values`; a mistake is a `UsageError` naming file, key and way out."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            lines = "\n".join(f"  {_explain(item)}" for item in error.errors())
            raise UsageError(f"{where} cannot be used:\n{lines}") from None

    @classmethod
    def load(cls, path: str | Path) -> "Recipe":
        """The recipe in a YAML file, which may name registered models and data but no `file:` code."""
        values = read_yaml(path)
        refuse_code(values, where=str(path))
        return cls.of(values, where=str(path))

    def to_yaml(self) -> str:
        """This recipe with every default written out."""
        return _yaml().safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file, values as written; anything else is a `UsageError` with the file's name."""
    yaml = _yaml()
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as a recipe: {error}") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not YAML: {error}") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UsageError(f"{path} holds no recipe: a recipe is a mapping such as `model: timm:resnet18`.")
    return values


def refuse_code(values: Mapping[str, Any], *, where: str) -> None:
    """Raises `UsageError` where a recipe's model or teacher names code."""
    for key in ("model", "teacher"):
        if runs_code(str(values.get(key))):
            raise UsageError(
                f"{where}: `{key}: {values[key]}` names code, and a recipe may not run code. "
                f"If you trust that code, give it on the command line: --{key} {values[key]}"
            )


def runs_code(source: str) -> bool:
    """True for a source that runs code from outside the installed packages."""
    return source.startswith(("file:", "hub:"))


def _yaml() -> Any:
    try:
        import yaml
    except ImportError:
        raise UsageError("Recipes need the package PyYAML: pip install 'penjing[vision]'") from None
    return yaml


def _explain(item: Any) -> str:
    path = [str(part) for part in item["loc"]]
    key = ".".join(path)
    if item["type"] == "missing":
        return f"{key}: missing"
    if item["type"] != "extra_forbidden":
        return f"{key}: {item['msg'].removeprefix('Value error, ')} (found {item['input']!r})"
    known = _known(path[:-1])
    near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
    hint = f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(known)}."
    return f"{key}: unknown key; {hint}"


def _known(path: list[str]) -> list[str]:
    model: Any = Recipe
    for part in path:
        annotation = model.model_fields[part].annotation
        model = next(kind for kind in (annotation, *get_args(annotation)) if hasattr(kind, "model_fields"))
    return list(model.model_fields)
