"""The artifact: structure.json and model.safetensors, plain files that reload anywhere; never a pickle."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from penjing.core import ArtifactError, PenjingError, SourceError
from penjing.core._plan import Plan
from penjing.export._card import model_card
from penjing.sources import build_source, parse_source
from penjing.structure import fingerprint
from penjing.surgery import apply, named_states

SCHEMA = 1
STRUCTURE, WEIGHTS, CARD, TOKENIZER = "structure.json", "model.safetensors", "README.md", "tokenizer"
_LARGEST_JSON = 256_000_000
_KINDS = {
    "source": str,
    "source_args": dict,
    "plan": dict,
    "aliases": dict,
    "channels_last": list,
    "frozen_parameters": list,
}


def save(
    path: str | os.PathLike[str],
    slim: nn.Module,
    plan: Plan,
    source: str,
    source_args: Mapping[str, Any] | None = None,
    task: str | None = None,
    labels: tuple[str, ...] | list[str] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    figures: Mapping[str, Any] | None = None,
) -> Path:
    """Write `slim` into folder `path`: how to build the original, the plan, the weights, and a model card.

    `source` and `source_args` rebuild the original ("timm:resnet18", {"num_classes": 10}); for a network that no
    registry can rebuild give "file:..." and pass `model=` to `load`. All buffers are stored, non-persistent ones too.
    Each file is written aside, synced and renamed; structure.json comes last and holds the checksum of the weights.
    `figures` (rows as in metrics.json) go into the card.
    """
    folder = Path(path)
    parse_source(source)
    folder.mkdir(parents=True, exist_ok=True)
    tensors, aliases, formats = _tensors(slim)
    _replace(folder / WEIGHTS, lambda aside: save_file(tensors, aside, metadata={"format": "pt"}))
    body = {
        "schema": SCHEMA,
        "source": source,
        "source_args": dict(source_args or {}),
        "plan": json.loads(plan.to_json()),
        "fingerprint": fingerprint(slim),
        "weights_sha256": _sha256(folder / WEIGHTS),
        "aliases": aliases,
        "channels_last": formats,
        "frozen_parameters": sorted(n for n, p in slim.named_parameters() if not p.requires_grad),
        "task": task,
        "labels": list(labels) if labels is not None else None,
        "preprocessing": dict(preprocessing) if preprocessing is not None else None,
    }
    text = _as_json(body)
    _replace(
        folder / CARD, lambda aside: Path(aside).write_text(model_card(body, slim, figures), encoding="utf-8")
    )
    _replace(folder / STRUCTURE, lambda aside: Path(aside).write_text(text, encoding="utf-8"))
    return folder


def write_card(path: str | os.PathLike[str], slim: nn.Module, figures: Mapping[str, Any] | None) -> None:
    """The model card of the artifact in folder `path` anew; `figures` as in `save`."""
    body = read_structure(path)
    card = model_card(body, slim, figures)
    _replace(Path(path) / CARD, lambda aside: Path(aside).write_text(card, encoding="utf-8"))


def _as_json(body: Mapping[str, Any]) -> str:
    try:
        return json.dumps(body, indent=1, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"source_args, labels and preprocessing must be plain JSON: {error}") from error


def _tensors(slim: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, str], list[str]]:
    """Tensors under their first name, the other names of tied ones, and which are channels-last."""
    first: dict[int, str] = {}
    tensors: dict[str, torch.Tensor] = {}
    aliases: dict[str, str] = {}
    formats: list[str] = []
    for name, tensor in named_states(slim):
        if tensor.is_meta:
            raise ArtifactError(f"{name!r} is on the meta device: load weights before saving")
        if id(tensor) in first:
            aliases[name] = first[id(tensor)]
            continue
        first[id(tensor)] = name
        data = tensor.detach().cpu()
        if (
            data.dim() == 4
            and not data.is_contiguous()
            and data.is_contiguous(memory_format=torch.channels_last)
        ):
            formats.append(name)
        tensors[name] = data.contiguous().clone()
    return tensors, aliases, formats


def _replace(target: Path, write: Any) -> None:
    aside = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        write(str(aside))
        with open(aside, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def read_structure(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The checked content of an artifact's structure.json. Raises `ArtifactError` naming the file at fault."""
    file = Path(path) / STRUCTURE
    if not file.is_file():
        raise ArtifactError(f"{Path(path)} holds no {STRUCTURE}: give a folder that penjing.save wrote")
    if file.stat().st_size > _LARGEST_JSON:
        raise ArtifactError(f"{file} has {file.stat().st_size} bytes, more than any artifact")
    try:
        body = json.loads(file.read_text(encoding="utf-8"))
        schema = body["schema"]
        missing = {"source", "source_args", "plan", "fingerprint", "weights_sha256", "aliases"} - body.keys()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArtifactError(f"{file} is torn or no artifact: {type(error).__name__} {error}") from error
    if schema != SCHEMA:
        raise ArtifactError(f"{file} has schema {schema!r}; this version reads {SCHEMA}: update penjing")
    if missing:
        raise ArtifactError(f"{file} lacks {sorted(missing)}")
    wrong = [name for name, kind in _KINDS.items() if not isinstance(body.get(name, kind()), kind)]
    if wrong:
        raise ArtifactError(
            f"{file} is altered: {', '.join(wrong)} hold something else than what was written"
        )
    return body


