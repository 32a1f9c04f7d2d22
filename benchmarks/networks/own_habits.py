"""Networks written the way people write them: dicts, dataclasses, caches, shared and unregistered modules."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


class DictInOut(nn.Module):
    """Named inputs, a dict of several outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.text = nn.Linear(12, 24), nn.Embedding(30, 24)
        self.joint = nn.Sequential(nn.LayerNorm(48), nn.Linear(48, 32), nn.ReLU())
        self.label, self.box = nn.Linear(32, 5), nn.Linear(32, 4)

    def forward(self, *, image: torch.Tensor, text: torch.Tensor) -> dict[str, torch.Tensor]:
        both = self.joint(torch.cat([self.image(image), self.text(text).mean(1)], -1))
        return {"label": self.label(both), "box": self.box(both).sigmoid()}


@dataclass
class Batch:
    features: torch.Tensor
    mask: torch.Tensor


@dataclass
class Answer:
    logits: torch.Tensor
    hidden: tuple[torch.Tensor, ...]


class DataclassInOut(nn.Module):
    """A dataclass in, another out."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.head = nn.Linear(12, 32), nn.Linear(32, 16), nn.Linear(16, 5)

    def forward(self, features: torch.Tensor, mask: torch.Tensor) -> Answer:
        batch = Batch(features, mask)
        hidden = self.down(F.relu(self.up(batch.features))) * batch.mask[..., None]
        return Answer(logits=self.head(hidden.sum(1)), hidden=(batch.mask.float().sum(1),))


class Shared(nn.Module):
    """One module called at three places, one parameter under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.block, self.head = nn.Linear(12, 24), nn.Linear(24, 24), nn.Linear(24, 12)
        self.back = nn.Linear(12, 24, bias=False)
        self.back.weight = self.start.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.start(x)
        for _ in range(3):
            y = y + torch.tanh(self.block(y))
        return self.head(y) + self.head(self.back(x))


class Unregistered(nn.Module):
    """Modules in a plain list and a plain dict, which `state_dict` does not know: what meets them stays."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Sequential(nn.Linear(12, 40), nn.ReLU(), nn.Linear(40, 24))
        self.head = nn.Linear(16, 5)
        self.layers = [nn.Linear(24, 24), nn.Linear(24, 16)]
        self.extra = {"gate": nn.Linear(24, 24)}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.start(x)
        x = F.relu(self.layers[0](x)) * self.extra["gate"](x).sigmoid()
        return self.head(self.layers[1](x))


class Cached(nn.Module):
    """A table of positions kept on the module, grown in forward."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.up, self.head = nn.Linear(12, 24), nn.Linear(24, 48), nn.Linear(48, 5)
        self.cache: dict[int, torch.Tensor] = {}
        self.table: torch.Tensor | None = None

    def positions(self, n: int, width: int) -> torch.Tensor:
        if n not in self.cache:
            self.cache[n] = torch.arange(n).float()[:, None] / torch.arange(1, width + 1)
        return self.cache[n].sin()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.start(x)
        if self.table is None:
            self.table = torch.linspace(0, 1, x.shape[1])
        return self.head(
            F.relu(self.up(y + self.table[:, None])).mean(1) + self.positions(x.shape[1], 1).mean()
        )


