"""Architectures of vit_pytorch in small sizes, each with its input shape."""

from importlib import import_module
from typing import Any

import torch
from torch import nn

_VIT: dict[str, Any] = {
    "image_size": 32,
    "patch_size": 8,
    "num_classes": 10,
    "dim": 48,
    "depth": 2,
    "heads": 4,
    "mlp_dim": 96,
}
_HEADED = {**_VIT, "dim_head": 12}
_IMAGE = (2, 3, 32, 32)
_VIDEO = {**_HEADED, "frames": 4, "frame_patch_size": 2}
_VIDEO["image_patch_size"] = _VIDEO.pop("patch_size")
_ND = {k: v for k, v in _HEADED.items() if k != "image_size"} | {"ndim": 2, "input_shape": 32}
_VIVIT = {k: v for k, v in _VIDEO.items() if k != "depth"} | {"spatial_depth": 1, "temporal_depth": 1}
_CLIP = (2, 3, 4, 32, 32)
_STAGES = {
    "num_classes": 10,
    **{f"s{i}_emb_dim": 16 * i for i in (1, 2, 3)},
    **{f"s{i}_heads": i for i in (1, 2, 3)},
    **{f"s{i}_depth": 1 for i in (1, 2, 3)},
}
_CCT = {
    "img_size": 32,
    "embedding_dim": 48,
    "n_conv_layers": 1,
    "kernel_size": 3,
    "stride": 2,
    "padding": 1,
    "pooling_kernel_size": 3,
    "pooling_stride": 2,
    "pooling_padding": 1,
    "num_layers": 2,
    "num_heads": 4,
    "mlp_ratio": 2.0,
    "num_classes": 10,
}

