"""Every test runs on one thread from the same seed; tests marked `gpu` are skipped without a device."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import random
import signal
from collections.abc import Iterator
from itertools import count
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


@pytest.fixture(scope="session")
def _times(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    return map(tmp_path_factory.mktemp("times").joinpath, map(str, count()))


@pytest.fixture(autouse=True)
def times_folder(_times: Iterator[Path]) -> Iterator[Path]:
    """What a search times is kept in a folder of the test's own, by a patch that outlives the test's own patches."""
    folder = next(_times)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_timed_before, "cache_folder", lambda: folder)
        yield folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device on this machine"))
