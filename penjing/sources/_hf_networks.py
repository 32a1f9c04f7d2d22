"""Networks of transformers for a task: which class, built from a configuration, filled with weights."""

import inspect
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from penjing.core import SourceError, nearest
from penjing.sources._head import find_head
from penjing.sources._hf_config import quiet, transformers
from penjing.sources._hf_heads import POOLINGS, FramesClassifier, SentenceClassifier, TokenClassifier

NATIVE = {
    "sequence-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "audio-classification": "AutoModelForAudioClassification",
    "ctc": "AutoModelForCTC",
    "image-classification": "AutoModelForImageClassification",
}
TASKS = {
    "text-classification": ("sequence-classification", "pooled-text"),
    "token-classification": ("token-classification", "pooled-tokens"),
    "audio-classification": ("audio-classification", "pooled-sound"),
    "speech-recognition": ("ctc", None),
    "image-classification": ("image-classification", None),
}
WRAPPED = ("pooled-text", "pooled-tokens", "pooled-sound")
ARCHITECTURES = (*NATIVE, *WRAPPED)
BEYOND = ("pooler", "masked_spec_embed")  # parts of a body that a checkpoint may lack or have in excess
SHOWN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What is built: one of ARCHITECTURES; `pooling` and `dropout` are of heads of ours."""

    architecture: str
    classes: int
    pooling: str = "mean"
    dropout: float | None = None


def architecture_for(task: str, config: Any, *, bare: bool, where: str) -> str:
    """The architecture for `task`: the type's own class, or an encoder with our head where there is none.

    `bare` says that the checkpoint is an encoder alone, made for sentence vectors.
    """
    if task not in TASKS:
        near = nearest(task, TASKS)
        meant = f" Did you mean {near[0]!r}?" if near else ""
        raise SourceError(f"hf: has no networks for the task {task!r}.{meant} It knows {', '.join(TASKS)}")
    native, wrapped = TASKS[task]
    has = type(config) in _mapping(native)
    if wrapped and ((bare and wrapped == "pooled-text") or not has) and _has_encoder(config, wrapped):
        return wrapped
    if not has:
        others = [name for name, (own, _) in TASKS.items() if type(config) in _mapping(own)]
        said = f"It has one for {', '.join(others)}" if others else "It has none for any task"
        raise SourceError(
            f"{where}: transformers has no class for {task} of type {config.model_type!r}. {said}. "
            "Fix: choose another network or task"
        )
    return native


def task_of(config: Any, architectures: Collection[str]) -> str:
    """The task that a checkpoint's own class is for; else the first one that its type has a class for."""
    for named in (True, False):
        for task, (native, _) in TASKS.items():
            maker = _mapping(native).get(type(config), None)
            makers = maker if isinstance(maker, tuple) else (maker,)
            if maker is not None and (not named or any(m.__name__ in architectures for m in makers)):
                return task
    return "text-classification"


def build(shape: Shape, config: Any) -> nn.Module:
    """The network with values of its own initialisation, float32, in training mode."""
    if shape.architecture in NATIVE:
        auto = getattr(transformers(), NATIVE[shape.architecture])
        with quiet():
            return auto.from_config(config, trust_remote_code=False, dtype=torch.float32)
    maker = _encoder_class(config)
    with quiet():
        return _headed(
            shape, config, maker._from_config(config, dtype=torch.float32, **without_pooler(maker))
        )


def load(shape: Shape, config: Any, state: Mapping[str, Tensor], *, fresh_head: bool, where: str) -> Any:
    """The network with `state`, names and layouts of older versions understood, and what is new or unused.

    `fresh_head` draws the last layer anew. Raises SourceError that names the keys where the body lacks values, or the
    file has values that the body has no place for.
    """
    if shape.architecture in NATIVE:
        maker: Any = _mapping(shape.architecture)[type(config)]
        maker = maker[0] if isinstance(maker, tuple) else maker
        extra: dict[str, Any] = {}
        with torch.device("meta"):
            head = find_head(build(shape, config))
        state = OrderedDict((k, v) for k, v in state.items() if not (fresh_head and k.startswith(f"{head}.")))
    else:
        maker = _encoder_class(config)
        extra = without_pooler(maker)
        if not fresh_head:
            raise SourceError(_headless(where, [f"a classifier after {maker.__name__}"]))
    try:
        with quiet():
            model, info = maker.from_pretrained(
                None,
                config=config,
                state_dict=dict(state),
                dtype=torch.float32,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **extra,
            )
    except Exception as error:
        raise SourceError(
            f"Weights of {where} do not fit the network: {type(error).__name__}: {error}. "
            "Fix: choose the network these weights were made for"
        ) from error
    remarks = _accounted(model, info, fresh_head=fresh_head, where=where)
    return (model if shape.architecture in NATIVE else _headed(shape, config, model)), remarks


def set_classes(shape: Shape, config: Any) -> None:
    """Say the number of classes in the configuration, as both `build` and `load` expect."""
    if shape.architecture == "ctc":
        config.vocab_size = shape.classes
    else:
        config.num_labels = shape.classes


def is_bare(architectures: Collection[str]) -> bool:
    """Whether these classes of a config.json are encoders without a head."""
    from transformers.models.auto import modeling_auto

    tables = (modeling_auto.MODEL_MAPPING_NAMES, modeling_auto.MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES)
    known: set[str] = set()
    for value in (value for table in tables for value in table.values()):
        known.update((value,) if isinstance(value, str) else value)
    return bool(architectures) and all(name in known for name in architectures)


