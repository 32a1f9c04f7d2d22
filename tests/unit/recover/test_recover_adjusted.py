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
