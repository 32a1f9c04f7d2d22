"""`nn.MultiheadAttention` with an inner width free of `embed_dim`.

PyTorch's module computes head sizes from `embed_dim`, so no head can go. This twin has the same parameters under the
same names and computes the same function from the shapes of its weights and from `num_heads`; `head_dim` keeps the
original attention scale when head dims go.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn

from penjing.structure._network._walk import Named, each_path

Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class FreeMultiheadAttention(nn.MultiheadAttention):
    """Drop-in twin of `nn.MultiheadAttention`; inputs, outputs and state dict are the same."""

    def forward(  # type: ignore[override]
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        batched = query.dim() == 3
        flip = batched and not self.batch_first
        inputs = [
            t.transpose(0, 1) if flip else t if batched else t.unsqueeze(0) for t in (query, key, value)
        ]
        q, k, v = self._project(*inputs)
        mask = self._mask(q, attn_mask, key_padding_mask)
        if self.bias_k is not None or self.add_zero_attn:
            k, v, mask = self._extend(k, v, mask)
        q, k, v = (t.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for t in (q, k, v))
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            out, weights = _attend(q, k, v, mask, dropout, self.head_dim**-0.5)
            weights = weights.mean(1) if average_attn_weights else weights
            weights = weights if batched else weights.squeeze(0)
        else:
            out = F.scaled_dot_product_attention(q, k, v, mask, dropout, scale=self.head_dim**-0.5)
        out = F.linear(out.transpose(1, 2).flatten(2), self.out_proj.weight, self.out_proj.bias)
        out = out.transpose(0, 1) if flip else out if batched else out.squeeze(0)
        return out, weights

    def _project(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> Tensors:
        bias = (None, None, None) if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        if self.in_proj_weight is not None:
            weights = self.in_proj_weight.chunk(3)
        else:
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        q, k, v = (F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, bias, strict=True))
        return q, k, v

    def _mask(
        self, q: torch.Tensor, attn_mask: torch.Tensor | None, padding: torch.Tensor | None
    ) -> torch.Tensor | None:
        """One additive mask that broadcasts to (batch, heads, queries, keys)."""
        found = None
        if attn_mask is not None:
            found = _additive(attn_mask, q.dtype)
            if found.dim() == 3:
                found = found.unflatten(0, (-1, self.num_heads))
        if padding is not None:
            blocked = _additive(padding if padding.dim() == 2 else padding.unsqueeze(0), q.dtype)[
                :, None, None, :
            ]
            found = blocked if found is None else found + blocked
        return found

    def _extend(
        self, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Learned and zero keys and values at the end of the sequence, open to every query."""
        if self.bias_k is not None and self.bias_v is not None:
            k = torch.cat([k, self.bias_k.expand(len(k), -1, -1)], 1)
            v = torch.cat([v, self.bias_v.expand(len(v), -1, -1)], 1)
            mask = None if mask is None else F.pad(mask, (0, 1))
        if self.add_zero_attn:
            k, v = (torch.cat([t, torch.zeros_like(t[:, :1])], 1) for t in (k, v))
            mask = None if mask is None else F.pad(mask, (0, 1))
        return k, v, mask


def _additive(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(mask, float("-inf"))


def _attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, dropout: float, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    scores = (q * scale) @ k.transpose(-2, -1)
    weights = (scores if mask is None else scores + mask).softmax(-1)
    weights = F.dropout(weights, dropout) if dropout else weights
    return weights @ v, weights


def free_attention(module: nn.Module) -> None:
    """Turn an `nn.MultiheadAttention` into its free twin, in place."""
    module.__class__ = FreeMultiheadAttention
    module._qkv_same_embed_dim = False  # type: ignore[assignment]  # keeps the encoder layer off its fused kernel


def keep_dense(model: nn.Module) -> None:
    """Encoders around a free twin pass no nested tensors, which only PyTorch's own module reads."""
    for _, module in each_path(model):
        if isinstance(module, nn.TransformerEncoder) and any(
            isinstance(m, FreeMultiheadAttention) for m in module.modules()
        ):
            module.use_nested_tensor = False


@contextmanager
def attention_freed(named: Named) -> Iterator[None]:
    """Every stock `nn.MultiheadAttention` runs as its free twin inside."""
    stock = [(m, m._qkv_same_embed_dim) for _, m in named if type(m) is nn.MultiheadAttention]
    for module, _ in stock:
        free_attention(module)
    try:
        yield
    finally:
        for module, same in stock:
            module.__class__ = nn.MultiheadAttention
            module._qkv_same_embed_dim = same


def is_stock_attention(module: nn.Module) -> bool:
    return type(module) is nn.MultiheadAttention


ATTENTION = "multihead_attention"


def replaceable_modules(model: nn.Module) -> dict[str, str]:
    """Module path -> kind of twin, for modules whose own code would fix a size."""
    return {path: ATTENTION for path, module in each_path(model) if is_stock_attention(module)}
