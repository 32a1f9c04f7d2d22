"""Networks of many libraries with small example inputs, by name: `build("timm:levit_128s")`.

One module per library, imported only when one of its networks is asked for. Each has `NAMES` and `build(name)`,
which gives the network in eval mode with random weights from torch's generator, and example inputs.
"""

import importlib
from types import ModuleType
from typing import Any

LIBRARIES = {
    "torchvision": "torchvision_nets",
    "timm": "timm_nets",
    "transformers": "transformers_nets",
    "smp": "smp_nets",
    "vit_pytorch": "vit_pytorch_nets",
    "x_transformers": "x_transformers_nets",
    "own": "own_nets",
}

PACKAGES = {"smp": "segmentation_models_pytorch", "own": "torch"}  # where a prefix is not the package's name


def library(prefix: str) -> ModuleType:
    if prefix not in LIBRARIES:
        raise ValueError(f"library {prefix!r} is unknown; known: {', '.join(LIBRARIES)}")
    return importlib.import_module(f"{__name__}.{LIBRARIES[prefix]}")


def build(spec: str) -> tuple[Any, Any]:
    """The network that `prefix:name` stands for, seeded, and the example inputs it runs on."""
    import torch

    prefix, _, name = spec.partition(":")
    nets = library(prefix)
    if name not in nets.NAMES:
        raise ValueError(f"{name!r} is no network of {prefix}; known: {', '.join(nets.NAMES)}")
    torch.manual_seed(0)
    model, example = nets.build(name)
    return model.eval(), example
