"""Fresh memory holds the same numbers, asked for in huge pages or not."""

import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import penjing as pj
from penjing.structure import cloned, fresh, together
from penjing.structure._network import _pages

LARGE = 1 << 20  # elements: several huge pages
TO_DOUBLE = {torch.float32: torch.float64, torch.bfloat16: torch.float64}


@pytest.fixture(autouse=True)
def _looked_up_anew() -> Iterator[None]:
    _pages._huge_pages.cache_clear()
    yield
    _pages._huge_pages.cache_clear()


@pytest.fixture(params=["as here", "on request", "always", "another system", "without madvise"])
def system(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A system that gives huge pages on request, or one of those that do not."""
    kind = request.param
    if kind == "as here":
        return kind
    monkeypatch.setattr(_pages, "_SYSTEM", tmp_path)
    if kind != "another system":
        known = "[always] madvise never" if kind == "always" else "always [madvise] never"
        (tmp_path / "enabled").write_text(known + "\n")
        (tmp_path / "hpage_pmd_size").write_text("2097152\n")
    if kind == "without madvise":
        monkeypatch.setattr(_pages.ctypes, "CDLL", lambda name: object())
    return kind


def asked(monkeypatch: pytest.MonkeyPatch, size: int = 1 << 21, seconds: float = 1e-4) -> list[int]:
    """The pages that are asked for, each of which takes so many CPU seconds."""
    found: list[int] = []
    monkeypatch.setattr(_pages, "_huge_pages", lambda: (size, found.append))
    monkeypatch.setattr(_pages, "_SLOW", [])
    monkeypatch.setattr(_pages.time, "thread_time", lambda: len(found) * seconds)
    return found


def tensors() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    large = torch.randn(LARGE, generator=generator)
    return [
        large, large.view(4, 256, 32, 32).to(memory_format=torch.channels_last), large.view(1024, -1).t(),
        large[:7].bfloat16(), large[:6].view(2, 3).expand(4, 2, 3), large[::3], large[0], large[:0],
        torch.arange(5), torch.ones(3, dtype=torch.bool), large[:4].view(torch.complex64),
        large[:9].to("meta"), nn.Parameter(large[:8].clone()),
    ]  # fmt: skip


def test_copies_are_copies_on_every_system(system: str):
    found = together(tensors(), TO_DOUBLE)
    for tensor, shared in zip(tensors(), found, strict=True):
        dtype = TO_DOUBLE.get(tensor.dtype, tensor.dtype)
        expected = tensor.detach().to(dtype, copy=True)
        for copy in (shared, cloned(tensor, dtype)):
            assert type(copy) is torch.Tensor
            assert not copy.requires_grad
            assert (copy.dtype, copy.stride(), copy.storage_offset()) == (dtype, expected.stride(), 0)
            assert torch.equal(copy, expected) if not tensor.is_meta else copy.is_meta
    assert fresh((2, LARGE), torch.float32).shape == (2, LARGE), system


def test_copies_in_shared_memory_are_apart():
    found = together([torch.randn(n) for n in (5, 8, 17)], TO_DOUBLE)
    expected = [copy.clone() for copy in found]
    for copy, kept in zip(found, expected, strict=True):
        copy.fill_(1)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True) if a is not copy)
        copy.copy_(kept)


def test_what_is_asked_for_lies_inside_the_tensor(monkeypatch: pytest.MonkeyPatch):
    found = asked(monkeypatch)
    tensor = fresh((LARGE,), torch.float32)
    assert found
    assert all(page % (1 << 21) == 0 for page in found)
    assert tensor.data_ptr() <= found[0]
    assert found[-1] + (1 << 21) <= tensor.data_ptr() + 4 * LARGE


def test_huge_pages_that_take_long_are_given_up(monkeypatch: pytest.MonkeyPatch):
    found = asked(monkeypatch, 4096, seconds=5e-3)
    for _ in range(9):
        assert torch.equal(
            cloned(torch.arange(5000.0), torch.float64), torch.arange(5000.0, dtype=torch.float64)
        )
    assert len(found) == _pages._PATIENCE


def test_nothing_is_asked_for_small_or_absent_memory(monkeypatch: pytest.MonkeyPatch):
    found = asked(monkeypatch)
    fresh((1000,), torch.float32)
    fresh((LARGE,), torch.float32, "meta")
    assert not found


class Wide(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(1000, 64)
        self.one, self.two = nn.Linear(64, 96), nn.Linear(96, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(torch.relu(self.one(self.table(x).mean(1))))


def test_pruned_networks_are_the_same_with_huge_pages(monkeypatch: pytest.MonkeyPatch):
    example = torch.arange(12).view(3, 4)
    plain, plan = pj.prune(Wide(), example, ratio=0.5)
    found = asked(monkeypatch, 4096)
    hinted, same = pj.prune(Wide(), example, ratio=0.5)
    assert found
    assert plan == same
    assert pj.verify(Wide(), hinted, plan, example).passed
    for (name, tensor), other in zip(plain.state_dict().items(), hinted.state_dict().values(), strict=True):
        assert torch.equal(tensor, other), name
        assert other.untyped_storage().nbytes() == 4 * other.numel(), f"{name} has memory of its own"


FREEING = """
import resource
import torch
from penjing.structure._network._pages import keep_freed

def faults():
    for _ in range(3):
        torch.ones(3 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(3 << 20), torch.ones(3 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = faults()
keep_freed()
print(before, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_freed_memory_is_used_again():
    run = subprocess.run([sys.executable, "-c", FREEING], capture_output=True, text=True, check=True)
    given_back, kept = map(int, run.stdout.split())
    assert kept <= given_back / 2
