"""Configurations of transformers as plain JSON: what an artifact may hold, and nothing that names code."""

import contextlib
import inspect
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from penjing.core import SourceError, cut, nearest
from penjing.core._words import shown
from penjing.sources._limits import refuse_sizes
from penjing.sources._registry import JSON
from penjing.sources._require import require

ATTENTION = "attn_implementation"
ATTENTIONS = ("eager", "sdpa")
CODE = ("auto_map", "custom_pipelines", "custom_generate", "trust_remote_code")
ELSEWHERE = (
    "transformers_weights",
    "fusion_config",
    "kernel_config",
    "quantization_config",
    "adapter_config",
)
OURS = ("_name_or_path", "name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype")
OUTPUTS = ("return_dict", "output_attentions", "output_hidden_states", "use_return_dict")
LABELS = ("label2id",)  # follows from id2label
DROPPED = frozenset((*CODE, *ELSEWHERE, *OURS, *OUTPUTS, *LABELS, ATTENTION))
LARGEST = 16_000_000


def transformers() -> Any:
    return require("transformers", "text")


def types() -> Mapping[str, Any]:
    """Configuration classes by the type's name, as 'bert'."""
    return transformers().CONFIG_MAPPING


def is_type(name: str) -> bool:
    return name in types()


def read_json(path: Path) -> dict[str, JSON]:
    """The mapping in a JSON file. Raises SourceError that names the file."""
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"{path.stat().st_size} bytes are too many")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(f"{path} cannot be read: {error}. Fix: fetch the file again") from error
    if not isinstance(content, dict):
        raise SourceError(f"{path} holds {type(content).__name__}, not a mapping. Fix: fetch the file again")
    return content


def of_folder(values: Mapping[str, JSON], where: str) -> dict[str, JSON]:
    """What a folder's config.json says of the structure. Raises SourceError where that cannot be used."""
    if values.get("quantization_config"):
        raise SourceError(
            f"{where} is quantized ({shown(values['quantization_config'])}). Fix: take the network it was "
            "quantized from"
        )
    kind = values.get("model_type")
    if not isinstance(kind, str) or not is_type(kind):
        raise SourceError(_unknown_type(kind, where, values))
    refuse_sizes(values, where)
    return _structure(values)


def make(values: Mapping[str, JSON], where: str) -> Any:
    """The configuration object of plain `values`, which name its type as 'model_type'. Raises SourceError."""
    refuse_code(values, where)
    content = dict(values)
    attention, kind = content.pop(ATTENTION, None), content.pop("model_type", None)
    if not isinstance(kind, str) or not is_type(kind):
        raise SourceError(_unknown_type(kind, where, values))
    maker = types()[kind]
    decode = getattr(maker, "_decode_special_floats", dict)
    try:
        with quiet():
            config = maker(**decode(json.loads(json.dumps(content))))
    except Exception as error:
        raise SourceError(
            f"{where}: the configuration of type {kind!r} is refused: {type(error).__name__}: "
            f"{cut(str(error), 300)}. Fix: give values its type knows"
        ) from error
    if attention is not None:
        config._attn_implementation = attention
    if config.id2label is not None:
        config.label2id = {label: number for number, label in config.id2label.items()}
    return config


def changed(values: Mapping[str, JSON], args: Mapping[str, JSON], where: str) -> dict[str, JSON]:
    """`values` with `args` over them. A name that the configuration does not know is a SourceError."""
    refuse_code(args, "args")
    if "model_type" in args:
        raise SourceError("args may not change 'model_type'. Fix: name the type, as hf:bert")
    config = make(values, where)
    known = sorted({*plain(config), *getattr(config, "attribute_map", {}), "num_labels", ATTENTION})
    for key in args:
        if key not in known and not _mentioned(key, config):
            near = nearest(key, known)
            meant = f" Did you mean {near[0]!r}?" if near else f" It knows {', '.join(known)}."
            raise SourceError(f"{where}: its configuration has no {cut(key)!r}.{meant}")
    names: Mapping[str, str] = getattr(config, "attribute_map", {})
    merged = {**values, **{names.get(key, key): value for key, value in args.items()}}
    if "num_labels" in args and "id2label" not in args:
        merged.pop("id2label", None)
    return merged


def _mentioned(key: str, config: Any) -> bool:
    """Whether the type's own modelling code, which may read more than the configuration declares, has this word."""
    word = re.compile(rf"\b{re.escape(key)}\b")
    beside = Path(inspect.getfile(type(config))).parent.glob("modeling_*.py")
    return any(word.search(file.read_text(encoding="utf-8")) for file in beside)


def plain(config: Any) -> dict[str, JSON]:
    """A configuration object as JSON from which `make` builds an equal one."""
    content = json.loads(config.to_json_string(use_diff=False))
    return {**_structure(content), "model_type": config.model_type}


def refuse_code(values: Any, where: str) -> None:
    """Raise SourceError for anything in `values` that is not plain data about a structure."""
    if not isinstance(values, Mapping):
        raise SourceError(f"{where}: a configuration is a mapping, not {type(values).__name__}")
    pending: list[Any] = [values]
    while pending:
        value = pending.pop()
        if isinstance(value, Mapping):
            for key, inner in value.items():
                _refuse_key(key, inner, where)
                pending.append(inner)
        elif isinstance(value, list | tuple):
            pending.extend(value)
        elif isinstance(value, str):
            if value.startswith(("hf-hub:", "hf_hub:", "local-dir:")):
                raise SourceError(f"{where}: {shown(value)} would fetch or open something. Fix: leave it out")
        elif not isinstance(value, bool | int | float | None):
            raise SourceError(
                f"{where}: {shown(value)} is not plain JSON. Fix: numbers, words, lists, mappings"
            )


def _refuse_key(key: object, value: object, where: str) -> None:
    if not isinstance(key, str):
        raise SourceError(f"{where}: the key {shown(key)} is no word. Fix: write it as a string")
    if key == ATTENTION and value not in (None, *ATTENTIONS):
        raise SourceError(f"{where}: {ATTENTION} is {shown(value)}; it is one of {', '.join(ATTENTIONS)}")
    loads = key == "use_pretrained_backbone" and bool(value)
    if loads or ((key in CODE or key in ELSEWHERE or key.startswith("_")) and value is not None):
        raise SourceError(
            f"{where}: {cut(key)!r} names code, files or weights, and a configuration here is plain data. "
            "Fix: leave it out"
        )


def _structure(value: Any) -> Any:
    """`value` without what does not describe the structure, at every depth."""
    if isinstance(value, Mapping):
        return {
            key: _structure(inner)
            for key, inner in value.items()
            if key not in DROPPED and not str(key).startswith("_")
        }
    return [_structure(inner) for inner in value] if isinstance(value, list | tuple) else value


def _unknown_type(kind: object, where: str, values: Mapping[str, JSON]) -> str:
    if kind is None:
        return f'{where} does not say its type. Fix: add "model_type" (as "bert") to its config.json'
    near = nearest(str(kind), types(), n=3)
    own = " It comes with code of its own, which is never run." if values.get("auto_map") else ""
    said = f" Nearest types: {', '.join(near)}." if near else ""
    return (
        f"{where} is of type {shown(kind)}, which transformers {transformers().__version__} does not know.{own}"
        f"{said} Fix: choose a network of a type it knows, or give your own code (file:PATH.py:FACTORY)"
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """transformers without its log lines and bars; its settings come back afterwards."""
    logging = transformers().logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
