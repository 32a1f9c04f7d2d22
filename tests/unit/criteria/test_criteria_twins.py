"""Criteria against slow twins in plain loops, and padding that must not count."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import penjing as pj
from penjing.criteria import CRITERIA, Context, prepare_criterion, unit_scores


class Net(nn.Module):
    """A convolution and linear layers, with one unit's output read in two places."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.left, self.right = nn.Conv2d(6, 5, 1), nn.Conv2d(6, 5, 3, padding=1)
        self.out = nn.Linear(5, 3)
        self.norm.running_mean.normal_()
        self.norm.weight.data.uniform_(0.5, 1.5)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        x = self.norm(self.conv(x)).relu()
        x = x if mask is None else x * mask[:, None, None]
        return self.out((self.left(x) + self.right(x)).relu().mean((2, 3)))


BATCHES = [
    (torch.randn(8, 2, 5, 5, generator=torch.Generator().manual_seed(i)), torch.arange(8) % 3)
    for i in range(3)
]


def loss(outputs: torch.Tensor, batch: Any) -> torch.Tensor:
    return F.cross_entropy(outputs, batch[1])


def scores(name: str, model: nn.Module, batches: Any = BATCHES, loss: Any = loss) -> dict[str, np.ndarray]:
    structure = pj.trace(model, batches[0] if isinstance(batches[0], dict) else batches[0][0])
    score = prepare_criterion(name, model, Context(calibration=batches, loss=loss, structure=structure))
    return {g.name: unit_scores(score, g, model) for g in structure.groups}


def test_fpgm_against_all_distances():
    model = Net()
    rows = model.conv.weight.detach().double().flatten(1).tolist()
    twin = [sum(math.sqrt(sum((a - b) ** 2 for a, b in zip(u, v, strict=True))) for v in rows) for u in rows]
    np.testing.assert_allclose(scores("fpgm", model)["conv.weight:0"], twin, rtol=1e-6)  # float64, cdist


def test_fpgm_takes_what_others_can_stand_in_for():
    model = Net()
    with torch.no_grad():
        model.conv.weight[:4] = model.conv.weight[0] + 0.01 * torch.randn_like(model.conv.weight[:4])
        model.conv.weight[4:] += 3
    assert np.argmin(scores("fpgm", model)["conv.weight:0"]) < 4


def test_fisher_against_masks():
    """The mask's gradient by autograd, squared per part of 8 examples, over twice the examples."""
    model = Net().double().eval()
    batches = [(x.double(), y) for x, y in BATCHES]
    twin = torch.zeros(6, dtype=torch.float64)
    for batch in batches:
        mask = torch.ones(6, dtype=torch.float64, requires_grad=True)
        (8 * loss(model(batch[0], mask), batch)).backward()
        assert mask.grad is not None
        twin += mask.grad**2 / (2 * 24)
    np.testing.assert_allclose(scores("fisher", model, batches)["conv.weight:0"], twin.numpy(), rtol=1e-9)


def test_fisher_takes_batches_apart_where_it_can():
    model = Net()
    whole = [(torch.cat([x for x, _ in BATCHES]), torch.cat([y for _, y in BATCHES]))]
    for name, found in scores("fisher", model, whole).items():
        np.testing.assert_allclose(found, scores("fisher", model)[name], rtol=1e-3, atol=1e-9)  # float32
    named = [(x, y, "batch of texts") for x, y in whole]
    assert not np.allclose(
        scores("fisher", model, named)["conv.weight:0"], scores("fisher", model)["conv.weight:0"]
    )


@pytest.mark.parametrize("name", ["activation", "fluctuation"])
def test_activation_against_loops(name: str):
    model = Net().eval()
    with torch.no_grad():
        seen = [model.norm(model.conv(x)).relu().double() for x, _ in BATCHES]
    twin = []
    for unit in range(6):
        values = [float(v) for x in seen for v in x[:, unit].flatten()]
        mean = sum(values) / len(values)
        size = sum((v - (mean if name == "fluctuation" else 0)) ** 2 for v in values) / len(values)
        weights = [
            float(w) for layer in (model.left, model.right) for w in layer.weight.detach()[:, unit].flatten()
        ]
        twin.append(math.sqrt(size * sum(w * w for w in weights)))
    np.testing.assert_allclose(scores(name, model)["conv.weight:0"], twin, rtol=1e-5)  # float32 inputs


