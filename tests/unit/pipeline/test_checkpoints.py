"""Training states survive the disk bit for bit, and a harmed one is refused."""

from pathlib import Path

import pytest
import torch

from penjing.core import RunError
from penjing.pipeline._checkpoint import Checkpoints
from penjing.recover import TrainState


def _state(epoch: int) -> TrainState:
    model = {"w": torch.randn(3, 2).t(), "half": torch.randn(2).half(), "n": torch.tensor(3)}
    return TrainState(
        stage="recover",
        epoch=epoch,
        step=7,
        model=model,
        optimizer={"w/exp_avg": torch.randn(2, 3)},
        best=model,
        best_epoch=1,
        score=(0.1 + 0.2, -1.5),
        history=({"loss": 0.1 + 0.2},),
        settings={"lr": 1e-3},
    )


def test_a_state_comes_back_as_it_was(tmp_path: Path):
    stored, state = Checkpoints(folder=tmp_path / "c", step="recover"), _state(3)
    assert stored.load() is None
    stored.save(state)
    back = stored.load()
    assert back is not None
    for name, tensor in state.model.items():
        assert back.model[name].dtype == tensor.dtype
        assert torch.equal(back.model[name], tensor)
    assert torch.equal(back.optimizer["w/exp_avg"], state.optimizer["w/exp_avg"])
    assert (back.epoch, back.score, back.history, back.settings) == (
        3,
        state.score,
        state.history,
        state.settings,
    )


def test_only_the_latest_is_kept_and_clear_leaves_nothing(tmp_path: Path):
    stored, other = (Checkpoints(folder=tmp_path / "c", step=step) for step in ("recover", "transfer"))
    for epoch in range(12):
        stored.save(_state(epoch))
    other.save(_state(50))
    assert len(list((tmp_path / "c").iterdir())) == 2
    back = stored.load()
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
    back = stored.load()
    assert back is not None
    assert back.epoch == 2


@pytest.mark.parametrize("harm", ["altered", "cut"])
def test_a_harmed_state_is_refused_by_name(tmp_path: Path, harm: str):
    stored = Checkpoints(folder=tmp_path, step="recover")
    stored.save(_state(1))
    path = next(tmp_path.iterdir())
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"\x01" if harm == "altered" else content[:-1])
    with pytest.raises(RunError, match=r"recover\.000000.* is torn or altered"):
        stored.load()


def test_what_a_kill_amid_writing_left_goes_with_the_step(tmp_path: Path):
    stored = Checkpoints(folder=tmp_path / "c", step="recover")
    stored.save(_state(1))
    (tmp_path / "c" / ".recover.000001.abc.safetensors.tmp").write_bytes(b"half")
    stored.clear()
    assert not (tmp_path / "c").exists()
