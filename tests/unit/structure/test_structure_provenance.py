"""Integers that remember where they came from, and networks that are only right with them."""

import copy
import operator
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import penjing as pj
from penjing.structure._network._provenance import Attr, TracedInt, evaluate, expression

FEW = settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
OPERATORS: list[Callable[[int, int], int]] = [
    operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod,
]  # fmt: skip


@FEW
@given(
    st.lists(st.tuples(st.sampled_from(OPERATORS), st.integers(1, 9), st.booleans()), max_size=5),
    st.integers(1, 50),
)
def test_arithmetic_is_that_of_int_and_replays_with_another_value(
    steps: list[tuple[Callable[[int, int], int], int, bool]], other: int
):
    attribute = Attr("m", ("n",))

    def run(value: int) -> int:
        for operation, operand, reflected in steps:
            if reflected and not (operation in (operator.floordiv, operator.mod) and value == 0):
                value = operation(operand, value)
            else:
                value = operation(value, operand)
        return value

    traced = run(TracedInt.of(12, attribute))
    assert traced == run(12)
    try:
        expected = run(other)
    except ZeroDivisionError:
        return
    skipped_division = any(r and o in (operator.floordiv, operator.mod) for o, _, r in steps)
    if not skipped_division:
        assert evaluate(expression(traced), lambda leaf: other) == expected


def test_a_traced_int_is_an_int_everywhere_else():
    traced = TracedInt.of(3, Attr("", ("n",)))
    assert f"{traced} {traced!r} {traced:02d}" == "3 3 03"
    assert {traced: 1}[3] == 1
    assert list(range(traced)) == [0, 1, 2]
    assert type(copy.deepcopy(traced)) is int
    assert type(int(traced)) is int
    assert traced / 2 == 1.5
    assert expression(traced**2) == expression(9)


class Sized(nn.Module):
    """A forward that reads its inner width in one of many ways."""

    def __init__(self, read: Callable[["Sized", torch.Tensor], int], **attributes: object) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 12), nn.Linear(12, 3)
        self.read = read
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = F.relu(self.a(x))
        return self.b(h.view(h.shape[0], self.read(self, h)))


X = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))

FOLLOWS: dict[str, Sized] = {
    "an attribute": Sized(lambda m, h: m.width, width=12),
    "a tuple attribute": Sized(lambda m, h: m.shape[1], shape=(3, 12)),
    "a list attribute": Sized(lambda m, h: m.shape[0], shape=[12, 7]),
    "a module's own record": Sized(lambda m, h: m.b.in_features),
    "the shape": Sized(lambda m, h: h.shape[-1]),
    "the size": Sized(lambda m, h: h.size(1)),
    "the shape of a weight": Sized(lambda m, h: m.a.weight.shape[0]),
    "the number of elements": Sized(lambda m, h: h.numel() // h.shape[0]),
    "minus one": Sized(lambda m, h: -1),
    "the length of a bias": Sized(lambda m, h: m.a.bias.numel()),
    "a product of attributes": Sized(lambda m, h: m.heads * m.each, heads=3, each=4),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(FOLLOWS))
def test_a_size_read_this_way_follows(name: str):
    model = FOLLOWS[name]
    slim, plan = pj.prune(model, X, ratio=0.5)
    assert slim.a.out_features == 6
    assert pj.verify(model, slim, plan, X).passed
    assert slim(torch.randn(2, 4)).shape == (2, 3)


FREEZES: dict[str, Sized] = {
    "a literal": Sized(lambda m, h: 12),
    "the length of a list": Sized(lambda m, h: len(m.names), names=list("abcdefghijkl")),
    "a string": Sized(lambda m, h: int(m.text), text="12"),
    "a float": Sized(lambda m, h: round(m.width), width=12.0),
}


@pytest.mark.parametrize("name", sorted(FREEZES))
def test_a_size_that_cannot_follow_freezes_its_dim(name: str):
    model = FREEZES[name]
    structure = pj.trace(model, X)
    assert not structure.groups
    assert any("literal" in f.cause for f in structure.frozen if f.parameter == "a.weight")


def test_one_attribute_of_two_dims_keeps_them_equal():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.width = 8
            self.a, self.b, self.c, self.d = (
                nn.Linear(4, 8),
                nn.Linear(8, 3),
                nn.Linear(3, 8),
                nn.Linear(8, 2),
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.b(F.relu(self.a(x)).view(-1, self.width))
            return self.d(F.relu(self.c(h)).view(-1, self.width))

    model = Two()
    slim, plan = pj.prune(model, X, ratio=0.5)
    assert slim.a.out_features == slim.c.out_features == slim.width
    assert pj.verify(model, slim, plan, X).passed


def test_attributes_are_plain_ints_after_a_trace():
    model = FOLLOWS["a tuple attribute"]
    pj.trace(model, X)
    assert [type(v) for v in model.shape] == [int, int]
    assert type(model.a.in_features) is int
