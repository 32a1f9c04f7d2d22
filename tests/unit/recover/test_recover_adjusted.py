"""New components are fitted to what the old ones gave."""

import pytest
import torch
from torch import nn

import penjing as pj
from penjing.recover import fit_adjusted
from penjing.surgery import adjust, adjustments


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, padding=2), nn.BatchNorm2d(8), nn.SiLU(),
        nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 20), nn.ReLU(), nn.Linear(20, 5),
    ).eval()  # fmt: skip


def smooth(examples: int, seed: int) -> torch.Tensor:
    """Pictures whose neighbours are alike, as those of the world are."""
    noise = torch.randn(examples, 3, 14, 14, generator=torch.Generator().manual_seed(seed))
    return nn.functional.avg_pool2d(noise, 3, 1)


BATCHES = list(smooth(192, 1).split(16))


@pytest.mark.parametrize(
    "says",
    [
        "0: its kernel shrank to 3x3",
        "0: made depthwise separable, 1 kernels per channel",
        "3: dropped, bridged by a 1x1 convolution",
        "4 to 8: the head became the mean over places and one layer",
        "6 to 8: merged into one linear, inexactly",
    ],
)
def test_the_fit_is_the_least_squares_one(says: str) -> None:
    """Held-out outputs of the component are nearer to the original's than before, and the report tells by how much."""
    model = network()
    edit = next(one.edit for one in adjustments(model, BATCHES[0]) if one.says == says)
    assert edit is not None
    slim, plan = adjust(model, BATCHES[0], [edit])
    again = pj.apply(model, plan)
    (told,) = fit_adjusted(model, slim, plan, BATCHES)
    assert (told.says, told.why) == (says, "")
    assert told.before is not None
    assert told.after is not None
    assert told.after < 0.95 * told.before
    end, unseen = int(edit.modules[-1]) + 1, smooth(64, 2)
    with torch.no_grad():
        answers = [net[:end](unseen) for net in (model, again, slim)]  # type: ignore[index]
    missed = [float((answer - answers[0]).square().mean()) for answer in answers[1:]]
    assert missed[1] < missed[0]


def test_what_cannot_be_fitted_says_why() -> None:
    model = network()
    every = {one.says: one.edit for one in adjustments(model, BATCHES[0]) if one.edit is not None}
    edits = [every["3: dropped"], every["2: its activation became relu"], every["0: its stride grew to 2x2"]]
    slim, plan = adjust(model, BATCHES[0], edits)
    reasons = [told.why for told in fit_adjusted(model, slim, plan, BATCHES)]
    assert reasons[:2] == ["it has no layer to fit"] * 2
    assert "it gives (16, 8, 6, 6) where (16, 8, 12, 12) was given" in reasons[2]


def test_labelled_batches_and_wrong_use() -> None:
    model = network()
    edit = next(
        one.edit for one in adjustments(model, BATCHES[0]) if one.kind == "kernel" and one.edit is not None
    )
    slim, plan = adjust(model, BATCHES[0], [edit])
    labelled = [(batch, torch.zeros(16)) for batch in BATCHES]
    assert fit_adjusted(model, slim, plan, labelled, inputs=lambda batch: batch[0])[0].after is not None
    with pytest.raises(pj.UsageError, match="batches is empty"):
        fit_adjusted(model, slim, plan, [])
    _, pruning = pj.prune(model, BATCHES[0], ratio=0.5)
    with pytest.raises(pj.UsageError, match="fit them first, then remove units"):
        fit_adjusted(model, slim, pruning, BATCHES)


def test_whitened_factors_miss_less_than_those_of_the_weight_alone() -> None:
    """For inputs of unlike sizes; and what is missed is what theory says: the singular values left out of W L."""
    from penjing.recover._whiten import whitened

    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(12, 20, generator=generator, dtype=torch.float64)
    x = torch.randn(400, 20, generator=generator, dtype=torch.float64) * torch.logspace(-2, 1, 20)
    moments = x.T @ x
    left, right = whitened(weight, moments, 5)
    missed = float((x @ (weight - left @ right).T).square().sum())
    u, s, v = torch.linalg.svd(weight)
    plain = u[:, :5] * s[:5] @ v[:5]
    assert missed < 0.5 * float((x @ (weight - plain).T).square().sum())
    values = torch.linalg.svdvals(weight @ torch.linalg.cholesky(moments))
    assert missed == pytest.approx(float(values[5:].square().sum()), rel=0.02)


def test_layers_that_give_a_result_together_are_fitted_together() -> None:
    class Mixing(nn.Module):
        """Attention whose weights are all equal: what a mean can stand in for."""

        def __init__(self) -> None:
            super().__init__()
            self.v = nn.Linear(6, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            weights = (0 * (x @ x.transpose(1, 2))).softmax(-1)
            return x @ self.v.weight + weights @ self.v(x)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mixing, self.head = Mixing(), nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.mixing(x))

    torch.manual_seed(0)
    model, batches = Net().eval(), [torch.randn(16, 7, 6) for _ in range(8)]
    edit = next(
        o.edit
        for o in adjustments(model, batches[0])
        if o.kind == "mix" and o.edit and "neighbours" not in o.says
    )
    slim, plan = adjust(model, batches[0], [edit])
    (told,) = fit_adjusted(model, slim, plan, batches)
    assert told.before is not None
    assert told.before > 0.1
    assert told.after == pytest.approx(0, abs=1e-6)
    unseen = torch.randn(4, 9, 6)
    torch.testing.assert_close(slim(unseen), model(unseen), atol=1e-3, rtol=1e-3)
