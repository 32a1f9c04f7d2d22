"""Training states survive the disk bit for bit, and a harmed one is refused."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from penjing.core import RunError
from penjing.pipeline._checkpoint import Checkpoints


@dataclass
class State:
    model: dict[str, Any]
    optimizer: dict[str, Any]
    epoch: int
    rng: Any
    history: tuple[dict[str, float], ...]


def _state(epoch: int) -> State:
    weight = torch.nn.Parameter(torch.randn(3, 2))
    optimizer = torch.optim.AdamW([weight], lr=0.1)
    weight.sum().backward()
    optimizer.step()
    rng = (torch.get_rng_state(), (3, (1, 2**63, 5), None))
    model = {
        "w": weight,
        "tied": weight,
        "t": weight.detach().t(),
        "half": weight.detach().half(),
        "n": torch.tensor(3),
    }
    return State(model, optimizer.state_dict(), epoch, rng, ({"loss": 0.1 + 0.2, "none": float("inf")},))


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, dict):
        return list(left) == list(right) and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return type(left) is type(right) and all(_same(*pair) for pair in zip(left, right, strict=True))
    return left == right and type(left) is type(right)


def test_a_state_comes_back_as_it_was(tmp_path: Path):
    stored, state = Checkpoints(folder=tmp_path / "c", step="recover"), _state(3)
    assert stored.load(State) is None
    stored.save(state)
    back = stored.load(State)
    assert back is not None
    assert _same(vars(back), vars(state))
    assert set(back.optimizer["state"]) == {0}


def test_only_the_latest_is_kept_and_clear_leaves_nothing(tmp_path: Path):
    stored, other = (Checkpoints(folder=tmp_path / "c", step=step) for step in ("recover", "transfer"))
    for epoch in range(12):
        stored.save(_state(epoch))
    other.save(_state(50))
    assert len(list((tmp_path / "c").iterdir())) == 2
    back = stored.load(State)
    assert back is not None
    assert back.epoch == 11
    stored.clear()
    other.clear()
    assert not (tmp_path / "c").exists()


def test_a_crash_between_write_and_unlink_uses_the_newer(tmp_path: Path):
    stored = Checkpoints(folder=tmp_path, step="recover")
    stored.save(_state(1))
    older = next(tmp_path.iterdir())
    content = older.read_bytes()
    stored.save(_state(2))
    older.write_bytes(content)
    back = stored.load(State)
    assert back is not None
    assert back.epoch == 2


def test_a_harmed_state_is_refused_by_name(tmp_path: Path):
    stored = Checkpoints(folder=tmp_path, step="recover")
    stored.save(_state(1))
    path = next(tmp_path.iterdir())
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(RunError, match=r"recover\.000000"):
        stored.load(State)


def test_what_needs_pickle_is_refused(tmp_path: Path):
    state = _state(1)
    state.rng = object()
    with pytest.raises(TypeError, match="without pickle"):
        Checkpoints(folder=tmp_path, step="recover").save(state)
