"""Time is scripted: a stopwatch that runs the call and reads from a list, so nothing here can flake."""

import ctypes
import gc
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count

import pytest
import torch
from torch import nn

from penjing.core import UsageError
from penjing.measure import Complexity, Timekeeper, eta, latency, measure, speedup
from penjing.measure._clock import undisturbed

X = torch.randn(1, 3)


class Named(nn.Module):
    """Notes its name in a shared log whenever it runs."""

    def __init__(self, name: str, log: list[str]) -> None:
        super().__init__()
        self.name, self.log = name, log
        self.fc = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.log.append(f"{self.name}{len(x)}")
        return self.fc(x)


def scripted(readings: Iterator[float]) -> Callable[[Callable[[], object]], float]:
    def watch(call: Callable[[], object]) -> float:
        call()
        return next(readings)

    return watch


def test_median_and_mad_of_the_readings_after_warm_up() -> None:
    readings = iter([100.0] * 20 + [10.0, 12.0, 11.0, 50.0, 9.0])
    found = latency(nn.Linear(3, 2), X, repeats=5, stopwatch=scripted(readings))
    assert (found.value, found.spread, found.unit, found.repeats) == (11.0, 1.0, "ms", 5)
    assert (found.runtime, found.dtype, found.batch_size) == ("eager", "float32", 1)
    assert found.device.startswith("cpu")


def test_fifty_repeats_unless_they_take_too_long() -> None:
    quick = latency(nn.Linear(3, 2), X, stopwatch=scripted(iter([1.0] * 100)))
    assert quick.repeats == 50
    capped = latency(nn.Linear(3, 2), X, seconds=1.0, stopwatch=scripted(iter([100.0] * 100)))
    assert capped.repeats == 11
    slow = latency(nn.Linear(3, 2), X, seconds=1.0, stopwatch=scripted(iter([9000.0] * 100)))
    assert slow.repeats == 5


def test_warm_up_is_bounded_too() -> None:
    log: list[str] = []
    latency(Named("a", log), X, repeats=1, seconds=1.0, stopwatch=scripted(iter([9000.0] * 100)))
    assert len(log) == 1 + 3 + 1
    log.clear()
    latency(Named("a", log), X, repeats=1, warmup=20, stopwatch=scripted(iter([1.0] * 100)))
    assert len(log) == 1 + 20 + 1


@pytest.mark.parametrize(("examples", "asked", "run"), [(1, 4, 4), (3, 7, 7), (3, 2, 2), (3, None, 3)])
def test_inputs_are_rebatched_along_dim_0(examples: int, asked: int | None, run: int) -> None:
    log: list[str] = []
    found = latency(Named("a", log), torch.randn(examples, 3), batch_size=asked, repeats=1, warmup=0)
    assert set(log) == {f"a{run}"}
    assert found.batch_size == run


def test_only_tensors_of_the_batch_are_rebatched() -> None:
    class Mixed(nn.Module):
        def forward(self, x: torch.Tensor, extra: list[torch.Tensor], flag: bool) -> torch.Tensor:
            assert [len(x), len(extra[0]), extra[1].dim(), flag] == [6, 5, 0, True]
            return x

    inputs = (torch.randn(2, 3), [torch.randn(5), torch.tensor(1)], True)
    assert latency(Mixed(), inputs, batch_size=6, repeats=1, warmup=0).batch_size == 6


