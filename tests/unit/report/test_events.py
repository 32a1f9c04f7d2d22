"""TensorBoard event files."""

import time
from pathlib import Path

import pytest

from penjing.report import EventLog

pytest.importorskip("tensorboard")


def _read(folder: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder)).Reload()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_curves_and_structure_come_back(tmp_path: Path):
    log = EventLog(tmp_path)
    log.epoch(1, {"loss": 0.5, "lr": 0.1, "note": "skipped"})  # type: ignore[dict-item]
    log.epoch(2, {"loss": 0.25, "lr": 0.05})
    before = {"params": 100, "macs": 1000, "layers": {"a": (8, 3, 3, 3), "b": (4, 8), "c": (2, 2)}}
    after = {"params": 50, "macs": 400, "layers": {"a": (4, 3, 3, 3), "c": (2, 2)}}
    log.structure(before, after)
    log.close()
    events = _read(tmp_path)
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 0.5), (2, 0.25)]
    assert [event.value for event in events.Scalars("structure/macs")] == [1000, 400]
    text = events.Tensors("structure/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "| a | 8 x 3 x 3 x 3 | 4 x 3 x 3 x 3 |" in text
    assert "| b | 4 x 8 | dropped |" in text
    assert "| c |" not in text


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_epoch_repeated_after_a_break_replaces_the_first(tmp_path: Path):
    for first, loss in ((0, 0.9), (2, 0.1)):
        time.sleep(1.1 * first / 2)  # files are read in the order of the seconds in their names
        log = EventLog(tmp_path, first=first)
        log.epoch(2, {"loss": loss})
        log.close()
    assert [round(event.value, 3) for event in _read(tmp_path).Scalars("loss")] == [0.1]
