"""timm: at least one variant of every module in timm/models, at the smallest picture it takes."""

from typing import Any

import timm
import torch
from torch import nn

# name -> (side of the picture, arguments of the builder)
_NETWORKS: dict[str, tuple[int, dict[str, Any]]] = {
    "inception_v3": (128, {}),
    "inception_v4": (96, {}),
    "inception_resnet_v2": (96, {}),
    "tf_efficientnet_lite0": (64, {}),
    "vit_tiny_patch16_224": (224, {}),
    "mixer_s16_224": (224, {}),
    "levit_128s": (224, {}),
    "poolformer_s12": (64, {}),
    "nfnet_l0": (96, {}),
    "inception_next_tiny": (96, {}),
    "resnetv2_50x1_bit": (96, {}),
    "focalnet_tiny_srf": (64, {}),
}
NAMES = tuple(_NETWORKS)


def build(name: str) -> tuple[nn.Module, Any]:
    side, options = _NETWORKS[name]
    return timm.create_model(name, pretrained=False, **options).eval(), torch.randn(1, 3, side, side)