def test_conditions_are_steady_inside_and_restored_after() -> None:
    inside: list[object] = []

    class Spy(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            denormal = torch.full((), 1e-310, dtype=torch.float64) * 1
            flushed = denormal.item() == 0
            inside.append((torch.get_num_threads(), flushed, gc.isenabled(), self.training))
            assert torch.is_inference_mode_enabled()
            return super().forward(x)

    model = Spy(3, 2)
    found = latency(model, X, threads=2, repeats=1, warmup=0)
    assert set(inside) == {(2, True, False, False)}
    assert found.threads == 2
    assert torch.get_num_threads() == 1
    assert gc.isenabled()
    assert model.training
    assert (torch.full((), 1e-310, dtype=torch.float64) * 1).item() != 0


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="no glibc")
def test_what_a_forward_frees_is_not_asked_for_anew() -> None:
    """Three tensors of 12 MB go back to the system at every turn where glibc maps them; in steady conditions, none."""
    code = """
import ctypes, resource, torch
from penjing.runtimes import steady
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    held = [torch.ones(3 << 20) for _ in range(3)]
    del held
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
ctypes.CDLL(None).mallopt(-3, 1 << 17)  # M_MMAP_THRESHOLD as it is at first, for good
plain = [faults() for _ in range(6)]
with steady(1):
    inside = sorted(faults() for _ in range(12))
print(min(plain), inside[5])  # half of the turns: the heap may still grow in some
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    plain, inside = map(int, done.stdout.split())
    assert plain > 5000
    assert inside < 100


def test_the_users_inputs_are_not_written_to() -> None:
    x = torch.randn(2, 3)
    kept = x.clone()
    measure(nn.ReLU(inplace=True), x, repeats=1, warmup=0)
    assert torch.equal(x, kept)


def test_speedup_takes_turns_and_goes_backwards_every_other_round() -> None:
    log: list[str] = []

    def watch(call: Callable[[], object]) -> float:
        call()
        return 30.0 if log[-1].startswith("a") else 10.0

    found = speedup(Named("a", log), Named("b", log), X, batch_size=2, rounds=4, warmup=0, stopwatch=watch)
    assert log[2:] == ["a2", "b2", "b2", "a2"] * 2
    assert (found.ratio, found.low, found.high) == (3.0, 3.0, 3.0)
    assert (found.a.value, found.b.value, found.a.repeats, found.b.batch_size) == (30.0, 10.0, 4, 2)
    assert str(found) == "3.00x [3.00, 3.00] at batch 2"
    assert found.to_dict()["b"]["value"] == 10.0


def test_a_network_against_itself_has_one_inside_the_interval() -> None:
    model = nn.Linear(3, 2)
    noise = torch.Generator().manual_seed(0)
    readings = (10 + torch.randn((), generator=noise).item() for _ in count())
    found = speedup(model, model, X, rounds=50, stopwatch=scripted(readings))
    assert found.low < 1 < found.high
    assert found.low <= found.ratio <= found.high
    assert found.high - found.low < 0.2


def test_the_interval_pairs_rounds() -> None:
    """Drift that both share in a round leaves the ratio alone; the interval knows by drawing whole rounds."""
    log: list[str] = []

    def watch(call: Callable[[], object]) -> float:
        call()
        drift = 1.0 + (len(log) - 1) // 2 % 7
        return drift * (2.0 if log[-1].startswith("a") else 1.0)

    found = speedup(Named("a", log), Named("b", log), X, rounds=35, warmup=0, stopwatch=watch)
    assert found.ratio == pytest.approx(2.0)
    assert found.low == pytest.approx(2.0)
    assert found.high == pytest.approx(2.0)


def test_speedup_stops_at_its_seconds_after_five_rounds() -> None:
    model = nn.Linear(3, 2)
    found = speedup(model, model, X, seconds=1.0, stopwatch=scripted(iter([5000.0] * 100)))
    assert found.a.repeats == found.b.repeats == 5


def test_speedup_refuses_two_environments() -> None:
    with pytest.raises(UsageError, match="dtype is float32 in one network and float64 in the other"):
        speedup(nn.Linear(3, 2), nn.Linear(3, 2).double(), X)
    with pytest.raises(UsageError, match="meta device"):
        speedup(nn.Linear(3, 2), nn.Linear(3, 2, device="meta"), X)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"runtime": "eagr"}, "did you mean 'eager'"),
        ({"runtime": "tvm"}, "Known: eager"),
        ({"batch_size": 0}, "at least 1 example"),
        ({"threads": 0}, "at least 1 thread"),
        ({"repeats": 0}, "repeats=0"),
        ({"seconds": 0.0}, "seconds=0.0"),
        ({"device": "meta"}, "meta device"),
        ({"device": "nowhere"}, "'nowhere' cannot be used here"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        measure(nn.Linear(3, 2), X, **options)  # type: ignore[arg-type]


def test_empty_or_foreign_inputs_are_refused() -> None:
    with pytest.raises(UsageError, match="hold no example"):
        latency(nn.Linear(3, 2), torch.randn(0, 3), batch_size=2)
    with pytest.raises(UsageError, match="does not run"):
        latency(nn.Linear(3, 2), torch.randn(1, 4))


def test_measure_gathers_everything_and_goes_through_json() -> None:
    found = measure(nn.Linear(3, 2), X, batch_size=8, repeats=5, warmup=0)
    assert (found.params, found.macs, found.size_bytes) == (8, 6, 32)
    assert found.latency is not None
    assert found.latency.batch_size == 8
    assert found.peak_memory is not None
    assert found.peak_memory.batch_size == 8
    assert Complexity.from_json(found.to_json()) == found


def test_counts_alone_work_on_meta() -> None:
    found = measure(nn.Linear(3, 2, device="meta"), X, latency=False, memory=False)
    assert found == Complexity(params=8, macs=6, size_bytes=32)
    assert Complexity.from_json(found.to_json()) == found
    with pytest.raises(UsageError, match="negative"):
        Complexity(params=-1, macs=0, size_bytes=0)


def test_eta_is_the_share_of_the_cut_that_arrives() -> None:
    assert eta(2.0, 1000, 500) == 1.0
    assert eta(1.2, 1000, 500) == pytest.approx(0.6)
    with pytest.raises(UsageError, match="positive"):
        eta(1.0, 100, 0)


@pytest.mark.gpu
def test_cuda_events_give_milliseconds() -> None:
    found = measure(nn.Linear(256, 256), torch.randn(4, 256), device="cuda", repeats=5)
    assert found.latency is not None
    assert 0 < found.latency.value < 1000
    assert found.latency.device.startswith("cuda:")
    assert found.peak_memory is not None
    assert found.peak_memory.value >= (256 * 256 + 256 + 4 * 256 * 2) * 4


def test_on_one_thread_the_search_does_not_count_time_spent_elsewhere() -> None:
    def rest() -> None:
        time.sleep(0.2)

    assert undisturbed(torch.device("cpu"), 1)(rest) < 100
    assert undisturbed(torch.device("cpu"), 2)(rest) >= 200


def test_the_search_reads_the_middle_half_of_its_readings() -> None:
    """The reference takes 4 ms and the other 2 ms; every fourth reading of either is disturbed."""
    models = [nn.Linear(4, 4), nn.Linear(4, 4)]
    readings: dict[str, Iterator[int]] = {}

    def watch(call: Callable[[], object]) -> float:
        model = call.__self__.model  # type: ignore[attr-defined]
        taken = 4.0 if model is models[0] else 2.0
        return 50.0 if next(readings.setdefault(repr(taken), count())) % 4 == 3 else taken

    with Timekeeper(
        reference=models[0], example_inputs=torch.randn(2, 4), threads=1, stopwatch=watch
    ) as keeper:
        found = keeper.time(models[1], operators=False)
    assert keeper.milliseconds == 4.0
    assert found.milliseconds == pytest.approx(2.0)
