"""The slow twin of grouping: try every choice, keep what runs and gives equal outputs.

1. By shape: which tensor dims have to lose an index together, found by trying every set of dims.
2. By value: which index of each, found by trying every choice. A choice is right when the smaller network gives, in
   float64, what the original gives with those slices set to zero.
"""

import copy
import itertools
from collections.abc import Iterator

import pytest
import torch
from torch import nn

import penjing as pj

Place = tuple[str, int]


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.r, self.b = nn.Linear(2, 3), nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.a(x)
        return self.b(h + torch.tanh(self.r(h)))


class Concat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.c, self.b = nn.Linear(2, 3), nn.Linear(2, 4), nn.Linear(7, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(torch.tanh(torch.cat([self.c(x), self.a(x)], 1)))


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.g, self.b = nn.Linear(2, 3), nn.Linear(2, 3, bias=False), nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.a(x).flip(1) * torch.sigmoid(self.g(x)))


class Flattened(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.n, self.b = nn.Conv1d(2, 3, 1), nn.BatchNorm1d(3), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(torch.tanh(self.n(self.a(x))).flatten(1))


class Shuffled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(2, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.a(x)
        return self.b(torch.tanh(h.view(h.shape[0], 2, -1).transpose(1, 2).flatten(1)))


NETWORKS: dict[str, tuple[type[nn.Module], tuple[int, ...]]] = {
    "residual": (Residual, (9, 2)), "concat": (Concat, (9, 2)), "gated": (Gated, (9, 2)),
    "flattened": (Flattened, (9, 2, 2)), "shuffled": (Shuffled, (9, 2)),
}  # fmt: skip
SEVERAL_WAYS = ("shuffled",)  # four places can be shuffled by two in more than one way


def tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return {n: t for n, t in (*model.named_parameters(), *model.named_buffers()) if t.dim()}


def forward(model: nn.Module, states: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor | None:
    try:
        return torch.func.functional_call(model, states, (x,))
    except RuntimeError:
        return None


def smaller(states: dict[str, torch.Tensor], choice: dict[Place, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    found = dict(states)
    for (name, dim), lost in choice.items():
        kept = [i for i in range(states[name].shape[dim]) if i not in lost]
        found[name] = found[name].index_select(dim, torch.tensor(kept))
    return found


def zeroed(states: dict[str, torch.Tensor], choice: dict[Place, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    found = dict(states)
    for (name, dim), lost in choice.items():
        found[name] = found[name].index_fill(dim, torch.tensor(lost), 0)
    return found


def removable_counts(model: nn.Module, x: torch.Tensor, first: Place) -> Iterator[dict[Place, int]]:
    """Fewest-first: how many indices each dim loses, such that the network runs and its output keeps its shape."""
    states = tensors(model)
    places = [(n, d) for n, t in states.items() for d in range(t.dim()) if (n, d) != first]
    wanted = model(x).shape
    for size in range(len(places) + 1):
        for chosen in itertools.combinations(places, size):
            for counts in itertools.product((1, 2), repeat=size + 1):
                count = dict(zip((first, *chosen), counts, strict=True))
                if any(states[n].shape[d] < k + 2 for (n, d), k in count.items()):
                    continue  # a dim of one index would broadcast and run by accident
                found = forward(model, smaller(states, {p: tuple(range(k)) for p, k in count.items()}), x)
                if found is not None and found.shape == wanted:
                    yield count


def brute_force_units(
    model: nn.Module, x: torch.Tensor, first: Place, index: int
) -> list[dict[Place, tuple[int, ...]]]:
    """Every smallest choice of slices that can go together with index `index` of dim `first`."""
    states = tensors(model)
    found = []
    for count in removable_counts(model, x, first):
        choices = [
            [c for c in itertools.combinations(range(states[n].shape[d]), k) if (n, d) != first or index in c]
            for (n, d), k in count.items()
        ]
        for chosen in itertools.product(*choices):
            choice = dict(zip(count, chosen, strict=True))
            ours, theirs = (
                forward(model, smaller(states, choice), x),
                forward(model, zeroed(states, choice), x),
            )
            if ours is not None and theirs is not None and torch.allclose(ours, theirs, rtol=0, atol=1e-12):
                found.append(choice)
        if found:
            return found
    return found


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_groups_are_what_trial_and_error_finds(name: str):
    torch.manual_seed(0)
    kind, shape = NETWORKS[name]
    model, x = kind().double().eval(), torch.randn(*shape, dtype=torch.float64)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
    structure = pj.trace(copy.deepcopy(model), x)
    groups = [g for g in structure.groups if g.granularity != "group"]
    assert groups
    with torch.no_grad():
        for group in groups:
            first = min(
                ((s.name, s.dim) for s in group.slots),
                key=lambda p: (p[1], not p[0].endswith("weight"), p[0]),
            )
            for unit in range(len(group)):
                mine = {(s.name, s.dim): tuple(sorted(s.indices)) for s in group.slices(unit)}
                found = brute_force_units(model, x, first, mine[first][0])
                assert mine in found, (group.name, unit)
                assert len(found) == 1 or name in SEVERAL_WAYS, (group.name, unit)


def test_the_frozen_output_really_cannot_go():
    torch.manual_seed(0)
    model, x = Residual().double(), torch.randn(9, 2, dtype=torch.float64)
    for place in (("b.weight", 0), ("b.bias", 0), ("a.weight", 1)):
        assert next(removable_counts(model, x, place), None) is None
        assert all((s.name, s.dim) != place for g in pj.trace(model, x).groups for s in g.slots)
