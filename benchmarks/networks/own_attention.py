"""Hand-written attention, token mixing and memories."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from einops import einsum, rearrange, reduce, repeat
from einops.layers.torch import EinMix, Rearrange, Reduce
from torch import nn


class Conv1D(nn.Module):
    """A linear layer with its weight transposed, as GPT-2 keeps it."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.width = b
        self.weight, self.bias = nn.Parameter(torch.randn(a, b) / a**0.5), nn.Parameter(torch.zeros(b))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(*x.shape[:-1], self.width)


class TransposedGPT(nn.Module):
    """Causal attention with a fused, transposed projection split by the stream's width."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.width, self.heads = width, heads
        self.table, self.places = nn.Embedding(60, width), nn.Embedding(16, width)
        self.norm, self.qkv, self.out = nn.LayerNorm(width), Conv1D(width, 3 * width), Conv1D(width, width)
        self.norm2, self.up, self.down = nn.LayerNorm(width), Conv1D(width, 64), Conv1D(64, width)
        self.head = nn.Linear(width, 60, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.table(ids) + self.places(torch.arange(ids.shape[1], device=ids.device))
        q, k, v = self.qkv(self.norm(x)).split(self.width, dim=2)
        q, k, v = (t.view(*t.shape[:2], self.heads, -1).transpose(1, 2) for t in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(*x.shape[:2], -1))
        return self.head(x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh")))


class GroupedQueries(nn.Module):
    """Two query heads per key and value head, rotary positions, soft-capped scores."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.shared, self.size = 4, 2, 8
        self.q, self.k, self.v = nn.Linear(24, 32), nn.Linear(24, 16), nn.Linear(24, 16)
        self.out, self.head = nn.Linear(32, 24), nn.Linear(24, 5)
        self.register_buffer("frequencies", 1 / 100 ** (torch.arange(0, 8, 2) / 8), persistent=False)

    def rotate(self, x: torch.Tensor) -> torch.Tensor:
        angles = torch.arange(x.shape[2], device=x.device)[:, None].float() * self.frequencies
        angles = torch.cat([angles, angles], -1)
        left, right = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
        return x * angles.cos() + torch.cat([-right, left], -1) * angles.sin()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, _ = x.shape
        q = self.rotate(self.q(x).view(b, n, self.heads, self.size).transpose(1, 2))
        k = self.rotate(self.k(x).view(b, n, self.shared, self.size).transpose(1, 2))
        v = self.v(x).view(b, n, self.shared, self.size).transpose(1, 2)
        k, v = (t.repeat_interleave(self.heads // self.shared, dim=1) for t in (k, v))
        scores = 5 * torch.tanh(q @ k.transpose(2, 3) * self.size**-0.5 / 5)
        y = scores.softmax(-1) @ v
        return self.head(x + self.out(y.transpose(1, 2).reshape(b, n, -1)))


class TwoStreams(nn.Module):
    """Two token streams of different widths; each class token attends over the other stream."""

    def __init__(self) -> None:
        super().__init__()
        self.small, self.large = nn.Linear(12, 16), nn.Linear(12, 32)
        self.to_large, self.to_small = nn.Linear(16, 32), nn.Linear(32, 16)
        self.cross_large = nn.MultiheadAttention(32, 4, batch_first=True)
        self.cross_small = nn.MultiheadAttention(16, 2, batch_first=True)
        self.back_small, self.back_large = nn.Linear(32, 16), nn.Linear(16, 32)
        self.head_small, self.head_large = nn.Linear(16, 5), nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        s, g = self.small(x), self.large(x[:, ::2])
        s_class, s_rest, g_class, g_rest = s[:, :1], s[:, 1:], g[:, :1], g[:, 1:]
        asked = self.to_large(s_class)
        y = asked + self.cross_large(asked, torch.cat([asked, g_rest], 1), torch.cat([asked, g_rest], 1))[0]
        s_class = s_class + self.back_small(y)
        asked = self.to_small(g_class)
        y = asked + self.cross_small(asked, torch.cat([asked, s_rest], 1), torch.cat([asked, s_rest], 1))[0]
        g_class = g_class + self.back_large(y)
        return self.head_small(s_class[:, 0]) + self.head_large(g_class[:, 0])


class StockAttention(nn.Module):
    """`nn.MultiheadAttention` with keys and values of other widths."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.width = nn.Linear(10, 32)
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True, **options)
        self.head = nn.Linear(32, 5)

    def forward(self, x: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y, weights = self.attention(self.width(x), k, v)
        return self.head(y), weights


class EncoderDecoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(40, 32), nn.Embedding(40, 32)
        self.body = nn.Transformer(32, 4, 1, 1, 64, batch_first=True)
        self.head = nn.Linear(32, 40)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        return self.head(self.body(self.source(source), self.target(target), tgt_mask=mask))


class Encoder(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.start = nn.Linear(12, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, **options)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.start(x)).mean(1))


class EinopsAttention(nn.Module):
    """einops in every place: fused heads, pooling, repeated tokens."""

    def __init__(self, heads: int = 4, size: int = 8) -> None:
        super().__init__()
        self.heads, self.scale = heads, size**-0.5
        self.patch = nn.Sequential(
            Rearrange("b c (h p) (w q) -> b (h w) (p q c)", p=4, q=4), nn.Linear(48, 24)
        )
        self.token = nn.Parameter(torch.randn(1, 1, 24))
        self.qkv, self.out = nn.Linear(24, 3 * heads * size, bias=False), nn.Linear(heads * size, 24)
        self.head = nn.Linear(24, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.patch(image)
        x = torch.cat([repeat(self.token, "1 1 d -> b 1 d", b=len(x)), x], 1)
        q, k, v = rearrange(self.qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.heads)
        weights = (einsum(q, k, "b h i d, b h j d -> b h i j") * self.scale).softmax(-1)
        y = einsum(weights, v, "b h i j, b h j d -> b h i d")
        x = x + self.out(rearrange(y, "b h n d -> b n (h d)"))
        return self.head(reduce(x, "b n d -> b d", "mean"))


class TorchEinsumAttention(nn.Module):
    """`torch.einsum` over weights kept as (heads, size, width)."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Parameter(torch.randn(4, 8, 24) / 5) for _ in range(4))
        self.head = nn.Linear(24, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (torch.einsum("bnw,hdw->bhnd", x, p) for p in (self.q, self.k, self.v))
        weights = torch.einsum("bhid,bhjd->bhij", q, k).mul(8**-0.5).softmax(-1)
        y = torch.einsum("bhij,bhjd,hdw->biw", weights, v, self.out)
        return self.head(x + y)


def _einops_layers() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        Rearrange("b c h w -> b (h w) c"),
        EinMix("b n c -> b n o", weight_shape="c o", bias_shape="o", c=16, o=24),
        nn.GELU(),
        Reduce("b n o -> b o", "max"),
        nn.Linear(24, 5),
    )


class Mixer(nn.Module):
    """Token and channel mixing (Tolstikhin et al., 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.head = nn.Conv2d(3, 24, 4, 4), nn.Linear(24, 5)
        self.norm, self.norm2 = nn.LayerNorm(24), nn.LayerNorm(24)
        self.tokens = nn.Sequential(nn.Linear(16, 20), nn.GELU(), nn.Linear(20, 16))
        self.channels = nn.Sequential(nn.Linear(24, 48), nn.GELU(), nn.Linear(48, 24))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.start(x).flatten(2).transpose(1, 2)
        x = x + self.tokens(self.norm(x).mT).mT
        return self.head((x + self.channels(self.norm2(x))).mean(1))


class Latents(nn.Module):
    """Learned latents read a longer input by cross-attention (Jaegle et al., 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(6, 32))
        self.read = nn.MultiheadAttention(32, 4, kdim=12, vdim=12, batch_first=True)
        self.think = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True)
        self.head = nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        latents = self.latents.expand(x.size(0), -1, -1)
        for _ in range(2):
            latents = self.think(latents + self.read(latents, x, x)[0])
        return self.head(latents.mean(1))


class Experts(nn.Module):
    """A softmax over experts that all run, mixed by their gate."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.head = nn.Linear(16, 4), nn.Linear(16, 5)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(16, 24), nn.GELU(), nn.Linear(24, 16)) for _ in range(4)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gates = self.gate(x).softmax(-1)
        stacked = torch.stack([expert(x) for expert in self.experts], dim=-1)
        return self.head(x + (stacked * gates.unsqueeze(-2)).sum(-1))


class BatchedExperts(nn.Module):
    """Experts as one batched product over a stacked parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.head = nn.Linear(16, 4), nn.Linear(16, 5)
        self.up, self.down = (
            nn.Parameter(torch.randn(4, 16, 24) / 4),
            nn.Parameter(torch.randn(4, 24, 16) / 5),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gates = self.gate(x).softmax(-1)
        hidden = F.silu(torch.einsum("bnc,ecf->benf", x, self.up))
        out = torch.einsum("benf,efc->benc", hidden, self.down)
        return self.head(x + torch.einsum("benc,bne->bnc", out, gates))


class Memory(nn.Module):
    """Keys and values as parameters, read by softmax attention."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.head = nn.Linear(12, 16), nn.Linear(20, 5)
        self.keys, self.values = nn.Parameter(torch.randn(30, 16)), nn.Parameter(torch.randn(30, 20))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = self.start(x) @ self.keys.t() / self.keys.shape[1] ** 0.5
        return self.head(scores.softmax(-1) @ self.values)


class Linear(nn.Module):
    """Linear attention: keys and values are summed before the queries meet them."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = 4
        self.q, self.k, self.v, self.out = (nn.Linear(24, 24) for _ in range(4))
        self.head = nn.Linear(24, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, _ = x.shape
        q, k, v = (p(x).reshape(b, n, self.heads, -1).transpose(1, 2) for p in (self.q, self.k, self.v))
        q, k = F.elu(q) + 1, F.elu(k) + 1
        y = (q @ (k.transpose(-2, -1) @ v)) / (q * k.sum(2, keepdim=True)).sum(-1, keepdim=True)
        return self.head(x + self.out(y.transpose(1, 2).reshape(b, n, -1)))


def _tokens(make: Callable[[], nn.Module], *shape: int) -> Callable[[], tuple[nn.Module, Any]]:
    return lambda: (make(), torch.randn(shape))


NETWORKS: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    "gpt_conv1d": lambda: (TransposedGPT(), torch.randint(0, 60, (2, 9))),
    "grouped_queries_rotary": _tokens(GroupedQueries, 2, 6, 24),
    "two_streams": _tokens(TwoStreams, 2, 8, 12),
    "mha_kdim_vdim": lambda: (
        StockAttention(kdim=12, vdim=20),
        (torch.randn(2, 5, 10), torch.randn(2, 7, 12), torch.randn(2, 7, 20)),
    ),
    "mha_bias_kv": lambda: (
        StockAttention(add_bias_kv=True, add_zero_attn=True),
        (torch.randn(2, 5, 10), torch.randn(2, 7, 32), torch.randn(2, 7, 32)),
    ),
    "transformer": lambda: (EncoderDecoder(), (torch.randint(0, 40, (2, 7)), torch.randint(0, 40, (2, 5)))),
    "transformer_encoder": _tokens(Encoder, 2, 6, 12),
    "transformer_encoder_norm_first": _tokens(lambda: Encoder(norm_first=True, activation="gelu"), 2, 6, 12),
    "einops_attention": _tokens(EinopsAttention, 2, 3, 16, 16),
    "torch_einsum_attention": _tokens(TorchEinsumAttention, 2, 6, 24),
    "einops_layers": _tokens(_einops_layers, 2, 3, 8, 8),
    "mlp_mixer": _tokens(Mixer, 2, 3, 16, 16),
    "perceiver_latents": _tokens(Latents, 2, 20, 12),
    "experts": _tokens(Experts, 2, 6, 16),
    "batched_experts": _tokens(BatchedExperts, 2, 6, 16),
    "key_value_memory": _tokens(Memory, 2, 6, 12),
    "linear_attention": _tokens(Linear, 2, 6, 24),
}
