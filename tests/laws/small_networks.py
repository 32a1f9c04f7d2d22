"""Tiny networks around one construction each: what a rule says about an op is only worth what such networks prove.

`BUILDERS[name](c)` is a network of about `c` channels with the inputs it takes. `c` is a multiple of 4.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


class Body(nn.Module):
    """Parts and attributes by keyword, and a forward as a function of them."""

    def __init__(self, body: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.body = body
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.body(self, *args, **kwargs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A network, what it takes, and the parameters that have to lose something when it is pruned.

    `zeroing`: setting removed slices to zero in the original gives the same output, so a test can check that
    without any of the library's own masking.
    """

    model: nn.Module
    example: Any
    shrinks: tuple[str, ...] = ()
    zeroing: bool = True


BUILDERS: dict[str, Callable[[int], Network]] = {}


def network(builder: Callable[[int], Network]) -> Callable[[int], Network]:
    BUILDERS[builder.__name__] = builder
    return builder


def image(batch: int = 2, size: int = 6) -> torch.Tensor:
    return torch.randn(batch, 3, size, size)


def conv(i: int, o: int, k: int = 1, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(i, o, k, padding=k // 2, **options)


def between(
    c: int, body: Callable[[nn.Module, torch.Tensor], torch.Tensor], out: int | None = None, **parts: Any
):
    """conv -> body -> conv, where `body` sees (network, channels of `a`)."""
    return Body(
        lambda m, x: m.b(body(m, m.a(x))), a=conv(3, c, 3), b=conv(c if out is None else out, 5), **parts
    )


def simple(c: int, body: Any, out: int | None = None, *, zeroing: bool = True, **parts: Any) -> Network:
    return Network(
        model=between(c, body, out, **parts),
        example=image(),
        shrinks=("a.weight", "b.weight"),
        zeroing=zeroing,
    )


@network
def plain_conv(c: int) -> Network:
    return simple(c, lambda m, h: F.relu(h))


@network
def batch_norm(c: int) -> Network:
    return simple(c, lambda m, h: F.relu(m.n(h)), n=nn.BatchNorm2d(c))


@network
def instance_norm(c: int) -> Network:
    return simple(c, lambda m, h: m.n(h), n=nn.InstanceNorm2d(c, affine=True))


@network
def grouped_conv(c: int) -> Network:
    return Network(
        model=between(c, lambda m, h: m.g(F.relu(h)), 2 * c, g=conv(c, 2 * c, 3, groups=4)),
        example=image(),
        shrinks=("a.weight", "g.weight", "b.weight"),
    )


@network
def depthwise(c: int) -> Network:
    return simple(c, lambda m, h: m.d(h), d=conv(c, c, 3, groups=c))


@network
def depthwise_multiplier(c: int) -> Network:
    return simple(c, lambda m, h: m.d(h), 2 * c, d=conv(c, 2 * c, 3, groups=c))


@network
def transposed(c: int) -> Network:
    return simple(c, lambda m, h: m.t(h), 2 * c, t=nn.ConvTranspose2d(c, 2 * c, 2, stride=2))


@network
def grouped_transposed(c: int) -> Network:
    return simple(c, lambda m, h: m.t(h), 2 * c, t=nn.ConvTranspose2d(c, 2 * c, 2, stride=2, groups=2))


@network
def depthwise_transposed(c: int) -> Network:
    return simple(c, lambda m, h: m.t(h), t=nn.ConvTranspose2d(c, c, 2, stride=2, groups=c))


@network
def conv1d(c: int) -> Network:
    model = nn.Sequential(nn.Conv1d(3, c, 3), nn.BatchNorm1d(c), nn.GELU(), nn.Conv1d(c, 4, 1))
    return Network(model=model, example=torch.randn(2, 3, 9), shrinks=("0.weight", "1.weight", "3.weight"))


@network
def conv3d(c: int) -> Network:
    model = nn.Sequential(nn.Conv3d(3, c, 2), nn.ReLU(), nn.MaxPool3d(2), nn.Conv3d(c, 4, 1))
    return Network(model=model, example=torch.randn(1, 3, 5, 5, 5), shrinks=("0.weight", "3.weight"))


@network
def mlp(c: int) -> Network:
    model = nn.Sequential(nn.Linear(7, c), nn.Tanh(), nn.Linear(c, c), nn.ReLU(), nn.Linear(c, 3))
    return Network(model=model, example=torch.randn(4, 7), shrinks=("0.weight", "2.weight", "4.weight"))


@network
def mlp_of_sequences(c: int) -> Network:
    model = nn.Sequential(nn.Linear(7, c, bias=False), nn.SiLU(), nn.Linear(c, 3))
    return Network(model=model, example=torch.randn(2, 5, 7), shrinks=("0.weight", "2.weight"))


@network
def pooled_head(c: int) -> Network:
    model = nn.Sequential(conv(3, c, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 4))
    return Network(model=model, example=image(), shrinks=("0.weight", "4.weight"))


@network
def flattened_head(c: int) -> Network:
    model = nn.Sequential(conv(3, c, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(9 * c, 4))
    return Network(model=model, example=image(), shrinks=("0.weight", "3.weight"))


@network
def mean_over_pixels(c: int) -> Network:
    model = Body(lambda m, x: m.b(m.a(x).mean((2, 3))), a=conv(3, c), b=nn.Linear(c, 4))
    return Network(model=model, example=image(), shrinks=("a.weight", "b.weight"))


@network
def concat(c: int) -> Network:
    model = Body(
        lambda m, x: m.b(torch.cat([m.a(x), m.a2(x), x], 1)),
        a=conv(3, c, 3),
        a2=conv(3, 2 * c),
        b=conv(3 * c + 3, 5),
    )
    return Network(model=model, example=image(), shrinks=("a.weight", "a2.weight", "b.weight"))


@network
def concat_self(c: int) -> Network:
    return simple(c, lambda m, h: torch.cat([h, h.flip(1)], 1), 2 * c)


@network
def dense_block(c: int) -> Network:
    def body(m: Any, x: torch.Tensor) -> torch.Tensor:
        one = m.a(x)
        two = torch.cat([one, m.n(F.relu(one))], 1)
        return m.b(m.k(two))

    model = Body(body, a=conv(3, c), n=conv(c, 4, 3), k=nn.BatchNorm2d(c + 4), b=conv(c + 4, 5))
    return Network(model=model, example=image(), shrinks=("a.weight", "n.weight", "b.weight"))


@network
def chunk_gate(c: int) -> Network:
    def body(m: Any, h: torch.Tensor) -> torch.Tensor:
        value, gate = h.chunk(2, dim=1)
        return value * torch.sigmoid(gate)

    return simple(2 * c, body, c)


@network
def glu(c: int) -> Network:
    return simple(2 * c, lambda m, h: F.glu(h, 1), c)


@network
def swapped_halves(c: int) -> Network:
    def body(m: Any, h: torch.Tensor) -> torch.Tensor:
        one, two = h.chunk(2, dim=1)
        return torch.cat([F.relu(two), one], 1)

    return simple(c, body)


@network
def split_by_attribute(c: int) -> Network:
    def body(m: Any, h: torch.Tensor) -> torch.Tensor:
        one, two = torch.split(h, [m.left, m.right], dim=1)
        return torch.cat([m.d(one), two], 1)

    return simple(c, body, left=c // 4, right=c - c // 4, d=conv(c // 4, c // 4, 3))


@network
def sliced_gate(c: int) -> Network:
    return simple(2 * c, lambda m, h: h[:, : m.n] * torch.tanh(h[:, m.n :]), c, n=c)


@network
def sliced_by_half_the_size(c: int) -> Network:
    def body(m: Any, h: torch.Tensor) -> torch.Tensor:
        n = h.shape[1] // 2
        return h[:, :n] + F.relu(h[:, n:])

    return simple(2 * c, body, c)


@network
def residual(c: int) -> Network:
    return simple(c, lambda m, h: F.relu(h + m.r2(F.relu(m.r1(h)))), r1=conv(c, 2 * c, 3), r2=conv(2 * c, c))


@network
def residual_downsample(c: int) -> Network:
    def body(m: Any, h: torch.Tensor) -> torch.Tensor:
        return F.relu(m.bn(m.r(h)) + m.down(h))

    return simple(
        c, body, 2 * c, r=conv(c, 2 * c, 3, stride=2), bn=nn.BatchNorm2d(2 * c), down=conv(c, 2 * c, stride=2)
    )


@network
def squeeze_excite(c: int) -> Network:
    def body(m: Any, h: torch.Tensor) -> torch.Tensor:
        return h * torch.sigmoid(m.up(F.relu(m.down(h.mean((2, 3), keepdim=True)))))

    return simple(c, body, down=conv(c, c // 2), up=conv(c // 2, c))


@network
def squeeze_excite_views(c: int) -> Network:
    def body(m: Any, h: torch.Tensor) -> torch.Tensor:
        b, n, _, _ = h.shape
        gate = m.up(F.relu(m.down(m.pool(h).view(b, n)))).view(b, n, 1, 1)
        return h * torch.sigmoid(gate).expand_as(h)

    return simple(c, body, pool=nn.AdaptiveAvgPool2d(1), down=nn.Linear(c, c // 2), up=nn.Linear(c // 2, c))


@network
def channel_shuffle_views(c: int) -> Network:
    def body(m: Any, h: torch.Tensor) -> torch.Tensor:
        b, n, height, width = h.size()
        h = h.view(b, m.groups, n // m.groups, height, width).transpose(1, 2).contiguous()
        return h.view(b, n, height, width)

    return simple(c, body, groups=2)


@network
def channel_shuffle_op(c: int) -> Network:
    return simple(c, lambda m, h: m.s(h), s=nn.ChannelShuffle(2))


@network
def shuffle_unit(c: int) -> Network:
    def body(m: Any, h: torch.Tensor) -> torch.Tensor:
        one, two = h.chunk(2, dim=1)
        h = torch.cat([one, m.u(two)], 1)
        b, n, height, width = h.size()
        return h.view(b, 2, n // 2, height, width).transpose(1, 2).reshape(b, -1, height, width)

    return simple(c, body, u=nn.Sequential(conv(c // 2, c), nn.ReLU(), conv(c, c // 2)))


@network
def pixel_shuffle(c: int) -> Network:
    return simple(4 * c, lambda m, h: F.pixel_shuffle(h, 2), c)


@network
def pixel_unshuffle(c: int) -> Network:
    return simple(c, lambda m, h: F.pixel_unshuffle(h, 2), 4 * c)


@network
def zero_padded_channels(c: int) -> Network:
    return simple(c, lambda m, h: F.pad(h, (1, 1, 0, 0, 2, 1)), c + 3)


@network
def padded_pixels(c: int) -> Network:
    return simple(c, lambda m, h: F.pad(F.pad(h, (1, 2, 1, 0), mode="reflect"), (1, 0)))


@network
def layer_norm_channels_last(c: int) -> Network:
    return simple(
        c, lambda m, h: m.n(h.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), n=nn.LayerNorm(c), zeroing=False
    )


@network
def layer_norm_by_hand(c: int) -> Network:
    def body(m: Any, h: torch.Tensor) -> torch.Tensor:
        mean = h.mean(1, keepdim=True)
        var = (h - mean).pow(2).mean(1, keepdim=True)
        return (h - mean) / torch.sqrt(var + 1e-5) * m.scale[:, None, None]

    return simple(c, body, scale=nn.Parameter(torch.randn(c)), zeroing=False)


@network
def group_norm(c: int) -> Network:
    return simple(c, lambda m, h: m.n(h), n=nn.GroupNorm(4, c), zeroing=False)


@network
def group_norm_of_one(c: int) -> Network:
    return simple(c, lambda m, h: m.n(h), n=nn.GroupNorm(1, c), zeroing=False)


@network
def rms_norm(c: int) -> Network:
    model = Body(lambda m, x: m.b(m.n(m.a(x))), a=nn.Linear(7, c), n=nn.RMSNorm(c), b=nn.Linear(c, 3))
    return Network(model=model, example=torch.randn(4, 7), shrinks=("a.weight", "n.weight"), zeroing=False)


@network
def softmax_over_channels(c: int) -> Network:
    return simple(c, lambda m, h: h.softmax(1), zeroing=False)


@network
def log_softmax_over_channels(c: int) -> Network:
    return simple(c, lambda m, h: h.log_softmax(1), zeroing=False)


@network
def spatial_attention(c: int) -> Network:
    def body(m: Any, h: torch.Tensor) -> torch.Tensor:
        seen = torch.cat([h.mean(1, keepdim=True), h.amax(1, keepdim=True)], 1)
        return h * torch.sigmoid(m.s(seen))

    return simple(c, body, s=conv(2, 1, 3), zeroing=False)


@network
def summed_channels(c: int) -> Network:
    return simple(c, lambda m, h: h + h.sum(1, keepdim=True))


@network
def unit_length_channels(c: int) -> Network:
    return simple(c, lambda m, h: F.normalize(h, dim=1))


@network
def prelu(c: int) -> Network:
    return simple(c, lambda m, h: m.p(h), p=nn.PReLU(c))


@network
def layer_scale(c: int) -> Network:
    return simple(c, lambda m, h: h * m.gamma, gamma=nn.Parameter(1e-6 * torch.ones(c, 1, 1)))


@network
def embedding_sum(c: int) -> Network:
    model = Body(lambda m, i: m.b(m.e(i) + m.position), e=nn.Embedding(11, c), b=nn.Linear(c, 3),
                 position=nn.Parameter(torch.randn(5, c)))  # fmt: skip
    return Network(
        model=model, example=torch.randint(0, 11, (2, 5)), shrinks=("e.weight", "position", "b.weight")
    )


@network
def matmul_of_parameters(c: int) -> Network:
    model = Body(
        lambda m, x: x @ m.u @ m.v, u=nn.Parameter(torch.randn(7, c)), v=nn.Parameter(torch.randn(c, 3))
    )
    return Network(model=model, example=torch.randn(2, 5, 7), shrinks=("u", "v"))


@network
def einsum_of_parameters(c: int) -> Network:
    model = Body(
        lambda m, x: torch.einsum("bnk,kc,cd->bnd", x, m.u, m.v),
        u=nn.Parameter(torch.randn(7, c)),
        v=nn.Parameter(torch.randn(c, 3)),
    )
    return Network(model=model, example=torch.randn(2, 5, 7), shrinks=("u", "v"))


@network
def bmm_of_experts(c: int) -> Network:
    model = Body(
        lambda m, x: torch.bmm(F.relu(torch.bmm(x.expand(4, -1, -1), m.u)), m.v).sum(0),
        u=nn.Parameter(torch.randn(4, 7, c)),
        v=nn.Parameter(torch.randn(4, c, 3)),
    )
    return Network(model=model, example=torch.randn(1, 5, 7), shrinks=("u", "v"))


@network
def non_local(c: int) -> Network:
    """Attention of every pixel to every pixel; query and key share their inner channels."""

    def body(m: Any, h: torch.Tensor) -> torch.Tensor:
        b, n, height, width = h.shape
        q, k, v = m.q(h).flatten(2), m.k(h).flatten(2), m.v(h).flatten(2)
        seen = (q.transpose(1, 2) @ k).softmax(-1)
        return h + (v @ seen.transpose(1, 2)).view(b, n, height, width)

    return simple(c, body, q=conv(c, c), k=conv(c, c), v=conv(c, c))


@network
def attention_heads(c: int) -> Network:
    def body(m: Any, x: torch.Tensor) -> torch.Tensor:
        b, n, _ = x.shape
        q, k, v = (part(x).view(b, n, m.heads, m.width).transpose(1, 2) for part in (m.q, m.k, m.v))
        seen = (q @ k.transpose(-1, -2) * 0.5).softmax(-1)
        return m.o((seen @ v).transpose(1, 2).reshape(b, n, m.heads * m.width))

    parts = {name: nn.Linear(6, c) for name in "qkv"}
    return Network(
        model=Body(body, **parts, o=nn.Linear(c, 6), heads=4, width=c // 4),
        example=torch.randn(2, 5, 6),
        shrinks=("q.weight", "k.weight", "v.weight", "o.weight"),
    )


@network
def fused_attention(c: int) -> Network:
    def body(m: Any, x: torch.Tensor) -> torch.Tensor:
        b, n, _ = x.shape
        q, k, v = m.qkv(x).reshape(b, n, 3, m.heads, m.width).permute(2, 0, 3, 1, 4).unbind(0)
        seen = (q @ k.transpose(-1, -2) * 0.5).softmax(-1)
        return m.o((seen @ v).transpose(1, 2).flatten(2))

    return Network(
        model=Body(body, qkv=nn.Linear(6, 3 * c), o=nn.Linear(c, 6), heads=4, width=c // 4),
        example=torch.randn(2, 5, 6),
        shrinks=("qkv.weight", "o.weight"),
    )


@network
def permuted_linear(c: int) -> Network:
    def body(m: Any, x: torch.Tensor) -> torch.Tensor:
        return m.b(F.gelu(m.l(m.a(x).permute(0, 2, 3, 1))).movedim(-1, 1))

    model = Body(body, a=conv(3, c), l=nn.Linear(c, 2 * c), b=conv(2 * c, 5))
    return Network(model=model, example=image(), shrinks=("a.weight", "l.weight", "b.weight"))


@network
def flipped(c: int) -> Network:
    return simple(c, lambda m, h: torch.cat([h.flip(1)[:, : m.n], F.relu(h)], 1), c + c // 2, n=c // 2)


@network
def stacked_branches(c: int) -> Network:
    def body(m: Any, h: torch.Tensor) -> torch.Tensor:
        return torch.stack([m.r(h), h, F.relu(h)], 1).sum(1)

    return simple(c, body, r=conv(c, c, 3))


@network
def stacked_and_flattened(c: int) -> Network:
    return simple(c, lambda m, h: torch.stack([h, F.relu(-h)], 2).flatten(1, 2), 2 * c)


@network
def unbound_pairs(c: int) -> Network:
    def body(m: Any, h: torch.Tensor) -> torch.Tensor:
        one, two = h.unflatten(1, (2, -1)).unbind(1)
        return one * torch.sigmoid(two)

    return simple(2 * c, body, c)


@network
def repeated(c: int) -> Network:
    return simple(c, lambda m, h: h.repeat(1, 2, 1, 1), 2 * c)


@network
def repeat_interleaved(c: int) -> Network:
    return simple(c, lambda m, h: h[:, :, None].expand(-1, -1, 2, -1, -1).flatten(1, 2), 2 * c)


@network
def maxout(c: int) -> Network:
    return simple(2 * c, lambda m, h: h.unflatten(1, (-1, 2)).amax(2), c)


@network
def dropout_and_resize(c: int) -> Network:
    def body(m: Any, h: torch.Tensor) -> torch.Tensor:
        h = m.d(F.interpolate(h, scale_factor=2, mode="bilinear"))
        return F.avg_pool2d(F.max_pool2d(h, 2), 3, 2, 1) + F.adaptive_max_pool2d(h, 3)

    return simple(c, body, d=nn.Dropout(0.5))


@network
def shared_module(c: int) -> Network:
    return simple(c, lambda m, h: m.s(F.relu(m.s(h))), s=conv(c, c, 3))


@network
def tied_embedding(c: int) -> Network:
    e, out = nn.Embedding(11, c), nn.Linear(c, 11, bias=False)
    out.weight = e.weight
    model = Body(lambda m, i: m.out(F.relu(m.h2(F.relu(m.h1(m.e(i)))))), e=e, h1=nn.Linear(c, 2 * c),
                 h2=nn.Linear(2 * c, c), out=out)  # fmt: skip
    return Network(
        model=model, example=torch.randint(0, 11, (2, 4)), shrinks=("e.weight", "h1.weight", "h2.weight")
    )


@network
def standardised_weights(c: int) -> Network:
    def body(m: Any, h: torch.Tensor) -> torch.Tensor:
        w = m.w.weight
        w = (w - w.mean((2, 3), keepdim=True)) * m.gain[:, None, None, None]
        return F.conv2d(h, w, m.w.bias, padding=1)

    return simple(c, body, 2 * c, w=conv(c, 2 * c, 3), gain=nn.Parameter(torch.randn(2 * c)))


@network
def functional_depthwise(c: int) -> Network:
    def body(m: Any, h: torch.Tensor) -> torch.Tensor:
        return F.conv2d(h, m.k * 2, groups=h.shape[1], padding=1)

    return simple(c, body, k=nn.Parameter(torch.randn(c, 1, 3, 3)))


@network
def efficient_channel_attention(c: int) -> Network:
    """A 1-d convolution slides over the channels: they stay, and nothing is guessed."""

    def body(m: Any, x: torch.Tensor) -> torch.Tensor:
        h = m.a(x)
        gate = m.k(h.mean((2, 3))[:, None]).squeeze(1)
        return m.b(m.i(h * torch.sigmoid(gate)[:, :, None, None]))

    model = Body(body, a=conv(3, c), k=nn.Conv1d(1, 1, 3, padding=1), i=conv(c, 2 * c), b=conv(2 * c, 5))
    return Network(model=model, example=image(), shrinks=("i.weight", "b.weight"))


@network
def literal_view(c: int) -> Network:
    """A size written as a number keeps its dim."""
    c = 8

    def body(m: Any, x: torch.Tensor) -> torch.Tensor:
        h = m.a(x)
        return m.b(m.i(h.view(h.shape[0], 8, -1).view(h.shape)))

    return Network(
        model=Body(body, a=conv(3, c), i=conv(c, 12), b=conv(12, 5)), example=image(), shrinks=("i.weight",)
    )


@network
def two_inputs(c: int) -> Network:
    model = Body(lambda m, x, y: m.b(m.a(x) + m.a2(y)), a=conv(3, c, 3), a2=conv(3, c), b=conv(c, 5))
    return Network(model=model, example=(image(), image()), shrinks=("a.weight", "a2.weight", "b.weight"))


@network
def keyword_inputs(c: int) -> Network:
    model = Body(lambda m, *, x, scale: {"y": m.b(m.a(x) * scale)}, a=conv(3, c, 3), b=conv(c, 5))
    return Network(
        model=model, example={"scale": torch.rand(1), "x": image()}, shrinks=("a.weight", "b.weight")
    )


@network
def running_buffer(c: int) -> Network:
    model = between(c, lambda m, h: (h - m.mean) * m.std)
    model.register_buffer("mean", torch.randn(c, 1, 1))
    model.register_buffer("std", torch.rand(c, 1, 1), persistent=False)
    return Network(model=model, example=image(), shrinks=("a.weight", "mean", "std"))


@network
def many_outputs(c: int) -> Network:
    model = Body(
        lambda m, x: (m.b(h := F.relu(m.a(x))), {"aux": m.d(h).mean((2, 3))}),
        a=conv(3, c, 3),
        b=conv(c, 5),
        d=conv(c, 4),
    )
    return Network(model=model, example=image(), shrinks=("a.weight", "b.weight", "d.weight"))