def _mapping(architecture: str) -> Any:
    return getattr(transformers(), NATIVE[architecture])._model_mapping


def _has_encoder(config: Any, architecture: str) -> bool:
    """Whether the type has an encoder that reads what this head is for."""
    try:
        reads = _encoder_class(config).main_input_name
        return _width(config) > 0 and (reads == "input_ids") == (architecture != "pooled-sound")
    except SourceError:
        return False


def _encoder_class(config: Any) -> Any:
    """The class of the bare network; of a pair of encoder and decoder, the encoder alone."""
    from transformers.models.auto import modeling_auto

    mapping = modeling_auto.MODEL_FOR_TEXT_ENCODING_MAPPING
    if type(config) not in mapping and not getattr(config, "is_encoder_decoder", False):
        mapping = modeling_auto.MODEL_MAPPING
    if type(config) not in mapping:
        raise SourceError(
            f"transformers has no encoder of type {config.model_type!r} that stands alone. Fix: choose another"
        )
    found: Any = mapping[type(config)]
    return found[0] if isinstance(found, tuple) else found


def without_pooler(maker: Any) -> dict[str, Any]:
    """Our heads pool by themselves: a pooler would hold weights that nothing reads."""
    known = inspect.signature(maker.__init__).parameters
    return {"add_pooling_layer": False} if "add_pooling_layer" in known else {}


def _width(config: Any) -> int:
    for part in (config, config.get_text_config()):
        width = getattr(part, "hidden_size", None)
        if isinstance(width, int):
            return width
    raise SourceError(f"The width of type {config.model_type!r} is not known. Fix: choose another network")


def _headed(shape: Shape, config: Any, encoder: nn.Module) -> nn.Module:
    if shape.pooling not in POOLINGS:
        raise SourceError(f"pooling is {shape.pooling!r}. Fix: choose one of {', '.join(POOLINGS)}")
    width, classes = _width(config), shape.classes
    dropout = _dropout(config) if shape.dropout is None else shape.dropout
    if shape.architecture == "pooled-tokens":
        return TokenClassifier(encoder, width, classes, dropout)
    if shape.architecture == "pooled-text":
        return SentenceClassifier(encoder, width, classes, shape.pooling, dropout)
    keyword = str(getattr(encoder, "main_input_name", "input_values"))
    return FramesClassifier(encoder, width, classes, shape.pooling, dropout, keyword)


def _dropout(config: Any) -> float:
    for name in (
        "classifier_dropout",
        "seq_classif_dropout",
        "hidden_dropout_prob",
        "hidden_dropout",
        "dropout",
    ):
        value = getattr(config, name, None)
        if isinstance(value, float):
            return value
    return 0.1


def _accounted(model: Any, info: Mapping[str, Any], *, fresh_head: bool, where: str) -> tuple[str, ...]:
    """What is new and what is unused, in words; SourceError where that touches the body."""
    prefix = f"{model.base_model_prefix}."
    inner = getattr(model, model.base_model_prefix, None)
    body = inner if isinstance(inner, nn.Module) else model
    parts = {name for name, _ in (*body.named_children(), *body.named_parameters(recurse=False))}
    missing, unexpected = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
    wrong = sorted(
        f"{key}: {tuple(a)} in the file, {tuple(b)} in the network" for key, a, b in info["mismatched_keys"]
    )

    def of_body(key: str) -> bool:
        short = key.removeprefix(prefix)
        inside = key.startswith(prefix) or short.partition(".")[0] in parts
        return inside and not any(part in short.split(".") for part in BEYOND)

    whole = body is model
    lost = [key for key in missing if (whole or key.startswith(prefix)) and of_body(key)]
    odd = [key for key in unexpected if of_body(key)]
    resized = [line for line in wrong if not fresh_head or whole or line.startswith(prefix)]
    problems = (("missing in the file", lost), ("unexpected in the file", odd), ("wrong shape", resized))
    if any(keys for _, keys in problems) or info["error_msgs"]:
        raise SourceError(_misfit(where, problems, info["error_msgs"]))
    new = [key for key in missing if key not in lost]
    head = [key for key in new if not whole and not key.startswith(prefix)]
    if head and not fresh_head:
        raise SourceError(_headless(where, head))
    new += [line.partition(":")[0] for line in wrong]
    return tuple(_named(word, keys) for word, keys in (("new", new), ("not used", unexpected)) if keys)


def _named(word: str, keys: list[str]) -> str:
    modules = list(dict.fromkeys(key.rpartition(".")[0] or key for key in keys))
    more = f" and {len(modules) - SHOWN} more" if len(modules) > SHOWN else ""
    return f"{word}: {', '.join(modules[:SHOWN])}{more}"


def _headless(where: str, head: list[str]) -> str:
    return (
        f"{where} has no values for the head: {', '.join(head[:SHOWN])}. Fix: give the number of classes for a "
        "new head (num_classes=N), or start without weights"
    )


def _misfit(where: str, problems: Any, messages: list[str]) -> str:
    lines = [f"Weights of {where} do not fit the network."]
    for title, keys in problems:
        if keys:
            more = f", and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
            lines.append(f"  {title} ({len(keys)}): {', '.join(keys[:SHOWN])}{more}")
    lines += [f"  {message}" for message in messages[:SHOWN]]
    lines.append(
        "Fix: choose the configuration these weights were made for; where only the head differs, give num_classes"
    )
    return "\n".join(lines)
