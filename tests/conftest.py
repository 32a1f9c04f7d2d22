"""Every test runs on one thread from the same seed; tests marked `gpu` are skipped without a device."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import random
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from penjing.search import _timed_before

torch.set_num_threads(1)
# Where this runs in the background, what tests start would inherit that Ctrl-C is ignored.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _same_start():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_times_from_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a search times is kept in a folder of the test's own."""
    monkeypatch.setattr(_timed_before, "cache_folder", lambda: tmp_path / "times")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device on this machine"))
