"""The folder of a network of transformers: the user's own, or the hub's, fetched into its cache."""

import os
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from penjing.core import SourceError, cut, hub_address, reachable
from penjing.core._words import shown
from penjing.sources._hf_config import read_json
from penjing.sources._registry import unreachable
from penjing.sources._require import require
from penjing.sources._weights import read_weights

CONFIG = "config.json"
WHOLE = ("model.safetensors", "pytorch_model.bin")
SHARDED = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
ADAPTER = "adapter_config.json"
SMALL = ("*.json", "*.txt", "*.model", "*.tiktoken", "1_Pooling/*.json")


def folder_of(name: str, *, weights: bool, also: str = "") -> Path:
    """The folder that `name`, a path or OWNER/NAME[@REVISION] on the hub, stands for.

    Hub files come from the cache where an earlier run left them. `weights` tells whether they are needed. `also` is
    what else the user may have meant.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / CONFIG).is_file():
            raise SourceError(f"{path} holds no {CONFIG}: it is no network of transformers. {_fix(path)}")
        return path
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or (os.sep != "/" and os.sep in name):
        raise SourceError(f"{name!r} is no folder. Fix: give the folder that holds {CONFIG}, or OWNER/NAME")
    return _cached(name, weights) or _fetched(name, weights, also)


def absent(name: str, ask: Callable[[str], str | None], *, weights: bool) -> str:
    """Why OWNER/NAME cannot be had: what `ask` says of the hub, "" where it lies here or the hub answers."""
    return "" if is_folder(name) or _cached(name, weights) else ask(hub_address()) or ""


def is_folder(name: str) -> bool:
    return Path(name).expanduser().is_dir()


def read_state(folder: Path, name: str) -> tuple[Mapping[str, Tensor], str]:
    """The tensors of the weights in `folder`, in one file or several, and a remark on their type or ""."""
    if (folder / ADAPTER).is_file():
        raise SourceError(
            f"{name} holds an adapter, which would be left out. Fix: merge it into its network and save that "
            f"(model.merge_and_unload()), or take {ADAPTER} away"
        )
    for file in (place for pair in zip(WHOLE, SHARDED, strict=True) for place in pair):
        if (folder / file).is_file():
            state = _sharded(folder / file) if file in SHARDED else read_weights(folder / file)
            return _without_wrapper(state), _types(state)
    others = sorted(p.name for p in folder.iterdir() if p.suffix in (".h5", ".msgpack", ".gguf", ".ot"))
    said = f" It holds {', '.join(others)}, which cannot be read." if others else ""
    raise SourceError(
        f"{name} holds no weights ({', '.join(WHOLE)}, or their shards).{said} "
        "Fix: save it as safetensors (model.save_pretrained), or start without weights (--weights none)"
    )


def _without_wrapper(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Names without the 'module.' that training on several devices puts before all of them."""
    if all(key.startswith("module.") for key in state):
        return {key.removeprefix("module."): value for key, value in state.items()}
    return state


def _sharded(index: Path) -> Mapping[str, Tensor]:
    """All tensors that an index names, from files beside it. A tensor that its file lacks is a SourceError."""
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(v, str) for v in places.values()):
        raise SourceError(f"{index} names no files of weights. Fix: fetch it again")
    state: dict[str, Tensor] = {}
    for file in sorted(set(places.values())):
        if Path(file).name != file:
            raise SourceError(
                f"{index} names {shown(file)}, which is not a file beside it. Fix: fetch it again"
            )
        state.update(read_weights(index.parent / file))
    missing = sorted(set(places) - set(state))
    if missing:
        raise SourceError(f"{index.parent}: its shards lack {', '.join(missing[:8])}. Fix: fetch them again")
    return state


def _types(state: Mapping[str, Tensor]) -> str:
    """What is said of tensors that become float32."""
    kinds = Counter(t.dtype for t in state.values() if t.is_floating_point() and t.dtype != torch.float32)
    return f"converted from {str(kinds.most_common(1)[0][0]).removeprefix('torch.')}" if kinds else ""


def _fix(path: Path) -> str:
    if (path / "structure.json").is_file():
        return f"Fix: penjing saved it, so name it without hf: ({path})"
    near = [inner.parent.name for inner in sorted(path.glob(f"*/{CONFIG}"))[:3]]
    return (
        f"Fix: name one of its folders: {', '.join(near)}" if near else f"Fix: give the folder with {CONFIG}"
    )


def _cached(name: str, weights: bool) -> Path | None:
    """The snapshot that lies in the hub's cache with everything needed; None where something is missing."""
    repository, _, revision = name.partition("@")
    look_up = require("huggingface_hub", "text").try_to_load_from_cache
    try:
        found = look_up(repository, CONFIG, revision=revision or None)
    except ValueError as error:
        raise SourceError(
            f"hf:{cut(name)} is no name on the hub: {error}. Fix: OWNER/NAME, or a folder"
        ) from error
    if not isinstance(found, str):
        return None
    folder = Path(found).parent
    return folder if not weights or _has_weights(folder) else None


def _has_weights(folder: Path) -> bool:
    if any((folder / file).is_file() for file in WHOLE):
        return True
    indices = [folder / file for file in SHARDED if (folder / file).is_file()]
    places: Any = read_json(indices[0]).get("weight_map") if indices else None
    return isinstance(places, dict) and all((folder / str(file)).is_file() for file in set(places.values()))


def _fetched(name: str, weights: bool, also: str) -> Path:
    """The snapshot fetched from the hub: small files first, then weights, safetensors where there are any."""
    hub: Any = require("huggingface_hub", "text")
    repository, _, revision = name.partition("@")
    why = reachable(hub_address())
    if why is not None:
        raise _out_of_reach(name, why, weights, also)
    try:
        where = hub.snapshot_download(repository, revision=revision or None, allow_patterns=SMALL)
        folder = Path(where)
        if not (folder / CONFIG).is_file():
            raise SourceError(
                f"hf:{name} has no {CONFIG}: it is no network of transformers. Fix: choose another"
            )
        if weights and not _has_weights(folder):
            files = hub.HfApi().list_repo_files(repository, revision=revision or None)
            suffix = ".safetensors" if any(f in files for f in (WHOLE[0], SHARDED[0])) else ".bin"
            kind = "model*" if suffix == ".safetensors" else "pytorch_model*"
            hub.snapshot_download(repository, revision=revision or None, allow_patterns=[kind + suffix])
    except SourceError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {cut(str(error).splitlines()[0] if str(error) else '', 200)}"
        raise _out_of_reach(name, reason, weights, also) from error
    return folder


def _out_of_reach(name: str, why: str, weights: bool, also: str) -> SourceError:
    if weights:
        return unreachable(f"hf:{cut(name)}", hub_address(), why, also)
    return SourceError(
        f"hf:{cut(name)} is no folder here, and its configuration cannot be fetched from {hub_address()}: {why}.{also} "
        "Fix: give a folder (hf:FOLDER) or a type (hf:bert), or go online"
    )
