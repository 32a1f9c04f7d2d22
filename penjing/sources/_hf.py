"""Networks of transformers: hf:FOLDER, hf:OWNER/NAME on the hub, or hf:TYPE for a fresh one."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from penjing.core import Reads, SourceError, cut, nearest
from penjing.sources._hf_config import changed, is_type, make, of_folder, plain, read_json, refuse_code, types
from penjing.sources._hf_files import CONFIG, folder_of, is_folder, read_state
from penjing.sources._hf_heads import POOLINGS
from penjing.sources._hf_labels import OwnLabels, described, own_labels, reorder
from penjing.sources._hf_networks import (
    ARCHITECTURES,
    WRAPPED,
    Shape,
    architecture_for,
    blank,
    build,
    has_trained_head,
    load,
    set_classes,
    task_of,
    wider,
)
from penjing.sources._hf_reads import Vocabulary, first_position, reads_of, vocabulary_of
from penjing.sources._limits import bounded, counted
from penjing.sources._registry import JSON
from penjing.sources._weights import read_weights

OWN_ARGS = ("pooling", "dropout")
STORED = ("architecture", "config", "num_classes", *OWN_ARGS)
POOLING = Path("1_Pooling", CONFIG)
MODES = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "last",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Network:
    """A network, the arguments that rebuild it, what it reads, and where its values came from."""

    model: nn.Module
    args: Mapping[str, JSON]
    reads: Reads
    weights: str
    family: str
    own_labels: tuple[str, ...] = ()
    kept_head: bool = False
    head: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Origin:
    """A configuration and the folder it lies in; `where` in messages, `told` is what its weights are called."""

    name: str
    where: str
    values: Mapping[str, JSON]
    folder: Path | None = None
    told: str = ""
    pooled: bool = False
    architectures: tuple[str, ...] = ()


def load_network(
    name: str,
    *,
    weights: str | None,
    num_classes: int | None,
    args: Mapping[str, JSON],
    task: str | None,
    labels: Sequence[str] | None = None,
    called: str = "",
) -> Network:
    """The network that `name` stands for, with the class that `task` asks for, in eval mode; `called` in messages.

    `args` are values of its configuration; also "pooling" (mean, cls, max, last) and "dropout" of a head of ours. The
    tokenizer or feature extractor comes from the same folder. `labels` are the names of the `num_classes` outputs: a
    pretrained head that was trained for just these stays, in their order. Raises SourceError.
    """
    where = called or f"hf:{name}"
    origin = _origin(name, where, pretrained=weights == "pretrained")
    own = {key: args[key] for key in OWN_ARGS if key in args}
    values = changed(origin.values, {k: v for k, v in args.items() if k not in own}, where)
    config = make(_quiet_training(values, args, where), where)
    task = task or task_of(config, origin.architectures)
    _check_labels(config)
    shape = _shape(origin, config, task, num_classes, own)
    trained = _trained_for(origin, config, shape, weights)
    set_classes(shape, config, labels)
    counted(lambda: build(shape, copy.deepcopy(config)), where)
    if task in ("text-classification", "token-classification") and origin.folder is not None:
        _agree_on_padding(config, shape, vocabulary_of(origin.folder, where))
    stored = _stored(shape, config)  # some classes change the configuration they are given
    head = _Head(own=trained, labels=labels, fresh=num_classes is not None)
    filled = _filled(origin, config, shape, weights, head)
    model = filled.model
    return Network(
        model=model.eval(),
        args=stored,
        reads=reads_of(model, config, task, origin.folder, origin.name),
        weights=filled.told,
        family=str(config.model_type),
        own_labels=trained.names,
        kept_head=filled.kept,
        head=filled.head,
    )


def build_network(source: str, args: Mapping[str, JSON], device: str | torch.device) -> nn.Module:
    """The structure that `load_network` gave with `args`, from these alone: neither folder nor hub is asked.

    Raises SourceError where they hold anything but plain data about a structure.
    """
    unknown = sorted(set(args) - set(STORED))
    architecture = args.get("architecture")
    if unknown or architecture not in ARCHITECTURES or not isinstance(args.get("config"), Mapping):
        said = (
            f"{', '.join(map(cut, unknown))} are not known"
            if unknown
            else "architecture or config is missing"
        )
        raise SourceError(
            f"{source} is rebuilt from architecture (one of {', '.join(ARCHITECTURES)}), config and num_classes; "
            f"{said}. "
            "Fix: give the args of the LoadedSource that load_source returned"
        )
    config = make(args["config"], source)
    shape = Shape(
        architecture=str(architecture),
        classes=_number(args.get("num_classes"), source),
        pooling=str(args.get("pooling", "mean")),
        dropout=args.get("dropout"),
    )
    set_classes(shape, config)
    if torch.device(device).type != "meta":
        counted(lambda: build(shape, copy.deepcopy(config)), source)
    try:
        with bounded(source), torch.device(device):
            return build(shape, config).to(device).eval()
    except SourceError:
        raise
    except Exception as error:
        raise SourceError(
            f"{source} cannot be built from its args: {type(error).__name__}: {cut(str(error), 300)}. Fix: the "
            "configuration is not one that its type can build"
        ) from error


def _number(value: Any, source: str) -> int:
    if type(value) is int and value >= 1:
        return value
    raise SourceError(f"{source}: num_classes is {value!r}. Fix: give a whole number above 0")


def _origin(name: str, where: str, *, pretrained: bool) -> _Origin:
    if is_type(name) and not pretrained and not is_folder(name):
        return _Origin(name=name, where=where, values={"model_type": name})
    folder = folder_of(name, weights=pretrained, also=_also(name))
    raw = read_json(folder / CONFIG)
    refuse_code(of_folder(raw, where), where)
    classes = tuple(map(str, raw.get("architectures") or ()))
    return _Origin(
        name=str(folder) if name.startswith("~") or ("@" in name and not is_folder(name)) else name,
        where=where,
        values=of_folder(raw, where),
        folder=folder,
        told=_told(name, where, folder),
        pooled=(folder / POOLING).is_file() or (folder / "modules.json").is_file(),
        architectures=classes,
    )


def _told(name: str, where: str, folder: Path) -> str:
    """How the weights in `folder` are called."""
    if where.startswith("builtin:"):
        return f"package {where.removeprefix('builtin:')}"
    return f"folder {folder.name}" if is_folder(name) else f"hub {folder.name[:12]}"


def _also(name: str) -> str:
    """What else the name may have meant."""
    if is_type(name):
        return f" hf:{name} is also a type: with --weights none it is a fresh network of that type."
    near = nearest(name, types(), n=3) if "/" not in name else []
    return f" Nearest types, for fresh networks (--weights none): {', '.join(near)}." if near else ""


def _pooling(folder: Path | None) -> str:
    """The pooling in a sentence encoder's folder. More than one, or one that is not known, is a SourceError."""
    if folder is None or not (folder / POOLING).is_file():
        return "mean"
    content = read_json(folder / POOLING)
    if isinstance(content.get("pooling_mode"), str):
        asked = [content["pooling_mode"].removesuffix("token").removesuffix("_tokens")]
    else:
        asked = [
            MODES.get(key, key)
            for key, on in content.items()
            if key.startswith("pooling_mode_") and on is True
        ]
    if len(asked) != 1 or asked[0] not in POOLINGS:
        raise SourceError(
            f"{folder / POOLING} asks for {', '.join(asked) or 'no pooling'}. Fix: say one of "
            f"{', '.join(POOLINGS)} in args: pooling"
        )
    return asked[0]


