"""Networks made by a user's own function or a repository's: both run that code, so both must be trusted."""

import hashlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from penjing.core import Pictures, Reads, SourceError, nearest, reachable
from penjing.sources._registry import JSON, channel_values, unreachable
from penjing.sources._spec import SourceSpec

GITHUB = "https://github.com"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def make(spec: SourceSpec, args: Mapping[str, JSON]) -> nn.Module:
    """Call the factory that `spec` names; SourceError when it is missing or returns no network."""
    model = _from_file(spec, args) if spec.kind == "file" else _from_hub(spec, args)
    if not isinstance(model, nn.Module):
        raise SourceError(
            f"{spec} returned {type(model).__name__}, not a torch.nn.Module. Fix: return the network"
        )
    return model


def reads(model: nn.Module) -> Reads:
    """The network's own attribute `reads` (Pictures, Texts or Sounds of penjing.core); else pictures, by its attributes
    `input_size`, `mean` and `std` where it has them, otherwise as ImageNet's.
    """
    own = getattr(model, "reads", None)
    if isinstance(own, Reads):
        return own
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    size: Any = getattr(model, "input_size", None) or (first.in_channels if first else 3, 224, 224)
    channels, height, width = (int(n) for n in size)
    mean, std = getattr(model, "mean", None), getattr(model, "std", None)
    mean, std = (MEAN if mean is None else mean), (STD if std is None else std)
    return Pictures(
        size=(channels, height, width), mean=channel_values(mean, channels), std=channel_values(std, channels)
    )


def _from_file(spec: SourceSpec, args: Mapping[str, JSON]) -> Any:
    module = _import(Path(spec.name))
    factory = getattr(module, spec.factory or "", None)
    if not callable(factory):
        names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        near = nearest(spec.factory or "", names, n=3) or names[:5]
        raise SourceError(
            f"{spec.name} has no function {spec.factory!r}. It has: {', '.join(near) or 'none'}"
        )
    try:
        return factory(**args)
    except Exception as error:
        raise SourceError(
            f"{spec} failed with {type(error).__name__}: {error}. Fix: mend it, or change args"
        ) from error


def _import(path: Path) -> ModuleType:
    if not path.is_file():
        raise SourceError(f"Source file {str(path)!r} does not exist. Fix: give the path of a Python file")
    name = f"_penjing_source_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise SourceError(
            f"Source file {str(path)!r} is not a Python file. Fix: give a path that ends in .py"
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise SourceError(f"Source file {str(path)!r} failed with {type(error).__name__}: {error}") from error
    return module


def _from_hub(spec: SourceSpec, args: Mapping[str, JSON]) -> Any:
    repository = spec.name.partition(":")[0].replace("/", "_")
    cached = any(Path(torch.hub.get_dir()).glob(f"{repository}_*"))
    why = None if cached else reachable(GITHUB)
    if why is not None:
        raise unreachable(str(spec), GITHUB, why)
    load: Any = torch.hub.load
    try:
        return load(
            spec.name, spec.factory or "", trust_repo=True, skip_validation=True, verbose=False, **args
        )
    except Exception as error:
        raise SourceError(
            f"{spec} failed with {type(error).__name__}: {error}. Fix: check repository and name"
        ) from error