_NETWORKS: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "vit.ViT": ("vit", _HEADED, _IMAGE),
    "vit.ViT.mean": ("vit", {**_HEADED, "pool": "mean"}, _IMAGE),
    "simple_vit.SimpleViT": ("simple_vit", _HEADED, _IMAGE),
    "simple_vit_1d.SimpleViT": (
        "simple_vit_1d",
        {**{k: v for k, v in _HEADED.items() if k != "image_size"}, "seq_len": 32},
        (2, 3, 32),
    ),
    "vit_1d.ViT": (
        "vit_1d",
        {**{k: v for k, v in _HEADED.items() if k != "image_size"}, "seq_len": 32},
        (2, 3, 32),
    ),
    "simple_vit_3d.SimpleViT": ("simple_vit_3d", _VIDEO, _CLIP),
    "vit_3d.ViT": ("vit_3d", _VIDEO, _CLIP),
    "simple_vit_with_fft.SimpleViT": (
        "simple_vit_with_fft",
        {**_HEADED, "freq_patch_size": 8},
        _IMAGE,
    ),
    "simple_vit_with_patch_dropout.SimpleViT": ("simple_vit_with_patch_dropout", _HEADED, _IMAGE),
    "simple_vit_with_qk_norm.SimpleViT": ("simple_vit_with_qk_norm", _HEADED, _IMAGE),
    "simple_vit_with_register_tokens.SimpleViT": ("simple_vit_with_register_tokens", _HEADED, _IMAGE),
    "simple_vit_with_value_residual.SimpleViT": ("simple_vit_with_value_residual", _HEADED, _IMAGE),
    "simple_vit_with_hyper_connections.SimpleViT": (
        "simple_vit_with_hyper_connections",
        {**_HEADED, "num_residual_streams": 2},
        _IMAGE,
    ),
    "simple_uvit.SimpleUViT": ("simple_uvit", _HEADED, _IMAGE),
    "simple_flash_attn_vit.SimpleViT": ("simple_flash_attn_vit", _HEADED, _IMAGE),
    "deepvit.DeepViT": ("deepvit", _HEADED, _IMAGE),
    "cait.CaiT": ("cait", {**_HEADED, "cls_depth": 1}, _IMAGE),
    "t2t.T2TViT": (
        "t2t",
        {k: v for k, v in _HEADED.items() if k != "patch_size"} | {"t2t_layers": ((7, 4), (3, 2))},
        _IMAGE,
    ),
    "cct.CCT": ("cct", _CCT, _IMAGE),
    "cct_3d.CCT": (
        "cct_3d",
        {**_CCT, "num_frames": 4, "frame_kernel_size": 3, "positional_embedding": "learnable"},
        _CLIP,
    ),
    "cross_vit.CrossViT": (
        "cross_vit",
        {
            "image_size": 32,
            "num_classes": 10,
            "sm_dim": 32,
            "lg_dim": 48,
            "sm_patch_size": 8,
            "lg_patch_size": 16,
            "sm_enc_depth": 1,
            "sm_enc_heads": 4,
            "sm_enc_mlp_dim": 64,
            "sm_enc_dim_head": 8,
            "lg_enc_depth": 1,
            "lg_enc_heads": 4,
            "lg_enc_mlp_dim": 96,
            "lg_enc_dim_head": 12,
            "cross_attn_depth": 1,
            "cross_attn_heads": 4,
            "cross_attn_dim_head": 8,
            "depth": 2,
        },
        _IMAGE,
    ),
    "pit.PiT": ("pit", {**_HEADED, "depth": (1, 1), "dim": 32}, _IMAGE),
    "levit.LeViT": (
        "levit",
        {
            "image_size": 64,
            "num_classes": 10,
            "stages": 2,
            "dim": (32, 48),
            "depth": 1,
            "heads": (2, 4),
            "mlp_mult": 2,
            "dim_key": 8,
            "dim_value": 16,
        },
        (2, 3, 64, 64),
    ),
    "cvt.CvT": ("cvt", _STAGES, (2, 3, 64, 64)),
    "twins_svt.TwinsSVT": (
        "twins_svt",
        {
            "num_classes": 10,
            **{f"s{i}_emb_dim": 16 * i for i in (1, 2, 3, 4)},
            **{f"s{i}_depth": 1 for i in (1, 2, 3, 4)},
            **{f"s{i}_local_patch_size": 2 for i in (1, 2, 3)},
            **{f"s{i}_global_k": 2 for i in (1, 2, 3)},
            "s4_local_patch_size": 2,
            "s4_global_k": 2,
        },
        (2, 3, 64, 64),
    ),
    "regionvit.RegionViT": (
        "regionvit",
        {"dim": (16, 24, 32, 48), "depth": (1, 1, 1, 1), "window_size": 2, "num_classes": 10},
        (2, 3, 64, 64),
    ),
    "crossformer.CrossFormer": (
        "crossformer",
        {
            "dim": (32, 32, 64, 64),
            "depth": (1, 1, 1, 1),
            "global_window_size": (4, 2, 2, 1),
            "local_window_size": 2,
            "num_classes": 10,
        },
        (2, 3, 64, 64),
    ),
    "scalable_vit.ScalableViT": (
        "scalable_vit",
        {
            "num_classes": 10,
            "dim": 16,
            "heads": (2, 2, 4, 4),
            "depth": (1, 1, 1, 1),
            "ssa_dim_key": (8, 8, 8, 8),
            "reduction_factor": (4, 2, 2, 1),
            "window_size": (8, 4, None, None),
        },
        (2, 3, 64, 64),
    ),
    "sep_vit.SepViT": (
        "sep_vit",
        {
            "num_classes": 10,
            "dim": 16,
            "dim_head": 8,
            "heads": (2, 4),
            "depth": (1, 1),
        },
        (2, 3, 56, 56),
    ),
    "max_vit.MaxViT": (
        "max_vit",
        {
            "num_classes": 10,
            "dim": 16,
            "dim_conv_stem": 16,
            "dim_head": 8,
            "depth": (1, 1),
            "window_size": 4,
        },
        (2, 3, 64, 64),
    ),
    "max_vit_with_registers.MaxViT": (
        "max_vit_with_registers",
        {
            "num_classes": 10,
            "dim": 16,
            "dim_conv_stem": 16,
            "dim_head": 8,
            "depth": (1, 1),
            "window_size": 4,
        },
        (2, 3, 64, 64),
    ),
    "nest.NesT": (
        "nest",
        {
            "image_size": 32,
            "patch_size": 4,
            "dim": 24,
            "heads": 3,
            "num_hierarchies": 2,
            "block_repeats": (1, 1),
            "num_classes": 10,
        },
        _IMAGE,
    ),
    "mobile_vit.MobileViT": (
        "mobile_vit",
        {
            "image_size": (64, 64),
            "dims": [24, 32, 40],
            "channels": [8, 12, 16, 16, 20, 20, 24, 24, 28, 28, 64],
            "num_classes": 10,
        },
        (2, 3, 64, 64),
    ),
    "xcit.XCiT": ("xcit", {**_HEADED, "cls_depth": 1}, _IMAGE),
    "vivit.ViViT": ("vivit", _VIVIT, _CLIP),
    "vivit.ViViT.factorized_self_attention": (
        "vivit",
        {**_VIVIT, "variant": "factorized_self_attention"},
        _CLIP,
    ),
    "rvt.RvT": ("rvt", _HEADED, _IMAGE),
    "parallel_vit.ViT": ("parallel_vit", _HEADED, _IMAGE),
    "vit_with_patch_dropout.ViT": ("vit_with_patch_dropout", _HEADED, _IMAGE),
    "vit_with_patch_merger.ViT": (
        "vit_with_patch_merger",
        {**_HEADED, "patch_merge_layer": 1, "patch_merge_num_tokens": 4},
        _IMAGE,
    ),
    "vit_for_small_dataset.ViT": ("vit_for_small_dataset", _HEADED, _IMAGE),
    "learnable_memory_vit.ViT": ("learnable_memory_vit", _HEADED, _IMAGE),
    "look_vit.LookViT": (
        "look_vit",
        {
            "image_size": 32,
            "patch_size": 8,
            "num_classes": 10,
            "dim": 48,
            "depth": 2,
            "heads": 4,
            "dim_head": 12,
            "highres_patch_size": 4,
            "cross_attn_heads": 4,
            "cross_attn_dim_head": 12,
            "patch_conv_kernel_size": 3,
        },
        _IMAGE,
    ),
    "normalized_vit.nViT": (
        "normalized_vit",
        _HEADED,
        _IMAGE,
    ),
    "jet_vit.JetViT": (
        "jet_vit",
        {**_HEADED, "window_size": 2, "attn_layers": ["LA", "WA"]},
        _IMAGE,
    ),
    "jumbo_vit.JumboViT": ("jumbo_vit", {**_HEADED, "jumbo_cls_k": 2}, _IMAGE),
    "vit_5.ViT": ("vit_5", _HEADED, _IMAGE),
    "vit_nd.ViTND": ("vit_nd", _ND, _IMAGE),
    "vit_nd_rotary.ViTND": ("vit_nd_rotary", _ND, _IMAGE),
    "vit_nd_pope.ViTND": ("vit_nd_pope", _ND, _IMAGE),
    "vit_with_decorr.ViT": ("vit_with_decorr", _HEADED, _IMAGE),
    "vit_with_keel_post_ln.ViT": ("vit_with_keel_post_ln", _HEADED, _IMAGE),
    "vit_detpool.ViTDetPool": ("vit_detpool", _HEADED, _IMAGE),
    "simple_vit_attn_residual.SimpleViTAttnResidual": ("simple_vit_attn_residual", _HEADED, _IMAGE),
    "simple_vit_orthog_residual_update.SimpleViT": (
        "simple_vit_orthog_residual_update",
        _HEADED,
        _IMAGE,
    ),
    "simple_vit_with_sparse_gating.SimpleViTWithSparseGating": (
        "simple_vit_with_sparse_gating",
        _HEADED,
        _IMAGE,
    ),
    "simple_vit_with_specialized_cls.SimpleViT": ("simple_vit_with_specialized_cls", _HEADED, _IMAGE),
    "simple_vit_with_relative_proj_pos_bias.SimpleViT": (
        "simple_vit_with_relative_proj_pos_bias",
        _HEADED,
        _IMAGE,
    ),
}

NAMES: tuple[str, ...] = tuple(_NETWORKS)


def build(name: str) -> tuple[nn.Module, torch.Tensor]:
    """`module.Class`, and a variant where there is one."""
    module, options, shape = _NETWORKS[name]
    kind = getattr(import_module(f"vit_pytorch.{module}"), name.split(".")[1])
    return kind(**options).eval(), torch.randn(shape)
