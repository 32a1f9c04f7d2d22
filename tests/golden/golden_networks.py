"""Small networks by hand: every kind of unit, and the small things that are easily got wrong."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations


@dataclass(frozen=True)
class Case:
    """A network, what it is called with, and what a reader should find in its listing."""

    model: nn.Module
    example: Any
    shows: str = field(kw_only=True)


class Net(nn.Module):
    """Modules and a forward in one line each."""

    def __init__(self, forward: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.run = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *args: Any) -> Any:
        return self.run(self, *args)


def images(*shape: int) -> torch.Tensor:
    return torch.zeros(2, *shape)


def residual_stream() -> Case:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        x = m.stem(x)
        x = x + m.up(F.relu(m.norm(m.down(x))))
        return m.head(x.mean((2, 3)))

    parts = {"stem": nn.Conv2d(3, 8, 3), "down": nn.Conv2d(8, 4, 1, bias=False), "norm": nn.BatchNorm2d(4)}
    model = Net(forward, **parts, up=nn.Conv2d(4, 8, 3, padding=1), head=nn.Linear(8, 5))
    return Case(
        model, images(3, 8, 8), shows="one group for the stream, one for the bottleneck with its norm"
    )


def shuffled_channels() -> Case:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        x = m.a(x)
        b, c, h, w = x.shape
        x = x.view(b, m.groups, c // m.groups, h, w).transpose(1, 2).reshape(b, c, h, w)
        return m.b(m.deep(x)).mean((2, 3))

    a, deep = nn.Conv2d(6, 12, 1, groups=3), nn.Conv2d(12, 12, 3, groups=12)
    model = Net(forward, groups=3, a=a, deep=deep, b=nn.Conv2d(12, 4, 1))
    shows = "place i of every group of a is found at 3 i, 3 i + 1 and 3 i + 2 behind the shuffle"
    return Case(model, images(6, 6, 6), shows=shows)


def mirrored_channels() -> Case:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        x = m.a(x)
        return m.b(x + x.flip(1))

    return Case(
        Net(forward, a=nn.Conv2d(3, 8, 1), b=nn.Conv2d(8, 2, 1)),
        images(3, 4, 4),
        shows="channel i goes with channel 7 - i: 4 pairs",
    )


def rolled_channels() -> Case:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        x = m.a(x)
        return m.b(torch.cat([x, x.roll(2, 1)], 1))

    return Case(
        Net(forward, a=nn.Conv2d(3, 6, 1), b=nn.Conv2d(12, 2, 1)),
        images(3, 4, 4),
        shows="stays: rolling fewer channels by 2 is another function",
    )


def slices_as_gates() -> Case:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        y = m.into(x)
        return m.out(y[..., : m.width] * torch.sigmoid(y[..., m.width :]))

    return Case(
        Net(forward, width=8, into=nn.Linear(5, 16), out=nn.Linear(8, 3)),
        torch.zeros(2, 5),
        shows="8 units of 2 rows each: a value and its gate",
    )


def gated_units() -> Case:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        return m.out(F.glu(m.into(x), dim=1))

    return Case(
        Net(forward, into=nn.Conv1d(4, 12, 3), out=nn.Conv1d(6, 2, 1)),
        torch.zeros(2, 4, 9),
        shows="6 units of 2 rows each",
    )


def pixel_shuffle() -> Case:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        return m.out(F.pixel_shuffle(F.relu(m.into(x)), 2))

    return Case(
        Net(forward, into=nn.Conv2d(3, 16, 3), out=nn.Conv2d(4, 2, 1)),
        images(3, 6, 6),
        shows="4 units of 4 consecutive rows: one channel becomes 2 x 2 pixels of another",
    )


def two_group_counts() -> Case:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        x = m.stem(x)
        return m.head(x + m.by_four(x) + m.by_two(x))

    by_two = nn.Conv2d(16, 16, 1, groups=2)
    parts = {"by_four": nn.Conv2d(16, 16, 3, padding=1, groups=4), "by_two": by_two}
    model = Net(forward, stem=nn.Conv2d(3, 16, 1), **parts, head=nn.Conv2d(16, 2, 1))
    return Case(
        model,
        images(3, 6, 6),
        shows="16 = 2 x 2 x 4: places in the fine groups, in the coarse ones, and coarse groups",
    )


def depthwise_multiplier() -> Case:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        return m.out(m.deep(m.into(x)))

    deep = nn.Conv2d(6, 18, 3, groups=6)
    return Case(
        Net(forward, into=nn.Conv2d(3, 6, 1), deep=deep, out=nn.Conv2d(18, 2, 1)),
        images(3, 6, 6),
        shows="a channel takes its 3 descendants; a place in the triple is a unit of its own, on request",
    )


def grouped_transposed() -> Case:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        return m.out(m.up(m.into(x)))

    up = nn.ConvTranspose2d(8, 12, 2, 2, groups=2)
    return Case(
        Net(forward, into=nn.Conv2d(3, 8, 1), up=up, out=nn.Conv2d(12, 2, 1)),
        images(3, 4, 4),
        shows="input and output places of the 2 groups apart, the groups together",
    )


def recurrent() -> Case:
    def forward(m: Any, ids: torch.Tensor) -> torch.Tensor:
        x, _ = m.lstm(m.words(ids))
        return m.out(m.gru(x)[1][-1])

    lstm = nn.LSTM(6, 5, 2, bidirectional=True, batch_first=True)
    model = Net(
        forward, words=nn.Embedding(9, 6), lstm=lstm, gru=nn.GRU(10, 4, batch_first=True), out=nn.Linear(4, 2)
    )
    return Case(
        model,
        torch.zeros(2, 7, dtype=torch.long),
        shows="a hidden unit takes its 4 gates (3 in the GRU) in every layer and direction of the module",
    )


def instance_norm() -> Case:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        return m.out(m.norm(m.into(x)))

    norm = nn.InstanceNorm2d(8, affine=True, track_running_stats=True)
    return Case(
        Net(forward, into=nn.Conv2d(3, 8, 1), norm=norm, out=nn.Conv2d(8, 2, 1)),
        images(3, 6, 6),
        shows="running statistics go with their channel",
    )


def norm_over_images() -> Case:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        return m.out(m.norm(m.into(x)))

    return Case(
        Net(forward, into=nn.Conv2d(3, 8, 3), norm=nn.LayerNorm((8, 4, 4)), out=nn.Conv2d(8, 2, 1)),
        images(3, 6, 6),
        shows="channels go, renormalized; the places of the norm stay",
    )


def cross_attention() -> Case:
    def forward(m: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return m.out(m.attention(m.a(x), m.b(y), m.b(y), need_weights=False)[0])

    attention = nn.MultiheadAttention(12, 3, kdim=10, vdim=10, batch_first=True)
    model = Net(forward, a=nn.Linear(4, 12), b=nn.Linear(4, 10), attention=attention, out=nn.Linear(12, 2))
    example = torch.zeros(2, 5, 4), torch.zeros(2, 6, 4)
    return Case(
        model, example, shows="heads through q, k, v and the output projection; embed and kdim free of them"
    )


def softmax_over_channels() -> Case:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        return m.out(m.into(x).softmax(1))

    return Case(
        Net(forward, into=nn.Conv2d(3, 8, 1), out=nn.Conv2d(8, 2, 1)),
        images(3, 4, 4),
        shows="renormalized: shares are taken over what is kept",
    )


def spectrum_of_channels() -> Case:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        return m.out(F.relu(m.middle(torch.fft.fft(m.into(x), dim=1).real)))

    model = Net(forward, into=nn.Conv2d(3, 8, 1), middle=nn.Conv2d(8, 6, 1), out=nn.Conv2d(6, 2, 1))
    return Case(model, images(3, 4, 4), shows="what the transform runs over stays, what lies behind goes")


class Conv1D(nn.Module):
    """A linear layer with its weight the other way round, as GPT-2 has it."""

    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.zeros(into, out)), nn.Parameter(torch.zeros(out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.addmm(self.bias, x.flatten(0, -2), self.weight).unflatten(0, x.shape[:-1])


class Decoder(nn.Module):
    """A language model: fused projection, causal mask in a buffer, the head tied to the embedding."""

    def __init__(self, width: int = 12, heads: int = 3, block: int = 8) -> None:
        super().__init__()
        self.heads, self.width = heads, width
        self.words, self.places = nn.Embedding(20, width), nn.Embedding(block, width)
        self.norm, self.last = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = Conv1D(width, 3 * width), Conv1D(width, width)
        self.up, self.down = Conv1D(width, 20), Conv1D(20, width)
        self.register_buffer("mask", torch.tril(torch.ones(block, block)).view(1, 1, block, block))
        self.head = nn.Linear(width, 20, bias=False)
        self.head.weight = self.words.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        b, n = ids.shape
        x = self.words(ids) + self.places(torch.arange(n))
        q, k, v = self.qkv(self.norm(x)).split(self.width, dim=2)
        q, k, v = (t.view(b, n, self.heads, -1).transpose(1, 2) for t in (q, k, v))
        scores = (q @ k.transpose(-2, -1)) / math.sqrt(k.shape[-1])
        shares = scores.masked_fill(self.mask[:, :, :n, :n] == 0, float("-inf")).softmax(-1)
        x = x + self.proj((shares @ v).transpose(1, 2).reshape(b, n, -1))
        x = x + self.down(F.gelu(self.up(self.norm(x))))
        return self.head(self.last(x))


def language_model() -> Case:
    shows = "width, heads, head dims of q and k and of v, neurons; the tied head follows; unread rows of the mask stay"
    return Case(Decoder(), torch.zeros(2, 5, dtype=torch.long), shows=shows)


class Grouped(nn.Module):
    """Two query heads per key/value head, turned by their places."""

    def __init__(self, width: int = 12, heads: int = 4, shared: int = 2, size: int = 4) -> None:
        super().__init__()
        self.heads, self.shared, self.size = heads, shared, size
        self.into = nn.Linear(5, width)
        self.q, self.k = nn.Linear(width, heads * size), nn.Linear(width, shared * size)
        self.v, self.o = nn.Linear(width, shared * size), nn.Linear(heads * size, width)
        self.register_buffer("speeds", 1 / 100 ** (torch.arange(0, size, 2) / size), persistent=False)
        self.out = nn.Linear(width, 2)

    def turned(self, x: torch.Tensor) -> torch.Tensor:
        angles = torch.outer(torch.arange(x.shape[-2]).float(), self.speeds)
        cos, sin = (torch.cat([t, t], -1) for t in (angles.cos(), angles.sin()))
        a, b = x.chunk(2, dim=-1)
        return x * cos + torch.cat([-b, a], -1) * sin

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.into(x)
        q = self.q(x).unflatten(-1, (self.heads, self.size)).transpose(1, 2)
        k, v = (f(x).unflatten(-1, (self.shared, self.size)).transpose(1, 2) for f in (self.k, self.v))
        k, v = (t.repeat_interleave(self.heads // self.shared, dim=1) for t in (self.turned(k), v))
        y = F.scaled_dot_product_attention(self.turned(q), k, v)
        return self.out(x + self.o(y.transpose(1, 2).flatten(2)))


def grouped_queries() -> Case:
    shows = "a key/value head takes 2 query heads; rotary pairs of head dims (i, i + 2) go together, those of v alone"
    return Case(Grouped(), torch.zeros(2, 6, 5), shows=shows)


def two_streams() -> Case:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        a, b = m.narrow(x), m.wide(x)
        a = a + m.back(m.across(a) + b).mean(1, keepdim=True)
        return m.head_a(m.norm_a(a)) + m.head_b(m.norm_b(b))

    parts = {"narrow": nn.Linear(4, 6), "wide": nn.Linear(4, 10), "across": nn.Linear(6, 10)}
    norms = {"norm_a": nn.LayerNorm(6), "norm_b": nn.LayerNorm(10), "back": nn.Linear(10, 6)}
    model = Net(forward, **parts, **norms, head_a=nn.Linear(6, 3), head_b=nn.Linear(10, 3))
    return Case(model, torch.zeros(2, 5, 4), shows="two streams of their own widths, one group each")


def computed_weights() -> Case:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        return m.out(F.relu(m.middle(F.relu(m.into(x)))))

    into, middle = parametrizations.weight_norm(nn.Linear(4, 8)), nn.Linear(8, 6)
    return Case(
        Net(forward, into=into, middle=parametrizations.spectral_norm(middle).eval(), out=nn.Linear(6, 2)),
        torch.zeros(2, 4),
        shows="merged weights under their plain names",
    )


def frozen_body() -> Case:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            x = F.relu(m.body(x))
        return m.head(x)

    body = nn.Linear(4, 8).requires_grad_(False)
    model = Net(forward, body=body, head=nn.Linear(8, 2))
    return Case(model, torch.zeros(2, 4), shows="no gradients, units all the same")


def on_meta() -> Case:
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1))
    return Case(model, torch.zeros(2, 3, 6, 6, device="meta"), shows="the same groups without weights")


def batched_experts() -> Case:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        x = m.into(x)
        found, chosen = m.router(x).softmax(-1).topk(2, dim=-1)
        shares = torch.zeros(x.shape[0], m.up.shape[0]).scatter(1, chosen, found)
        y = torch.einsum("nd,edf->nef", x, m.up).relu()
        return m.out(x + torch.einsum("nef,efd,ne->nd", y, m.down, shares))

    up, down = nn.Parameter(torch.zeros(4, 6, 10)), nn.Parameter(torch.zeros(4, 10, 6))
    parts = {
        "into": nn.Linear(3, 6),
        "router": nn.Linear(6, 4),
        "up": up,
        "down": down,
        "out": nn.Linear(6, 2),
    }
    shows = "experts with their rows of the router, their neurons, the stream"
    return Case(Net(forward, **parts), torch.zeros(5, 3), shows=shows)


def joined_and_cut() -> Case:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        a, b = m.into(x).chunk(2, dim=1)
        return m.out(torch.cat([m.left(a), b], 1))

    model = Net(forward, into=nn.Conv2d(3, 12, 1), left=nn.Conv2d(6, 5, 1), out=nn.Conv2d(11, 2, 1))
    shows = "halves of equal size; left's channels and the second half lie side by side in out"
    return Case(model, images(3, 4, 4), shows=shows)


def embedding_bags() -> Case:
    def forward(m: Any, ids: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return m.out(torch.cat([m.one(ids[:, 0]), m.bag(ids), F.relu(m.dense(x))], 1))

    parts = {"one": nn.Embedding(9, 4), "bag": nn.EmbeddingBag(9, 6), "dense": nn.Linear(3, 5)}
    model, example = (
        Net(forward, **parts, out=nn.Linear(15, 2)),
        (torch.zeros(3, 4, dtype=torch.long), torch.zeros(3, 3)),
    )
    return Case(model, example, shows="embedding widths, each with its columns of out")


CASES: dict[str, Callable[[], Case]] = {
    f.__name__: f
    for f in (
        residual_stream, shuffled_channels, mirrored_channels, rolled_channels, slices_as_gates, gated_units,
        pixel_shuffle, two_group_counts, depthwise_multiplier, grouped_transposed, recurrent, instance_norm,
        norm_over_images, cross_attention, softmax_over_channels, spectrum_of_channels, language_model,
        grouped_queries, two_streams, computed_weights, frozen_body, on_meta, batched_experts, joined_and_cut,
        embedding_bags,
    )
}  # fmt: skip