def load(path: str | os.PathLike[str], model: nn.Module | None = None) -> nn.Module:
    """The saved network in eval mode, bit for bit. No pickle is read and no code is taken from the artifact.

    The original is built from its registry name without weights, the plan is replayed, the weights are loaded
    strictly and the fingerprint is checked. `model` is the original network for sources that no registry can rebuild
    (its weights do not matter). Raises `ArtifactError` for a torn, altered or foreign artifact, naming the file.
    """
    body = read_structure(path)
    weights = Path(path) / WEIGHTS
    if not weights.is_file() or _sha256(weights) != body["weights_sha256"]:
        raise ArtifactError(
            f"{weights} is missing, torn or altered: its checksum is not the one in {STRUCTURE}"
        )
    try:
        tensors = load_file(weights)
    except (SafetensorError, ValueError, OSError) as error:
        raise ArtifactError(f"{weights} cannot be read: {error}") from error
    plan = Plan.from_json(json.dumps(body["plan"]))
    slim = apply(model if model is not None else _original(body), plan)
    _fill(slim, tensors, body, weights)
    if fingerprint(slim) != body["fingerprint"]:
        raise ArtifactError(f"{Path(path)}: the rebuilt network is not the saved one (its structure differs)")
    return slim.eval()


def _original(body: Mapping[str, Any]) -> nn.Module:
    try:
        spec = parse_source(str(body["source"]))
        if spec.runs_code:
            raise ArtifactError(
                f"this network comes from {body['source']!r}, code that an artifact may not run: "
                "pass the original network, penjing.load(path, model=my_model)"
            )
        original = build_source(str(body["source"]), body["source_args"], device="meta")
        if any(_is_plain_meta(v) for m in original.modules() for v in m.__dict__.values()):
            original = build_source(str(body["source"]), body["source_args"], device="cpu")
        return original
    except SourceError as error:
        raise ArtifactError(f"the original network cannot be rebuilt: {error}") from error
    except PenjingError:
        raise


def _is_plain_meta(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_meta


def _fill(slim: nn.Module, tensors: dict[str, torch.Tensor], body: Mapping[str, Any], file: Path) -> None:
    """Put the stored tensors in place of the network's own, strictly."""
    wanted = dict(named_states(slim))
    aliases: Mapping[str, str] = body["aliases"]
    stored = tensors.keys() | aliases.keys()
    if stored != wanted.keys():
        raise ArtifactError(
            f"{file} does not fit the network: {sorted(stored ^ wanted.keys())[:5]} are on one side only"
        )
    last = set(body.get("channels_last", ()))
    still = set(body.get("frozen_parameters", ()))
    made: dict[str, torch.Tensor] = {}
    for name, own in wanted.items():
        key = aliases.get(name, name)
        data = tensors.get(key)
        if data is None or data.shape != own.shape or data.dtype != own.dtype:
            raise ArtifactError(f"{file}: {name!r} is {_kind(data)}, the network needs {_kind(own)}")
        if key not in made:
            # out of the mapped file: its alignment decides which kernels run, and so the last bit of an output
            data = data.clone()
            data = data.contiguous(memory_format=torch.channels_last) if key in last else data
            made[key] = nn.Parameter(data, key not in still) if isinstance(own, nn.Parameter) else data
        path, _, leaf = name.rpartition(".")
        module = slim.get_submodule(path)
        held: dict[str, Any] = module._parameters if leaf in module._parameters else module._buffers
        held[leaf] = made[key]


def _kind(tensor: torch.Tensor | None) -> str:
    return "missing" if tensor is None else f"{tensor.dtype} of shape {tuple(tensor.shape)}"
