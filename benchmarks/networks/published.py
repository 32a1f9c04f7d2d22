"""The same networks at the sizes they were published with: `build("timm:levit_128s@published")`.

Classifiers of torchvision and timm get pictures of the size their weights were trained on; text and speech networks of
`transformers` get the defaults of their configuration class, where those stay under `MOST` parameters.
"""

from typing import Any

import torch
from torch import nn

MARK = "@published"
MOST = 160_000_000
_WITHOUT_DEFAULTS = (
    "esm",
    "nemotron",
    "dbrx",
    "wav2vec2_conformer",
    "wav2vec2_conformer_rotary",
    "audio_spectrogram_transformer",
)


def build(prefix: str, name: str) -> tuple[nn.Module, Any] | None:
    """The network and example inputs, or None where the list's own row is all there is."""
    makers = {"torchvision": _torchvision, "timm": _timm, "transformers": _transformers}
    return makers[prefix](name) if prefix in makers else None


def _torchvision(name: str) -> tuple[nn.Module, Any] | None:
    import torchvision

    from benchmarks.networks import torchvision_nets

    if name not in torchvision_nets.CLASSIFIERS:
        return None
    side = torchvision.models.get_model_weights(name).DEFAULT.transforms.keywords["crop_size"]
    insists = {"image_size": side} if name.startswith("vit_") else {}
    return torchvision_nets.build(name, **insists)[0], torch.randn(1, 3, side, side)


def _timm(name: str) -> tuple[nn.Module, Any] | None:
    from benchmarks.networks import timm_nets

    model, _ = timm_nets.build(name)
    shape = (1, *model.default_cfg["input_size"])  # type: ignore[index]
    fixed = getattr(getattr(model, "patch_embed", None), "img_size", None)
    return None if fixed is not None and tuple(fixed) != shape[2:] else (model, torch.randn(shape))


def _transformers(name: str) -> tuple[nn.Module, Any] | None:
    """Pictures and other inputs of a size that the configuration names stay with the list's row."""
    import transformers

    from benchmarks.networks import transformers_nets

    if name in _WITHOUT_DEFAULTS:
        return None  # their configuration class alone builds no network, or none for the row's input
    transformers.logging.set_verbosity_error()
    row = transformers_nets.ROWS[name]
    example = row.feed()
    if not example.keys() <= {"input_ids", "attention_mask", "decoder_input_ids", "input_values"}:
        return None
    head = getattr(transformers, row.head)
    config = head.config_class()
    if row.attention is not None:
        config._attn_implementation = row.attention
    padding = row.config.get("pad_token_id")  # classifiers of several texts insist on one
    if getattr(config, "pad_token_id", None) is None and padding is not None and "Classification" in row.head:
        config.pad_token_id = padding
    with torch.device("meta"):
        if sum(p.numel() for p in head(config).parameters()) > MOST:
            return None
    return head(config).eval(), example
