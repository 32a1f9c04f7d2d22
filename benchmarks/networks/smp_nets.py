"""Every decoder of segmentation_models_pytorch over a small encoder with random weights."""

from typing import Any

import torch
from torch import nn

_DECODERS: dict[str, dict[str, Any]] = {
    "Unet": {},
    "Unet.scse": {"decoder_attention_type": "scse"},
    "UnetPlusPlus": {},
    "MAnet": {},
    "Linknet": {},
    "FPN": {},
    "FPN.cat": {"decoder_merge_policy": "cat"},
    "PSPNet": {},
    "PAN": {},
    "DeepLabV3": {},
    "DeepLabV3Plus": {},
    "UPerNet": {},
    "Segformer": {},
    "Unet.mobilenet_v2": {"encoder_name": "mobilenet_v2"},
    "Unet.mit_b0": {"encoder_name": "mit_b0"},
    "Unet.efficientnet-b0": {"encoder_name": "efficientnet-b0"},
    "DPT": {
        "encoder_name": "tu-vit_tiny_patch16_224",
        "encoder_depth": 4,
        "decoder_intermediate_channels": (32, 48, 64, 64),
        "decoder_fusion_channels": 32,
        "dynamic_img_size": True,
    },
}
NAMES: tuple[str, ...] = tuple(_DECODERS)


def build(name: str) -> tuple[nn.Module, torch.Tensor]:
    """A decoder, a dot and a variant where there is one; 64 x 64 pixels where that is enough."""
    import segmentation_models_pytorch as smp

    options = {"encoder_name": "resnet18", "encoder_weights": None, "classes": 4, **_DECODERS[name]}
    model = getattr(smp, name.split(".")[0])(**options).eval()
    size = {"DPT": 224, "PAN": 128}.get(name, 64)
    return model, torch.randn(2, 3, size, size)
