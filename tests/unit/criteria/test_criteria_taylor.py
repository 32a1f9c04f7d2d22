"""Taylor scores of sequences: dict inputs, and padding that must not count."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import penjing as pj
from penjing.criteria._calibration import run_batch
from penjing.criteria._registry import Context, prepare_criterion, unit_scores


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.heads = 2
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.q, self.k, self.v, self.out = (nn.Linear(8, 8) for _ in range(4))
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        y = self.norm1(x)
        q, k, v = (f(y).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :].bool())
        x = x + self.out(y.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Encoder(nn.Module):
    """`pool`: the masked mean's class per text; else one per token."""

    def __init__(self, pool: bool) -> None:
        super().__init__()
        self.words, self.layer, self.head, self.pool = nn.Embedding(20, 8), Layer(), nn.Linear(8, 3), pool

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = self.layer(self.words(ids), mask)
        weights = mask[..., None].float()
        return self.head((x * weights).sum(1) / weights.sum(1) if self.pool else x)


def encoder(pool: bool) -> Encoder:
    torch.manual_seed(0)
    return Encoder(pool).eval()


def batch(more: int, pool: bool) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    torch.manual_seed(1)
    ids = torch.randint(1, 20, (4, 6))
    lengths = torch.tensor([6, 4, 3, 6])
    mask = (torch.arange(6) < lengths[:, None]).long()
    tags = torch.where(mask > 0, ids % 3, -100)
    ids, mask = F.pad(ids * mask, (0, more)), F.pad(mask, (0, more))
    return {"ids": ids, "mask": mask}, ids[:, 0] % 3 if pool else F.pad(tags, (0, more), value=-100)


def loss(outputs: torch.Tensor, batch) -> torch.Tensor:
    return F.cross_entropy(outputs.flatten(0, -2), batch[1].flatten(), ignore_index=-100)


@pytest.mark.parametrize("pool", [True, False])
def test_padding_a_batch_further_changes_no_score(pool):
    model = encoder(pool)
    groups = pj.trace(model, batch(0, pool)[0]).groups
    scores = [
        prepare_criterion("taylor", model, Context(calibration=[batch(more, pool)], loss=loss))
        for more in (0, 5)
    ]
    kinds = set()
    for group in groups:
        first, second = (torch.from_numpy(unit_scores(score, group, model)) for score in scores)
        assert float(first.sum()) > 0
        # fp32 gradients summed over other lengths; sums in float64
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-7)
        kinds.add(group.granularity)
    assert {"neuron", "head", "embed"} <= kinds


def test_a_dict_is_keyword_arguments_alone_or_first_in_a_pair():
    model, (inputs, targets) = encoder(True), batch(0, True)
    alone, paired = run_batch(model, inputs), run_batch(model, (inputs, targets))
    assert alone.shape == (4, 3)
    assert torch.equal(alone, paired)