def test_activation_of_a_grouped_convolution_against_loops():
    """Unit j is channel j of either group, and each group's outputs read their own."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv1d(3, 8, 1), nn.Conv1d(8, 4, 1, groups=2), nn.Flatten(), nn.Linear(20, 3)
    ).eval()
    with torch.no_grad():
        model[0].weight[:4] *= 10
    x = torch.randn(6, 3, 5)
    seen, weight = model[0](x).detach().double(), model[1].weight.detach().double()
    twin = []
    for unit in range(4):
        total = 0.0
        for group in range(2):
            size = float(seen[:, 4 * group + unit].square().mean())
            total += size * sum(float(weight[2 * group + out, unit, 0]) ** 2 for out in range(2))
        twin.append(math.sqrt(total))
    structure = pj.trace(model, x)
    score = prepare_criterion("activation", model, Context(calibration=[x], structure=structure))
    group = next(g for g in structure.groups if ("1.weight", 1) in {(s.name, s.dim) for s in g.slots})
    np.testing.assert_allclose(unit_scores(score, group, model), twin, rtol=1e-5)  # float32 inputs


def test_activation_sees_recurrent_layers_and_transposed_convolutions():
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.up, self.down = nn.Conv1d(2, 4, 1), nn.ConvTranspose1d(4, 3, 2)
            self.rnn, self.out = nn.GRU(3, 5, batch_first=True), nn.Linear(5, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(self.rnn(self.down(self.up(x).relu()).mT)[0][:, -1])

    model, x = Mixed(), torch.randn(4, 2, 6)
    found = scores("activation", model, [(x, None)])
    with torch.no_grad():
        seen = model.up(x).relu().square().mean((0, 2))
        twin = (seen * model.down.weight.square().sum((1, 2))).sqrt().detach()
        read = model.rnn(model.down(model.up(x).relu()).mT)[0][:, -1]
    np.testing.assert_allclose(found["up.weight:0"], twin.numpy(), rtol=1e-5)  # float32
    hidden = next(v for k, v in found.items() if len(v) == 5)
    least = (read.square().mean(0) * model.out.weight.detach().square().sum(0)).sqrt().numpy()
    assert (hidden >= 0.5 * least).all()


class Reader(nn.Module):
    """A small encoder that attends to real tokens alone, or one whose data is laid out by position first."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = batch_first
        self.table = nn.Embedding(11, 16)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=batch_first)
        self.up, self.down, self.out = nn.Linear(16, 24), nn.Linear(24, 16), nn.Linear(16, 3)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = self.table(ids)
        x = x if self.first else x.transpose(0, 1)
        x = x + self.attention(x, x, x, key_padding_mask=mask == 0, need_weights=False)[0]
        x = x + self.down(self.up(x).relu())
        x = x if self.first else x.transpose(0, 1)
        return self.out((x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))


def texts(length: int) -> list[Any]:
    """The same texts of at most 5 tokens, padded to `length`."""
    draw, found = torch.Generator().manual_seed(0), []
    for _ in range(2):
        ids, mask = torch.full((6, length), 10), torch.zeros(6, length, dtype=torch.long)
        for row in range(6):
            n = 2 + row % 4
            ids[row, :n], mask[row, :n] = torch.randint(0, 10, (n,), generator=draw), 1
        found.append(({"ids": ids, "mask": mask}, torch.arange(6) % 3))
    return found


@pytest.mark.parametrize("name", sorted(CRITERIA))
@pytest.mark.parametrize("batch_first", [True, False])
def test_padding_changes_no_score(name: str, batch_first: bool):
    model = Reader(batch_first)
    short, long = scores(name, model, texts(5)), scores(name, model, texts(9))
    assert short
    for group, found in short.items():
        np.testing.assert_allclose(
            long[group], found, rtol=2e-4, err_msg=group
        )  # float32 sums in another order
