"""Whether training may run other code, read from the source of the network's methods."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import penjing as pj
from penjing.structure._tracing._trace import trace_forward
from penjing.structure._training import trains_otherwise


class HandsOn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.rate = nn.Linear(4, 4), 0.1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.dropout(self.fc(x), self.rate, self.training)
        return nn.functional.dropout(x, p=self.rate if self.training else 0.0)


def passes_on(x: torch.Tensor, rate: float, training: bool) -> torch.Tensor:
    return F.dropout(x, rate, training=training)


def reshapes(x: torch.Tensor, training: bool) -> torch.Tensor:
    return x.view(-1, 2, 2).flatten(1) if training else x


class ThroughAFunction(HandsOn):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return passes_on(self.fc(x), self.rate, self.training)


class IntoABranch(HandsOn):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return reshapes(self.fc(x), self.training)


class Branches(HandsOn):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.fc(x)
        if self.training:
            x = x.view(-1, 2, 2).flatten(1)
        return x


class Renames(HandsOn):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        busy = self.training
        return reshapes(self.fc(x), busy)


class PicksATensor(HandsOn):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.fc(x)
        return x if self.training else y


class Guarded(HandsOn):
    def __init__(self, on: bool = False) -> None:
        super().__init__()
        self.checkpointing = on

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.checkpointing and self.training:
            x = x.view(-1, 2, 2).flatten(1)
        return self.fc(x)


class GuardedByARate(HandsOn):
    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.jitter = rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and self.jitter > 0:
            x = x.view(-1, 2, 2).flatten(1)
        return self.fc(x)


class AsksElsewhere(HandsOn):
    def reset(self) -> None:
        if self.training:
            self.fc = nn.Linear(4, 8)


class AsksInAMethod(HandsOn):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x)

    def head(self, x: torch.Tensor) -> torch.Tensor:
        return self.wide(self.fc(x))

    def wide(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(-1, 2, 2).flatten(1) if self.training else x


class AsksInAProperty(HandsOn):
    @property
    def busy(self) -> bool:
        return self.training

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x).view(-1, 2, 2).flatten(1) if self.busy else self.fc(x)


class Normalise(nn.BatchNorm1d):
    """A copy of torch's own forward, as in libraries that fold an activation into a norm."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        factor = 0.0 if self.momentum is None else self.momentum
        if self.training and self.track_running_stats and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:
                factor = 1.0 / float(self.num_batches_tracked)
            else:
                factor = self.momentum
        r"""Batch statistics when it trains."""
        if self.training:
            batch = True
        else:
            batch = (self.running_mean is None) and (self.running_var is None)
        return F.batch_norm(
            x,
            self.running_mean if not self.training or self.track_running_stats else None,
            self.running_var if not self.training or self.track_running_stats else None,
            self.weight,
            self.bias,
            batch,
            factor,
            self.eps,
        )


class SetsASize(HandsOn):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            parts = 2
        else:
            parts = 1
        return self.fc(x).view(-1, parts, 4 // parts).flatten(1)


class SetsAFlag(HandsOn):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        busy = False
        if self.training:
            busy = True
        return reshapes(self.fc(x), busy)


class PicksAWeight(HandsOn):
    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Parameter(torch.randn(4, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            weight = self.other * 2
        else:
            weight = 1
        return F.linear(self.fc(x), weight * torch.eye(4))


class ChoosesAWeight(PicksAWeight):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.other if self.training else self.fc.weight)


class Remembers(HandsOn):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.cache = nn.Parameter(torch.randn(3, 4)), dict[str, torch.Tensor]()

    def biases(self, device: torch.device) -> torch.Tensor:
        if torch.jit.is_tracing() or self.training:
            return self.table[0]
        else:
            key = str(device)
            if key not in self.cache:
                self.cache[key] = self.table[0]
            return self.cache[key]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x) + self.biases(x.device)


class RemembersHalf(Remembers):
    def biases(self, device: torch.device) -> torch.Tensor:
        if self.training:
            return self.table[0]
        if "half" not in self.cache:
            self.cache["half"] = self.table[1]
        return self.cache["half"]


class Noise(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return x
        return x * torch.empty((len(x), 1), device=x.device).bernoulli_(0.9)


class Folds(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(-1, 2, 2).flatten(1) if self.training else x


@pytest.mark.parametrize(
    "model",
    [
        HandsOn(),
        ThroughAFunction(),
        Guarded(),
        GuardedByARate(),
        AsksElsewhere(),
        Remembers(),
        nn.Sequential(nn.Linear(4, 4), Noise()),
        nn.Sequential(nn.Linear(4, 4), Normalise(4)),
    ],
)
def test_flags_that_change_no_structure(model: nn.Module):
    assert not trains_otherwise(model, trace_forward(model.eval(), torch.randn(2, 4)).graph)


@pytest.mark.parametrize(
    "model",
    [
        IntoABranch(),
        Branches(),
        Renames(),
        PicksATensor(),
        Guarded(on=True),
        GuardedByARate(0.1),
        AsksInAMethod(),
        AsksInAProperty(),
        nn.Sequential(Folds()),
        SetsASize(),
        SetsAFlag(),
        PicksAWeight(),
        ChoosesAWeight(),
        RemembersHalf(),
    ],
)
def test_flags_that_may(model: nn.Module):
    assert trains_otherwise(model, trace_forward(model.eval(), torch.randn(2, 4)).graph)


def test_code_without_source_counts_as_a_branch():
    scope: dict[str, object] = {"nn": nn}
    exec(
        "class M(nn.Module):\n    def forward(self, x):\n        return x.view(-1) if self.training else x",
        scope,
    )
    model = scope["M"]()  # type: ignore[operator]
    assert trains_otherwise(model, trace_forward(model.eval(), torch.randn(2, 4)).graph)


def test_a_size_that_only_training_fixes_is_kept():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 8), Eights(), nn.Linear(8, 2)).eval()
    structure = pj.trace(model, torch.randn(2, 3))
    assert len(structure.traces) == 2
    assert {g.name for g in structure.groups} == {"0.weight:0"}
    assert any("literal" in f.cause for f in structure.frozen if f.parameter == "2.weight" and f.dim == 0)


def test_buffers_that_nothing_reads_need_no_training_forward():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    model[0].register_buffer("unread", torch.randn(4))
    structure = pj.trace(model, torch.randn(2, 3))
    assert len(structure.traces) == 1
    assert any("not reached" in f.cause for f in structure.frozen if f.parameter == "0.unread")
    model[0].register_parameter("unread_too", nn.Parameter(torch.randn(4)))
    assert len(pj.trace(model, torch.randn(2, 3)).traces) == 2


class Eights(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(-1, 8) if self.training else x
