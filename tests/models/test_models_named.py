"""Named networks at a small input: halved, proven in float64 (error at most 1e-9), and still networks.

vgg16_bn has 138 million parameters; its float64 proof belongs to `make zoo`. Here its convolutions carry a small head.
"""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

import penjing as pj

timm = pytest.importorskip("timm")
torchvision = pytest.importorskip("torchvision")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    name: str
    home: str = "torchvision"
    size: int = 64
    most: float = 0.4  # share of the parameters that may be left

    def build(self) -> nn.Module:
        torch.manual_seed(0)
        if self.home == "timm":
            return timm.create_model(self.name).eval()
        options = {"init_weights": False} if self.name in ("googlenet", "inception_v3", "vgg16_bn") else {}
        model = torchvision.models.get_model(self.name, weights=None, **options)
        if self.name == "vgg16_bn":
            model.avgpool, model.classifier = nn.AdaptiveAvgPool2d(1), nn.Linear(512, 10)
        return model.eval()


CASES = (
    Case(name="resnet18"), Case(name="resnet50"), Case(name="resnext50_32x4d"), Case(name="vgg16_bn"),
    Case(name="densenet121"), Case(name="inception_v3", size=128), Case(name="googlenet"), Case(name="mobilenet_v2"),
    Case(name="mobilenet_v3_small"), Case(name="shufflenet_v2_x1_0", most=0.55), Case(name="efficientnet_b0"),
    Case(name="regnet_y_400mf"), Case(name="squeezenet1_1"), Case(name="convnext_tiny"),
    Case(name="inception_v3", home="timm", size=128), Case(name="tf_efficientnet_lite0", home="timm"),
    Case(name="inception_v4", home="timm", size=96), Case(name="inception_resnet_v2", home="timm", size=96),
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.home}-{c.name}")
def test_half_of_a_named_network_is_proven(case: Case):
    model, x = case.build(), torch.randn(1, 3, case.size, case.size)
    slim, plan = pj.prune(model, x, ratio=0.5)
    assert plan.skipped == ()
    proof = pj.verify(model, slim, plan, x)
    assert proof.passed, proof.cause
    assert proof.max_error <= 1e-9
    count = lambda m: sum(p.numel() for p in m.parameters())  # noqa: E731
    assert count(slim) <= case.most * count(model)
    assert type(slim) is type(model)
    with torch.no_grad():
        out = slim(x)
    assert torch.isfinite(out).all()