def _quiet_training(values: Mapping[str, JSON], args: Mapping[str, JSON], where: str) -> dict[str, JSON]:
    """SpecAugment off unless asked for: it draws from NumPy's generator, which a resumed run cannot repeat."""
    known = "apply_spec_augment" in plain(make(values, where))
    asked = any(key.startswith(("mask_time", "mask_feature", "apply_spec")) for key in args)
    return {**values, "apply_spec_augment": False} if known and not asked else dict(values)


def _check_labels(config: Any) -> None:
    if config.num_labels is not None and config.num_labels < 1:
        raise SourceError(f"num_labels is {config.num_labels}; a classifier needs at least 1")


def _agree_on_padding(config: Any, shape: Shape, vocabulary: Vocabulary | None) -> None:
    """Make the tokenizer's pad token the network's, by which some find the end of a text.

    Not where positions are counted from it, and it is part of what the weights were trained with.
    """
    if vocabulary is None or not hasattr(config, "pad_token_id") or config.pad_token_id == vocabulary.pad:
        return
    unsaid = config.pad_token_id is None or config.pad_token_id < 0
    if unsaid or first_position(blank(shape, config), config) == 0:
        config.pad_token_id = vocabulary.pad


def _shape(
    origin: _Origin, config: Any, task: str, num_classes: int | None, own: Mapping[str, JSON]
) -> Shape:
    where = origin.where
    pooled = origin.pooled or "pooling" in own
    architecture = architecture_for(task, config, origin.architectures, pooled=pooled, where=where)
    if own and architecture not in WRAPPED:
        raise SourceError(
            f"{where} has a head of its own, which {' and '.join(own)} in args cannot change. Fix: leave out "
            f"{' and '.join(own)}, or give pooling (mean, cls, max, last) for a head of ours"
        )
    pooling = str(own["pooling"]) if "pooling" in own else _pooling(origin.folder)
    dropout = own.get("dropout")
    if pooling not in POOLINGS or not (
        dropout is None or (isinstance(dropout, int | float) and 0 <= dropout < 1)
    ):
        raise SourceError(
            f"{where}: pooling {pooling!r} and dropout {dropout!r} cannot be used. Fix: pooling is one of "
            f"{', '.join(POOLINGS)}, dropout lies in [0, 1)"
        )
    classes = num_classes
    if classes is None:
        classes = config.vocab_size if architecture == "ctc" else config.num_labels
    return Shape(architecture=architecture, classes=classes, pooling=pooling, dropout=dropout)


