"""Weights from files, and putting them into a network with every key accounted for."""

import pickle
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from penjing.core import SourceError

State = Mapping[str, Tensor]
TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
NESTED = ("state_dict", "model_state_dict", "model_state", "model", "state_dict_ema")
SHOWN = 8


def read_weights(path: str | Path) -> State:
    """The tensors of a `.safetensors` or PyTorch file, names as in it, 'module.' of DataParallel off.

    PyTorch files are read with `weights_only=True`; one that would run code is refused. Raises SourceError.
    """
    path = Path(path)
    if not path.is_file():
        raise SourceError(
            f"Weights {str(path)!r} is not a file. Fix: give an existing .safetensors or .pt file"
        )
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in TORCH_SUFFIXES:
        return _unwrap(_read_torch(path), path)
    raise SourceError(
        f"Weights {str(path)!r} has an unknown suffix {path.suffix!r}. Fix: use .safetensors or "
        f"{', '.join(TORCH_SUFFIXES)}"
    )


def fill(model: nn.Module, state: State, *, skip: Sequence[str] = (), where: str) -> None:
    """Load `state` into `model`, all of it except the modules `skip`, which keep their fresh values.

    Raises SourceError that names the keys: missing in the file, unexpected in the file, or of another shape.
    `num_batches_tracked`, which old files lack, may be missing.
    """
    prefixes = tuple(f"{path}." for path in skip)
    own = model.state_dict()
    body = OrderedDict((key, value) for key, value in state.items() if not key.startswith(prefixes))
    if hasattr(state, "_metadata"):  # version numbers by which PyTorch converts old layouts
        body._metadata = state._metadata  # pyright: ignore[reportAttributeAccessIssue]
    shapes = [
        f"{key} is {tuple(value.shape)} in the file, {tuple(own[key].shape)} in the network"
        for key, value in body.items()
        if key in own and own[key].shape != value.shape
    ]
    if shapes:
        raise SourceError(_misfit(where, [("wrong shape", shapes)]))
    try:
        missing, unexpected = model.load_state_dict(body, strict=False)
    except RuntimeError as error:
        raise SourceError(f"Weights of {where} do not fit the network: {error}") from error
    missing = [
        key for key in missing if not key.startswith(prefixes) and not key.endswith("num_batches_tracked")
    ]
    if missing or unexpected:
        raise SourceError(
            _misfit(where, [("missing in the file", missing), ("unexpected in the file", unexpected)])
        )


def _misfit(where: str, problems: Sequence[tuple[str, Sequence[str]]]) -> str:
    lines = [f"Weights of {where} do not fit the network."]
    for title, keys in problems:
        if keys:
            more = f", and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
            lines.append(f"  {title} ({len(keys)}): " + ", ".join(keys[:SHOWN]) + more)
    lines.append(
        "Fix: choose the network these weights were made for; where only the head differs, give num_classes "
        "for a new head, or args={'num_classes': N} to keep the head of the file"
    )
    return "\n".join(lines)


def _read_safetensors(path: Path) -> State:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise SourceError(
            f"Weights {str(path)!r} cannot be read: {error}. Fix: the file is torn or not safetensors; fetch "
            "it again"
        ) from error


def _read_torch(path: Path) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", UserWarning
            )  # an unusual pickle protocol, which the reader then judges
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise SourceError(
            f"Weights {str(path)!r} are refused: the file holds more than tensors and would run code when "
            "opened, "
            f"or is torn ({str(error).splitlines()[0]}). Fix: ask its author for a .safetensors file, or "
            "save "
            "`model.state_dict()` alone"
        ) from error
    except (
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        AttributeError,
        TypeError,
        zipfile.BadZipFile,
    ) as error:
        raise SourceError(
            f"Weights {str(path)!r} cannot be read: {error}. Fix: the file is torn or not PyTorch's; fetch "
            "it again"
        ) from error


def _unwrap(content: object, path: Path) -> State:
    """The state dict inside a checkpoint: itself, or under one of the usual names."""
    for name in NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if (
        not isinstance(content, Mapping)
        or not content
        or not all(isinstance(v, Tensor) for v in content.values())
    ):
        raise SourceError(
            f"Weights {str(path)!r} hold no state dict (a mapping of names to tensors, alone or under one of "
            f"{', '.join(NESTED)}). Fix: save `model.state_dict()`"
        )
    if all(key.startswith("module.") for key in content):
        return {key.removeprefix("module."): value for key, value in content.items()}
    return content