class Counting(nn.Module):
    """Buffers that change in forward: a step count and a running mean."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.head = nn.Linear(12, 24), nn.Linear(24, 5)
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))
        self.register_buffer("mean", torch.randn(24))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.start(x)
        if self.training:
            self.mean.lerp_(y.detach().mean(0), 0.1)
        self.seen += 1
        return self.head(F.relu(y - self.mean))


class HyperNetwork(nn.Module):
    """The weights of one layer are another's output (Ha et al., 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = 16, 20
        self.code = nn.Parameter(torch.randn(6))
        self.make = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 16 * 20))
        self.start, self.head = nn.Linear(12, 16), nn.Linear(20, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.make(self.code).view(self.b, self.a)
        return self.head(F.relu(F.linear(self.start(x), weight)))


class DeepSets(nn.Module):
    """A function of a set (Zaheer et al., 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.each = nn.Sequential(nn.Linear(4, 24), nn.ReLU(), nn.Linear(24, 32))
        self.whole = nn.Sequential(nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.each(x)
        return self.whole(torch.cat([y.sum(1), y.max(1).values], -1))


class GraphConvolution(nn.Module):
    """A dense adjacency, normalised by degree (Kipf & Welling, 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Linear(8, 24), nn.Linear(24, 16), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor, adjacency: torch.Tensor) -> torch.Tensor:
        adjacency = adjacency + torch.eye(adjacency.shape[-1], device=x.device)
        scale = adjacency.sum(-1).clamp(min=1e-6).rsqrt()
        adjacency = scale[..., None] * adjacency * scale[..., None, :]
        x = F.relu(adjacency @ self.one(x))
        return self.head(F.relu(torch.bmm(adjacency, self.two(x))))


class FourierFeatures(nn.Module):
    """Random frequencies in front of an MLP (Tancik et al., 2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.randn(2, 16))
        self.body = nn.Sequential(
            nn.Linear(32, 48), nn.SiLU(), nn.Linear(48, 24), nn.SiLU(), nn.Linear(24, 3)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        angles = 2 * torch.pi * x @ self.frequencies
        return self.body(torch.cat([angles.sin(), angles.cos()], -1))


class FactorisationMachine(nn.Module):
    """Tables per field, pairwise interactions, a deep part (Guo et al., 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(n, 8) for n in (10, 20, 30))
        self.deep = nn.Sequential(nn.Linear(24, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        rows = torch.stack([table(ids[:, i]) for i, table in enumerate(self.tables)], 1)
        pairs = 0.5 * (rows.sum(1).square() - rows.square().sum(1)).sum(-1, keepdim=True)
        return pairs + self.deep(rows.flatten(1))


class Bilinear(nn.Module):
    """`nn.Bilinear`, an embedding bag and an outer product."""

    def __init__(self) -> None:
        super().__init__()
        self.bag, self.left = nn.EmbeddingBag(40, 12, mode="mean"), nn.Linear(6, 10)
        self.join, self.head = nn.Bilinear(12, 10, 16), nn.Linear(16 + 120, 4)

    def forward(self, ids: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        a, b = self.bag(ids), F.relu(self.left(x))
        outer = (a[:, :, None] * b[:, None, :]).flatten(1)
        return self.head(torch.cat([F.relu(self.join(a, b)), outer], -1))


class Functional(nn.Module):
    """Raw parameters, functional calls, in-place arithmetic."""

    def __init__(self) -> None:
        super().__init__()
        self.w1, self.b1 = nn.Parameter(torch.randn(24, 12) / 3), nn.Parameter(torch.randn(24))
        self.w2, self.scale = nn.Parameter(torch.randn(5, 24) / 5), nn.Parameter(torch.randn(24))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.linear(x, self.w1, self.b1)
        x = F.layer_norm(x, x.shape[-1:], self.scale)
        x.mul_(2).clamp_(min=0).add_(1)
        x[:, x.shape[1] // 2 :] *= 0.5
        return x @ self.w2.T


class EarlyExit(nn.Module):
    """A Python loop that ends by a number kept on the module; outputs of every exit."""

    def __init__(self) -> None:
        super().__init__()
        self.depth = 3
        self.start = nn.Linear(12, 24)
        self.layers = nn.ModuleList(nn.Linear(24, 24) for _ in range(4))
        self.exits = nn.ModuleList(nn.Linear(24, 5) for _ in range(4))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x, found = self.start(x), []
        for i in range(self.depth):
            x = x + F.gelu(self.layers[i](x))
            found.append(self.exits[i](x))
        return found


def _vectors(make: Callable[[], nn.Module], *shape: int) -> Callable[[], tuple[nn.Module, Any]]:
    return lambda: (make(), torch.randn(shape or (4, 12)))


NETWORKS: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    "dict_inputs_outputs": lambda: (
        DictInOut(),
        {"image": torch.randn(3, 12), "text": torch.randint(0, 30, (3, 6))},
    ),
    "dataclass_inputs_outputs": lambda: (
        DataclassInOut(),
        (torch.randn(2, 5, 12), torch.tensor([[1.0] * 5, [1, 1, 1, 0, 0]])),
    ),
    "shared_modules": _vectors(Shared),
    "unregistered_modules": _vectors(Unregistered),
    "cache_filled_in_forward": _vectors(Cached, 2, 6, 12),
    "buffers_updated_in_forward": _vectors(Counting),
    "hypernetwork": _vectors(HyperNetwork),
    "deep_sets": _vectors(DeepSets, 3, 7, 4),
    "graph_convolution": lambda: (
        GraphConvolution(),
        (torch.randn(2, 6, 8), (torch.rand(2, 6, 6) > 0.5).float()),
    ),
    "fourier_features": _vectors(FourierFeatures, 5, 2),
    "factorisation_machine": lambda: (FactorisationMachine(), torch.randint(0, 10, (4, 3))),
    "bilinear": lambda: (Bilinear(), (torch.randint(0, 40, (4, 5)), torch.randn(4, 6))),
    "functional": _vectors(Functional),
    "early_exit": _vectors(EarlyExit),
}
