"""Classification networks of torchvision, by name: torchvision:resnet18."""

import os
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import torch
from torch import Tensor, nn

from penjing.core import Pictures, SourceError, reachable
from penjing.sources._registry import JSON, unknown, unreachable
from penjing.sources._require import require

AUXILIARY = ("inception_v3", "googlenet")
AUXILIARY_KEYS = ("AuxLogits.", "aux1.", "aux2.")
IMAGENET = Pictures(size=(3, 224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..+)$")


class Torchvision:
    """The Registry of torchvision's classification networks.

    `inception_v3` and `googlenet` keep their auxiliary heads unless `aux_logits=False` is asked. googlenet's
    file has values for them that its authors call not pretrained.
    """

    def check(self, name: str) -> None:
        models = require("torchvision.models")
        known = models.list_models(module=models)
        if name not in known:
            raise unknown("torchvision", name, known)

    def build(self, name: str, args: Mapping[str, JSON], *, initialize: bool) -> nn.Module:
        extra = {"init_weights": initialize} if name in AUXILIARY else {}
        return require("torchvision.models").get_model(name, weights=None, **{**extra, **args})

    def pretrained_args(self, name: str) -> Mapping[str, JSON]:
        return {"aux_logits": True, "transform_input": True} if name in AUXILIARY else {}

    def pretrained(
        self, name: str, args: Mapping[str, JSON], model: nn.Module
    ) -> tuple[Mapping[str, Tensor], str]:
        weights = _weights(name)
        if weights is None:
            raise SourceError(
                f"torchvision has no pretrained weights for {name}. Fix: give --weights FILE or none"
            )
        why = None if _cached(weights.url) else reachable(weights.url)
        if why is not None:
            raise unreachable(f"torchvision:{name}", weights.url, why)
        try:
            state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
        except Exception as error:
            raise unreachable(
                f"torchvision:{name}", weights.url, f"{type(error).__name__}: {error}"
            ) from error
        return _current_names(state, auxiliary=args.get("aux_logits", True)), "hub"

    def reads(self, name: str, args: Mapping[str, JSON], model: nn.Module) -> Pictures:
        weights = _weights(name)
        if weights is None:
            return IMAGENET
        preset = weights.transforms()
        side = int(args.get("image_size", preset.crop_size[0]))
        return Pictures(size=(3, side, side), mean=tuple(preset.mean), std=tuple(preset.std))

    def family(self, name: str) -> str:
        return require("torchvision.models").get_model_builder(name).__module__.rpartition(".")[2]

    def relatives(self, name: str) -> tuple[str, ...]:
        models = require("torchvision.models")
        known, own = models.list_models(module=models), self.family(name)
        return tuple(other for other in known if self.family(other) == own)

    def missing(self, name: str, ask: Callable[[str], str | None]) -> str:
        weights = _weights(name)
        if weights is None:
            return "none are published"
        return "" if _cached(weights.url) else ask(urljoin(weights.url, "/")) or ""


def _cached(url: str) -> bool:
    return Path(torch.hub.get_dir(), "checkpoints", os.path.basename(url)).is_file()


def _weights(name: str) -> Any:
    return getattr(require("torchvision.models").get_model_weights(name), "DEFAULT", None)


def _current_names(state: Any, *, auxiliary: bool) -> Mapping[str, Tensor]:
    """Today's names: no dots in densenet's layers; no auxiliary heads where the network has none."""
    renamed = OrderedDict(
        (OLD_DENSENET.sub(r"\1\2", key), value)
        for key, value in state.items()
        if auxiliary or not key.startswith(AUXILIARY_KEYS)
    )
    if hasattr(state, "_metadata"):
        renamed._metadata = state._metadata  # pyright: ignore[reportAttributeAccessIssue]
    return renamed
