"""Integers that modules keep in plain objects: found once, followed, set in the copy alone."""

import dataclasses
import json
import math
import types
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import penjing as pj
from penjing.core import PlanError
from penjing.core._edits import SetAttribute
from penjing.structure._network._attributes import AttributeWatch, set_attribute
from penjing.structure._network._provenance import Attr, TracedInt, expression

IDS = torch.tensor([[1, 2, 3, 4, 0], [5, 6, 1, 0, 0]])


@dataclasses.dataclass(frozen=True)
class Frozen:
    width: int = 32
    heads: int = 4
    inner: int = 24
    vocab: int = 7
    pad: int = 0
    layers: int = 2


class Hooked:
    """Checks what is set, offers an old name, computes one figure from another."""

    names = {"num_heads": "heads"}

    def __init__(self) -> None:
        self._width, self.heads, self.inner, self.vocab, self.pad, self.layers = 32, 4, 24, 7, 0, 2

    @property
    def width(self) -> int:
        return self._width

    def __setattr__(self, name: str, value: Any) -> None:
        if type(value) is not int:
            raise TypeError(name)
        object.__setattr__(self, self.names.get(name, name), value)


class Named(dict[str, int]):
    def __getattr__(self, name: str) -> int:
        if name not in self:
            raise AttributeError(name)
        return self[name]


CONFIGS: dict[str, Any] = {
    "a frozen dataclass": Frozen,
    "hooks and properties": Hooked,
    "a namespace": lambda: types.SimpleNamespace(width=32, heads=4, inner=24, vocab=7, pad=0, layers=2),
    "a dict with attributes": lambda: Named(width=32, heads=4, inner=24, vocab=7, pad=0, layers=2),
    "a namespace in a dict in an object": lambda: types.SimpleNamespace(
        text={"a": types.SimpleNamespace(width=32, heads=4, inner=24, vocab=7, pad=0, layers=2)}
    ),
}


def plain(config: Any) -> Any:
    return config.text["a"] if "text" in vars(config) else config


class Layer(nn.Module):
    """Every size of its forward is read from the shared configuration."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        width, inner = plain(config).width, plain(config).inner
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        config, (batch, places, _) = plain(self.config), x.shape
        sizes = batch, places, config.heads, config.width // config.heads
        q, k, v = (f(x).view(sizes).transpose(1, 2) for f in (self.q, self.k, self.v))
        y = (q @ k.transpose(-1, -2)).softmax(-1) @ v
        x = x + self.o(y.transpose(1, 2).reshape(batch, places, config.width))
        return x + self.down(F.relu(self.up(x)).view(batch, places, config.inner))


class Model(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        inside = plain(config)
        self.embed = nn.Embedding(inside.vocab, inside.width)
        self.layers = nn.ModuleList(Layer(config) for _ in range(inside.layers))
        self.head = nn.Linear(inside.width, inside.vocab)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        inside = plain(self.config)
        x = self.embed(ids) * (ids != inside.pad)[..., None]
        for i in range(inside.layers):
            x = self.layers[i](x)
        return self.head(x).view(-1, inside.vocab)


@pytest.mark.parametrize(
    ("ratio", "width", "heads", "inner"), [(0.5, 16, 2, 12), (0.25, 24, 3, 18), (0.7, 8, 1, 7)]
)
@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_a_configuration_follows_in_the_copy_alone(
    kind: str, ratio: float, width: int, heads: int, inner: int
):
    torch.manual_seed(0)
    model = Model(CONFIGS[kind]())
    slim, plan = pj.prune(model, IDS, ratio=ratio)
    before, after = plain(model.config), plain(slim.config)
    assert (before.width, before.heads, before.inner) == (32, 4, 24)
    assert (after.width, after.heads, after.inner) == (width, heads, inner)
    assert (after.vocab, after.pad, after.layers) == (7, 0, 2)
    assert all(type(v) is int for v in (before if isinstance(before, dict) else vars(before)).values())
    assert slim.config is slim.layers[0].config is slim.layers[1].config is not model.config
    assert slim.layers[0].up.out_features == slim.layers[1].up.out_features == inner
    assert not plan.skipped
    assert any(p.startswith("count-tied: ") and "neurons (layers.1.up" in p for p in plan.policies)
    assert pj.verify(model, slim, plan, IDS).passed
    read = pj.Plan.from_json(plan.to_json())
    assert read == plan
    assert torch.equal(pj.apply(model, read)(IDS), slim(IDS))


def test_nested_lists_tuples_and_dicts_are_followed_by_path():
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sizes = {"inner": [(3, 12), 8]}
            self.a, self.b, self.c = nn.Linear(4, 12), nn.Linear(12, 8), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            inner = self.sizes["inner"]
            x = F.relu(self.a(x)).view(-1, inner[0][1])
            return self.c(F.relu(self.b(x)).view(-1, inner[1]))

    model, x = Nested(), torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    slim, plan = pj.prune(model, x, ratio=0.5)
    assert slim.sizes == {"inner": [(3, 6), 4]}
    assert model.sizes == {"inner": [(3, 12), 8]}
    assert {e.path for e in plan.edits if isinstance(e, SetAttribute) and e.attribute == "sizes"} == {
        ("inner", 0, 1), ("inner", 1),
    }  # fmt: skip
    assert pj.verify(model, slim, plan, x).passed


def test_an_attribute_of_a_dim_that_stays_may_not_change():
    """The size of the input's dim is read from the same attribute as the inner width: neither can change."""

    class Pinned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.width = 12
            self.a, self.b = nn.Linear(12, 12), nn.Linear(12, 3)
            self.c, self.d = nn.Linear(12, 8), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x.view(-1, self.width)
            return self.b(F.relu(self.a(x)).view(-1, self.width)) + self.d(F.relu(self.c(x)))

    model, x = Pinned(), torch.randn(2, 3, 12, generator=torch.Generator().manual_seed(0))
    structure = pj.trace(model, x)
    assert [g.name for g in structure.groups] == ["c.weight:0"]
    assert any("no smaller size fits" in f.cause for f in structure.frozen if f.parameter == "a.weight")


