"""Configurations of x_transformers: decoders, encoders, a vision wrapper, an encoder-decoder."""

from typing import Any

import torch
from torch import nn

_SMALL: dict[str, Any] = {"dim": 64, "depth": 2, "heads": 4, "attn_dim_head": 16}

_LANGUAGE: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "decoder": ("Decoder", {}, {}),
    "decoder.rotary": ("Decoder", {"rotary_pos_emb": True}, {}),
    "decoder.rotary_rmsnorm_swiglu": (
        "Decoder",
        {"rotary_pos_emb": True, "use_rmsnorm": True, "ff_glu": True, "ff_swish": True, "ff_no_bias": True},
        {},
    ),
    "decoder.alibi": ("Decoder", {"alibi_pos_bias": True, "alibi_num_heads": 4}, {}),
    "decoder.rel_pos_bias": ("Decoder", {"rel_pos_bias": True}, {}),
    "decoder.dynamic_pos_bias": ("Decoder", {"dynamic_pos_bias": True}, {}),
    "decoder.xpos": ("Decoder", {"rotary_xpos": True}, {}),
    "decoder.one_kv_head": ("Decoder", {"attn_one_kv_head": True}, {}),
    "decoder.kv_heads": ("Decoder", {"attn_kv_heads": 2, "rotary_pos_emb": True}, {}),
    "decoder.qk_norm": ("Decoder", {"attn_qk_norm": True, "attn_qk_norm_dim_scale": True}, {}),
    "decoder.memory_tokens": ("Decoder", {}, {"num_memory_tokens": 4}),
    "decoder.flash": ("Decoder", {"attn_flash": True}, {}),
    "decoder.gate_values": ("Decoder", {"attn_gate_values": True}, {}),
    "decoder.head_scale": ("Decoder", {"attn_head_scale": True}, {}),
    "decoder.tied": ("Decoder", {}, {"tie_embedding": True}),
    "decoder.emb_dim": ("Decoder", {}, {"emb_dim": 32}),
    "decoder.shift_tokens": ("Decoder", {"shift_tokens": 1}, {}),
    "decoder.value_residual": ("Decoder", {"add_value_residual": True}, {}),
    "decoder.hyper_connections": ("Decoder", {"num_residual_streams": 2}, {}),
    "decoder.unet_skips": ("Decoder", {"unet_skips": True}, {}),
    "encoder": ("Encoder", {}, {}),
    "encoder.geglu": ("Encoder", {"ff_glu": True}, {}),
    "encoder.sandwich": ("Encoder", {"sandwich_coef": 1}, {}),
    "encoder.sandwich_norm": ("Encoder", {"sandwich_norm": True}, {}),
    "encoder.macaron": ("Encoder", {"macaron": True}, {}),
    "encoder.post_norm": ("Encoder", {"pre_norm": False}, {}),
    "encoder.scalenorm": ("Encoder", {"use_scalenorm": True}, {}),
    "encoder.simple_rmsnorm": ("Encoder", {"use_simple_rmsnorm": True}, {}),
    "encoder.dynamic_tanh": ("Encoder", {"use_dynamic_tanh": True}, {}),
    "encoder.gate_residual": ("Encoder", {"gate_residual": True}, {}),
    "encoder.talking_heads": (
        "Encoder",
        {"attn_pre_talking_heads": True, "attn_post_talking_heads": True},
        {},
    ),
    "encoder.mem_kv": ("Encoder", {"attn_num_mem_kv": 3}, {}),
    "encoder.residual_attn": ("Encoder", {"residual_attn": True}, {}),
    "encoder.layerscale": ("Encoder", {"use_layerscale": True}, {}),
    "encoder.ff_mult_post_act_ln": ("Encoder", {"ff_post_act_ln": True, "ff_relu_squared": True}, {}),
    "encoder.cls_token": ("Encoder", {}, {"use_cls_token": True}),
    "encoder.average_pool": ("Encoder", {}, {"average_pool_embed": True}),
}
NAMES: tuple[str, ...] = (
    *_LANGUAGE,
    "cross_attender",
    "continuous",
    "vision",
    "vision.register_tokens",
    "XTransformer",
    "XTransformer.tied",
)


def build(name: str) -> tuple[nn.Module, Any]:
    """Sixteen tokens of a vocabulary of 100, or what the wrapper takes."""
    import x_transformers as xt

    tokens = torch.randint(1, 100, (2, 16), generator=torch.Generator().manual_seed(1))
    if name in _LANGUAGE:
        kind, layers, options = _LANGUAGE[name]
        stack = getattr(xt, kind)(**_SMALL, **layers)
        wrapped = xt.TransformerWrapper(num_tokens=100, max_seq_len=32, attn_layers=stack, **options)
        return wrapped.eval(), tokens
    if name == "cross_attender":
        model = xt.CrossAttender(**_SMALL)
        return model.eval(), {"x": torch.randn(2, 16, 64), "context": torch.randn(2, 8, 64)}
    if name == "continuous":
        model = xt.ContinuousTransformerWrapper(
            dim_in=24, dim_out=12, max_seq_len=32, attn_layers=xt.Encoder(**_SMALL)
        )
        return model.eval(), torch.randn(2, 16, 24)
    if name.startswith("vision"):
        model = xt.ViTransformerWrapper(
            image_size=32,
            patch_size=8,
            num_classes=10,
            attn_layers=xt.Encoder(**_SMALL),
            num_register_tokens=4 if name == "vision.register_tokens" else 0,
        )
        return model.eval(), torch.randn(2, 3, 32, 32)
    sizes = {"depth": 2, "heads": 4, "num_tokens": 100, "max_seq_len": 32, "attn_dim_head": 16}
    both = {f"{side}_{k}": v for side in ("enc", "dec") for k, v in sizes.items()}
    model = xt.XTransformer(dim=64, tie_token_emb=name == "XTransformer.tied", **both)
    return model.eval(), (tokens, tokens.flip(0))
