"""Attributions, how far they agree, and how alike inner states are."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from penjing.core import UsageError
from penjing.explain import attributions, cka_by_depth, linear_cka, spearman, top_overlap

RANDOM = torch.Generator().manual_seed(0)


class Looks(nn.Module):
    """Its first class is the sum of the upper left quarter, its second that of the rest."""

    def forward(self, pictures: Tensor) -> Tensor:
        corner = pictures[:, :, :4, :4].sum((1, 2, 3))
        return torch.stack([corner, pictures.sum((1, 2, 3)) - corner], 1)


class Reads(nn.Module):
    """The sum of the embeddings of its tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 2)
        with torch.no_grad():
            self.table.weight.zero_()
            self.table.weight[7, 1] = 5.0

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        return {"logits": (self.table(input_ids) * attention_mask[..., None]).sum(1)}


def test_pictures_are_credited_where_the_network_looks():
    pictures = torch.rand(3, 2, 8, 8, generator=RANDOM) + 0.5
    found = attributions(Looks(), pictures, torch.zeros(3, dtype=torch.int64), lambda out: out)
    assert found.shape == (3, 64)
    corner = found.view(3, 8, 8)[:, :4, :4]
    assert torch.allclose(corner, pictures[:, :, :4, :4].sum(1), atol=1e-4)
    assert found.sum().item() == pytest.approx(corner.sum().item(), rel=1e-5)


def test_tokens_are_credited_and_padding_is_not():
    ids = torch.tensor([[7, 3, 2, 7], [1, 7, 7, 7]])
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
    network = Reads()
    found = attributions(
        network,
        {"input_ids": ids, "attention_mask": mask},
        torch.ones(2, dtype=torch.int64),
        lambda out: out["logits"],
    )
    assert torch.allclose(found, torch.tensor([[5.0, 0, 0, 0], [0, 5.0, 5.0, 5.0]]), atol=1e-4)
    assert network.table.weight.requires_grad
    assert network.table.weight.grad is None


def test_inputs_that_cannot_be_attributed_say_why():
    with pytest.raises(UsageError, match="no embedding"):
        attributions(Looks(), torch.ones(1, 1, 8, 8).long(), torch.tensor([0]), lambda out: out)


def test_rank_correlation_is_scipys_and_overlap_counts_the_top():
    scipy = pytest.importorskip("scipy.stats")
    a, b = np.random.default_rng(0).integers(0, 9, (2, 4, 30))  # with ties
    found = spearman(torch.from_numpy(a), torch.from_numpy(b))
    wanted = [scipy.spearmanr(x, y).statistic for x, y in zip(a, b, strict=True)]
    assert torch.allclose(found, torch.tensor(wanted, dtype=torch.float64))
    assert spearman(torch.ones(1, 5), torch.rand(1, 5)).isnan().all()
    x = torch.arange(20.0)[None]
    assert top_overlap(x, x).item() == 1
    assert top_overlap(x, -x).item() == 0
    with pytest.raises(UsageError, match="do not compare"):
        top_overlap(x, x[:, 1:])


def test_cka_is_one_for_turned_features_and_small_for_others():
    x = torch.randn(200, 6, generator=RANDOM)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=RANDOM)).Q
    assert linear_cka(x, 3 * x @ turn + 1) == pytest.approx(1)
    assert linear_cka(x, torch.randn(200, 6, generator=RANDOM)) < 0.15
    wide = torch.randn(20, 50, generator=RANDOM)  # by Gram matrices
    assert linear_cka(wide, wide[:, :40] * 1.0) == pytest.approx(
        float(
            ((c := wide - wide.mean(0))[:, :40].T @ c).square().sum()
            / ((c[:, :40].T @ c[:, :40]).norm() * (c.T @ c).norm())
        ),
        rel=1e-5,
    )
    assert linear_cka(torch.ones(5, 2), x[:5]) == 0


def test_depth_is_told_for_places_that_both_have():
    torch.manual_seed(0)
    whole = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 3))
    slim = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 3), nn.Flatten(), nn.Linear(128, 3))
    batches = [torch.randn(16, 1, 8, 8, generator=RANDOM) for _ in range(2)]
    found = cka_by_depth(whole, slim, batches)
    assert [row["module"] for row in found] == ["0", "2", "4"]
    assert all(0 <= row["cka"] <= 1 for row in found)
    assert [row["cka"] for row in cka_by_depth(whole, whole, batches)] == pytest.approx([1, 1, 1])