def test_plans_that_name_places_in_tuples_are_still_read():
    text = json.dumps(
        {
            "schema": 1,
            "fingerprint": "x",
            "skipped": [],
            "policies": [],
            "edits": [
                {"kind": "set_attribute", "module": "a", "attribute": "n", "item": None, "value": 3},
                {"kind": "set_attribute", "module": "a", "attribute": "n", "item": 1, "value": 3},
            ],
        }
    )
    assert [e.path for e in pj.Plan.from_json(text).edits if isinstance(e, SetAttribute)] == [(), (1,)]


class Shared:
    """An object that copies of a network share."""

    def __init__(self) -> None:
        self.width = 12

    def __deepcopy__(self, memo: object) -> "Shared":
        return self


def test_an_object_that_copies_share_is_not_changed():
    model = nn.Linear(2, 2)
    model.held = Shared()
    with pytest.raises(PlanError, match="share the Shared"):
        set_attribute(model, ("held", "width"), 6, model)
    assert model.held.width == 12


@pytest.mark.parametrize(
    "path", [("training",), ("_parameters", "weight"), ("run", "__globals__"), ("held", "name"), ("no",)]
)
def test_only_integers_of_plain_objects_are_set(path: tuple[str, ...]):
    model = nn.Linear(2, 2)
    model.run, model.held = lambda: None, types.SimpleNamespace(name="x")
    with pytest.raises(PlanError):
        set_attribute(model, path, 6, nn.Linear(2, 2))


def test_what_is_watched_is_put_back_after_an_error():
    model = Model(Hooked())
    model.sizes = [[1, 2], {"a": 3}]

    def kinds() -> set[type]:
        return {type(model.config.heads), type(model.sizes[0][1]), type(model.sizes[1]["a"])}

    def fail() -> None:
        with AttributeWatch(list(model.named_modules())):
            assert kinds() == {TracedInt}
            assert model.config.width is model.layers[1].config.width
            model.config.heads = 9
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert kinds() == {int}
    assert model.config.heads == 4


def test_a_traced_int_serves_wherever_an_int_does():
    n = TracedInt.of(6, Attr("", ("n",)))
    assert isinstance(n, int)
    assert (n == 6, n in (5, 6), n in {6}, {n: "a"}[6], [0] * n) == (True, True, True, "a", [0] * 6)
    assert (n / 4, n**2, divmod(n, 4), round(n), int(n), abs(n), -n, n % 4, 13 // n) == (
        1.5, 36, (1, 2), 6, 6, 6, -6, 2, 2,
    )  # fmt: skip
    assert (min(n, 9), max(n, 2), sorted([n, 1]), n < 7, bool(n), float(n)) == (6, 6, [1, 6], True, True, 6.0)
    assert (f"{n}", f"{n:03d}", str(n), repr(n), json.dumps({"n": n})) == (
        "6", "006", "6", "6", '{"n": 6}',
    )  # fmt: skip
    assert (list(range(n)), math.prod([n, 2]), sum([n, 1]), math.sqrt(n * 6), n & 3, n << 1) == (
        [*range(6)], 12, 7, 6.0, 2, 12,
    )  # fmt: skip
    assert torch.empty(n, 2).view(2, n).shape == (2, 6)
    assert (torch.arange(n) == n - 1).sum() == 1
    assert torch.full((2,), n).tolist() == [6, 6]
    assert nn.Linear(n, n).weight.shape == (6, 6)
    assert expression(math.prod([n, 2])) != expression(12)
    assert "abcdefgh"[n] == "g"
