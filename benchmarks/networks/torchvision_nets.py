"""torchvision: every classifier, and its segmentation, detection, optical flow and video networks."""

from typing import Any

import torch
import torchvision
from torch import nn

_SIZES = {  # the smallest square each of these takes, where it is not 64
    "alexnet": 96,
    "inception_v3": 299,  # its auxiliary head, run in training, needs the whole
    "maxvit_t": 224,
    "lraspp_mobilenet_v3_large": 96,
    **{f"vgg{n}{end}": 32 for n in (11, 13, 16, 19) for end in ("", "_bn")},
    **{name: 224 for name in torchvision.models.list_models() if name.startswith("vit_")},
    "vit_h_14": 224,
}
_CLIPS = {"s3d": (16, 224), "mvit_v1_b": (16, 224), "mvit_v2_s": (16, 224)}  # frames, side; else (8, 64)
_AUXILIARY = ("googlenet", "inception_v3")
_KINDS = {
    kind: tuple(torchvision.models.list_models(module=getattr(torchvision.models, kind)))
    for kind in ("segmentation", "detection", "optical_flow", "video")
}
CLASSIFIERS = tuple(torchvision.models.list_models(module=torchvision.models))
NAMES = (
    *CLASSIFIERS,
    *_KINDS["segmentation"],
    *_KINDS["detection"],
    *_KINDS["optical_flow"],
    *_KINDS["video"],
)


def build(name: str, **options: Any) -> tuple[nn.Module, Any]:
    if name in _AUXILIARY:
        options["init_weights"] = True
    if name in _KINDS["segmentation"] or name in _KINDS["detection"]:
        options["weights_backbone"] = None
    if name in _KINDS["detection"] and not name.startswith("ssd"):
        options |= {"min_size": 96, "max_size": 128}
    if "rcnn" in name:
        options |= {"rpn_pre_nms_top_n_test": 100, "rpn_post_nms_top_n_test": 30, "box_detections_per_img": 5}
    model = torchvision.models.get_model(name, weights=None, **options)
    return model.eval(), _example(name)


def _example(name: str) -> Any:
    if name in _KINDS["detection"]:
        return ([torch.rand(3, 96, 128)],)
    if name in _KINDS["optical_flow"]:
        return (torch.rand(1, 3, 128, 128), torch.rand(1, 3, 128, 128))
    if name in _KINDS["video"]:
        frames, side = _CLIPS.get(name, (8, 64))
        return torch.rand(1, 3, frames, side, side)
    side = _SIZES.get(name, 64)
    return torch.randn(1, 3, side, side)
