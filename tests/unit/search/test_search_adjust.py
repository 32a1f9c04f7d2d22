"""The walk over adjustments: what it prices, what it does first, and when it stops."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from penjing.measure import Timing, count_macs
from penjing.search import Adjusting, Walk, saved
from penjing.search._adjust import Evaluate, _overlap
from penjing.surgery import told

X = torch.randn(8, 4, 8, 8)


class Residual(nn.Module):
    """x + scale * f(x): how much it matters is `scale`."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.f = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.scale * self.f(x)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    blocks = [Residual(scale) for scale in (1.0, 0.01, 0.3)]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()


def distance(model: nn.Module) -> Callable[[nn.Module], float]:
    """From what the whole network gives: a loss of its own is 1."""
    with torch.no_grad():
        whole = model(X)

    @torch.no_grad()
    def loss(other: nn.Module) -> float:
        return 1 + float((other(X) - whole).square().mean())

    return loss


class Keeper:
    """1 ms and 1 ms for 10,000 MACs; kernels of 1x1 are slow."""

    def time(self, model: nn.Module, *, operators: bool = True) -> Timing:
        slow = sum(m.kernel_size == (1, 1) for m in model.modules() if isinstance(m, nn.Conv2d))
        return Timing(milliseconds=1 + count_macs(model, X) / 1e4 + 50 * slow, spread=0.0, operators={})


def walk(target: float, most: int = 9, **options: Any) -> Walk:
    model = network()
    about: dict[str, Any] = {"model": model, "example_inputs": X, "keeper": Keeper(), "batches": [X] * 4}
    about |= {"evaluate": distance(model), **options}
    return Adjusting(**about).walk(target, most)


def test_what_costs_least_loss_for_its_time_goes_first_and_gives_way_to_what_saves_more() -> None:
    found = walk(0.7, kinds=("drop", "branch"))
    first, after = found.done[0]
    assert first.says == "1: dropped"
    assert after.milliseconds is not None
    assert found.start.milliseconds is not None
    assert after.milliseconds < found.start.milliseconds
    assert after.loss == pytest.approx(1, abs=1e-2)
    assert found.start.loss == 1


def test_many_are_priced_at_a_glance_and_done_with_all_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penjing.search._adjust.MANY", 0)
    model, seen = network(), {"few": 0, "all": 0}

    def counted(name: str) -> Evaluate:
        loss = distance(model)

        def evaluate(other: nn.Module) -> float:
            seen[name] += 1
            return loss(other) + (5.0 if name == "few" else 0.0)

        return evaluate

    whole = walk(0.5)
    found = walk(0.5, evaluate=counted("all"), glance=([X], counted("few")))
    assert seen["few"] > 1 + len(found.options)
    assert seen["all"] < 1 + len(found.options)
    assert found.done[-1][1].milliseconds == pytest.approx(whole.done[-1][1].milliseconds, rel=0.3)
    assert max(one.alone.loss or 0 for one in found.options) < 5  # told as of all examples


def test_what_does_not_run_is_no_option(monkeypatch: pytest.MonkeyPatch) -> None:
    import penjing.search._adjust as module

    whole = walk(0.5)
    broken, made = whole.options[0].says, module._with

    def with_a_fault(model: nn.Module, edit: Any) -> nn.Module:
        if told(edit) == broken:
            raise AttributeError("'Identity' object has no attribute 'eps'")
        return made(model, edit)

    monkeypatch.setattr(module, "_with", with_a_fault)
    found = walk(0.5)
    assert broken not in [one.says for one in found.options]
    assert len(found.options) == len(whole.options) - 1
    assert found.done


def test_what_was_looked_at_in_time_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(10_000))
    monkeypatch.setattr("penjing.search._adjust.time.monotonic", lambda: next(now))
    found = walk(0.2, seconds=100)
    assert found.options
    assert found.done


def test_it_stops_at_its_target_or_its_number_and_never_changes_a_place_twice() -> None:
    deep = walk(0.05)
    edits = [option.edit for option, _ in deep.done]
    assert len(edits) >= 2
    assert not any(_overlap(a, b) for i, a in enumerate(edits) for b in edits[:i])
    times = [deep.start.milliseconds, *(after.milliseconds for _, after in deep.done)]
    assert times == sorted(times, reverse=True)  # type: ignore[type-var]
    assert len(walk(0.05, most=1).done) == 1
    assert not walk(1.0).done


def test_what_the_clock_calls_slower_is_never_done_though_it_saves_macs() -> None:
    by_time, by_macs = walk(0.2), walk(0.2, metric="macs", keeper=None)
    assert not any(o.edit.kind in ("kernel", "bridge", "separable") for o in by_time.options)
    assert any(o.edit.kind == "kernel" for o in by_macs.options)
    assert by_macs.start.milliseconds is None
    assert all(" MACs, " in text for text in by_macs.sentences(9))


def test_every_option_tells_its_error_and_loss() -> None:
    found = walk(0.9, metric="macs", keeper=None)
    judged = {option.says: option for option in found.options}
    assert judged["1"[:1] + ": dropped"].error == pytest.approx(0, abs=1e-2)
    for option in found.options:
        assert option.alone.loss is not None
        assert option.alone.macs < found.start.macs
    assert found.options[0].to_dict()["says"] == found.options[0].says
    strided = [option for option in found.options if option.edit.kind == "stride"]
    assert all(option.error is None for option in strided)


def test_a_walk_without_time_does_nothing_and_says_so() -> None:
    found = walk(0.5, seconds=-1.0)
    assert (found.done, found.options, found.late) == ((), (), True)


def test_losses_that_are_no_numbers_are_not_taken() -> None:
    model = network()

    def broken(other: nn.Module) -> float:
        return 1.0 if len(list(other.parameters())) == len(list(model.parameters())) else float("nan")

    found = walk(0.2, evaluate=broken, kinds=("drop",))
    assert not found.done
    assert found.options
    assert found.options[0].to_dict()["loss"] is None


def test_equal_walks_are_equal() -> None:
    assert walk(0.3).sentences(9) == walk(0.3).sentences(9)


def test_sentences_tell_each_step_by_itself() -> None:
    found = walk(0.3)
    weights = [found.start, *(after for _, after in found.done)]
    for text, before, after in zip(found.sentences(9), weights, weights[1:], strict=False):
        assert text.endswith(saved(before, after))


def test_a_network_that_reads_values_is_walked_too() -> None:
    class Reading(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return self.inner(x if mask.sum().item() > 0 else -x)

    model, inputs = Reading().eval(), (X, torch.ones(8, dtype=torch.long))
    about: dict[str, Any] = {
        "model": model,
        "example_inputs": inputs,
        "keeper": None,
        "batches": [inputs] * 4,
    }
    with torch.no_grad():
        whole = model(*inputs)

    @torch.no_grad()
    def distant(other: nn.Module) -> float:
        return float((other(*inputs) - whole).square().mean())

    assert Adjusting(**about, metric="macs", evaluate=distant).walk(0.5, 2).done
