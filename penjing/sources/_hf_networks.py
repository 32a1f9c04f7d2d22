"""Networks of transformers for a task: which class, built from a configuration, filled with weights."""

import copy
import inspect
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from penjing.core import SourceError, blank_in, nearest
from penjing.sources._head import find_head
from penjing.sources._hf_account import accounted, headless
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What is built: one of ARCHITECTURES; `pooling` and `dropout` are of heads of ours."""

    architecture: str
    classes: int
    pooling: str = "mean"
    dropout: float | None = None


def architecture_for(
    task: str, config: Any, architectures: Collection[str], *, pooled: bool, where: str
) -> str:
    """The architecture for `task`: the type's own class, or an encoder with our head.

    Ours is taken where the type has none, for texts where the checkpoint (of these `architectures`) is an encoder alone
    or `pooled` asks for sentence vectors, and where its own would need a decoder that the checkpoint has not learned.
    """
    if task not in TASKS:
        near = nearest(task, TASKS)
        meant = f" Did you mean {near[0]!r}?" if near else ""
        raise SourceError(f"hf: has no networks for the task {task!r}.{meant} It knows {', '.join(TASKS)}")
    native, wrapped = TASKS[task]
    makers = _makers(native, config)
    learned = any(maker.__name__ in architectures for maker in makers)
    ours = pooled or is_bare(architectures) or (getattr(config, "is_encoder_decoder", False) and not learned)
    if wrapped and (not makers or (ours and wrapped == "pooled-text")) and _has_encoder(config, wrapped):
        return wrapped
    if not makers:
        others = [name for name, (own, _) in TASKS.items() if _makers(own, config)]
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
            makers = _makers(native, config)
            if makers and (not named or any(maker.__name__ in architectures for maker in makers)):
                return task
    return "text-classification"


def has_trained_head(shape: Shape, config: Any, architectures: Collection[str]) -> bool:
    """Whether a checkpoint of these classes was saved with the head of `shape`."""
    return shape.architecture in NATIVE and any(
        maker.__name__ in architectures for maker in _makers(shape.architecture, config)
    )


def build(shape: Shape, config: Any) -> nn.Module:
    """The network with values of its own initialisation, float32, in training mode."""
    if shape.architecture in NATIVE:
        with quiet():
            return _maker(shape, config)._from_config(config, dtype=torch.float32)
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
    head = ""
    if shape.architecture in NATIVE:
        maker, extra = _maker(shape, config), {}
        head = find_head(blank(shape, config))
        state = OrderedDict((k, v) for k, v in state.items() if not (fresh_head and k.startswith(f"{head}.")))
    else:
        maker = _encoder_class(config)
        extra = without_pooler(maker)
        if not fresh_head:
            raise headless(where, [f"a classifier after {maker.__name__}"])
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
    remarks = accounted(model, info, head=head, fresh_head=fresh_head, where=where)
    return (model if shape.architecture in NATIVE else _headed(shape, config, model)), remarks


def set_classes(shape: Shape, config: Any, labels: Sequence[str] | None = None) -> None:
    """Say the number of classes, and their names, in the configuration, as both `build` and `load` expect."""
    if shape.architecture == "ctc":
        config.vocab_size = shape.classes
        blank = None if labels is None else blank_in(tuple(labels))
        config.pad_token_id = config.pad_token_id if blank is None else blank  # the blank of its loss
        return
    config.num_labels = shape.classes
    if labels is not None:
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: n for n, label in enumerate(labels)}


def is_bare(architectures: Collection[str]) -> bool:
    """Whether these classes of a config.json are encoders without a head."""
    from transformers.models.auto import modeling_auto

    tables = (modeling_auto.MODEL_MAPPING_NAMES, modeling_auto.MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES)
    known: set[str] = set()
    for value in (value for table in tables for value in table.values()):
        known.update((value,) if isinstance(value, str) else value)
    return bool(architectures) and all(name in known for name in architectures)


def blank(shape: Shape, config: Any) -> nn.Module:
    """The structure alone, on the meta device."""
    with torch.device("meta"):
        return build(shape, copy.deepcopy(config))


def wider(shape: Shape, config: Any) -> nn.Module:
    """The structure with one class more, on the meta device."""
    config = copy.deepcopy(config)
    more = replace(shape, classes=shape.classes + 1)
    set_classes(more, config)
    return blank(more, config)


def _makers(architecture: str, config: Any) -> tuple[Any, ...]:
    """The classes for the type of `config`, usually one."""
    found = getattr(transformers(), NATIVE[architecture])._model_mapping.get(type(config), ())
    return found if isinstance(found, tuple) else (found,)


def _maker(shape: Shape, config: Any) -> Any:
    makers = _makers(shape.architecture, config)
    if not makers:
        raise SourceError(
            f"transformers has no {shape.architecture} of type {config.model_type!r}. Fix: choose another"
        )
    return makers[0]


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