def _trained_for(origin: _Origin, config: Any, shape: Shape, weights: str | None) -> OwnLabels:
    """What the outputs of the head in the folder stand for."""
    if weights not in (None, "none", "pretrained"):
        return OwnLabels(why="weights out of a file come without the names of their classes")
    if origin.folder is None or not has_trained_head(shape, config, origin.architectures):
        return OwnLabels(why="the checkpoint has none for this task")
    return own_labels(config, spells=shape.architecture == "ctc", folder=origin.folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Head:
    """What the head in the folder was trained for, and what is asked: outputs called `labels`, or any new one."""

    own: OwnLabels
    labels: Sequence[str] | None
    fresh: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Filled:
    """The network with its values, the words that say where they came from, and what became of its head."""

    model: nn.Module
    told: str
    kept: bool = False
    head: str = ""


def _filled(origin: _Origin, config: Any, shape: Shape, weights: str | None, head: _Head) -> _Filled:
    where = origin.where
    if weights in (None, "none"):
        try:
            return _Filled(model=build(shape, copy.deepcopy(config)), told="none")
        except SourceError:
            raise
        except Exception as error:
            raise SourceError(
                f"{where} cannot be built: {type(error).__name__}: {cut(str(error), 300)}. Fix: give args that its "
                "type can build"
            ) from error
    state, told = _state(origin, str(weights))
    own, places = head.own, head.own.places(head.labels)
    found = None if places is None else _kept(shape, config, state.tensors, places, where)
    if isinstance(found, SourceError):
        own, places, found = OwnLabels(why=str(found).partition("\n")[0].rstrip(".")), None, None
    model, remarks = found or load(
        shape, copy.deepcopy(config), state.tensors, fresh_head=head.fresh, where=where
    )
    said = "; ".join(part for part in (state.remark, *remarks) if part)
    return _Filled(
        model=model,
        told=f"{told} ({said})" if said else told,
        kept=places is not None,
        head=""
        if head.labels is None
        else described(own, head.labels, places, spells=shape.architecture == "ctc"),
    )


def _kept(
    shape: Shape, config: Any, state: Mapping[str, Tensor], places: Sequence[int], where: str
) -> tuple[Any, tuple[str, ...]] | SourceError:
    """The network with the head of `state`, its outputs in the order of `places`; or why that cannot be."""
    try:
        model, remarks = load(shape, copy.deepcopy(config), state, fresh_head=False, where=where)
        reorder(model, wider(shape, config), places)
    except SourceError as error:
        return error
    return model, remarks


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _State:
    tensors: Mapping[str, Tensor]
    remark: str


def _state(origin: _Origin, weights: str) -> tuple[_State, str]:
    if weights != "pretrained":
        return _State(tensors=read_weights(weights), remark=""), f"file {Path(weights).name}"
    if origin.folder is None:
        raise SourceError(
            f"hf:{origin.name} is a type and has no weights. Fix: --weights none, or a folder's name"
        )
    tensors, remark = read_state(origin.folder, origin.where)
    return _State(tensors=tensors, remark=remark), origin.told


def _stored(shape: Shape, config: Any) -> dict[str, JSON]:
    kept: dict[str, JSON] = {
        "architecture": shape.architecture,
        "config": plain(config),
        "num_classes": shape.classes,
    }
    if shape.architecture in WRAPPED:
        kept |= {"pooling": shape.pooling} | ({} if shape.dropout is None else {"dropout": shape.dropout})
    return kept
