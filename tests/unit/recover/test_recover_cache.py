"""The teacher cache: exact on replay, never a torn entry, a size told beforehand, a limit that is kept."""

import copy
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from penjing.core import UsageError
from penjing.recover import TeacherCache, Training, TrainState, distil
from penjing.recover._cache import ALONE, View, _record, as_logits, as_rows, digest
from penjing.recover._matching import NOTHING
from penjing.recover._teaching import Taught, Teaching, teaching

OPTIONS: dict[str, Any] = {"epochs": 3, "batch_size": 16, "augment": "noise", "lr": 3e-3}


class Counting(nn.Module):
    """A teacher that counts how often it is asked in batches of training."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.asked = model, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.asked += len(x) > 2
        return self.model(x)


@pytest.fixture
def teacher(net):
    return Counting(net(width=12)).eval()


def learnt(net, teacher, task, data, **options: Any) -> tuple[dict[str, torch.Tensor], int]:
    """The weights of a student, and how many batches of training its teacher answered."""
    student, before = net(), teacher.asked
    states: list[TrainState] = []
    distil(student, teacher, task, data, checkpoint=states.append, **(OPTIONS | options))
    return dict(states[-1].model), teacher.asked - before


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_training_is_the_same_bit_for_bit_online_cold_and_warm(net, teacher, task, data, tmp_path):
    cache = TeacherCache(folder=tmp_path)
    online, often = learnt(net, teacher, task, data)
    cold, first = learnt(net, teacher, task, data, cache=cache)
    warm, again = learnt(net, teacher, task, data, cache=cache)
    assert (often, first, again) == (18, 18, 0)
    assert same(online, cold)
    assert same(online, warm)


def test_replayed_logits_equal_fresh_ones_bit_for_bit(teacher, task, data, tmp_path):
    training = Training(**OPTIONS)

    def served() -> list[torch.Tensor]:
        made = Teaching(teacher, task, data, training, TeacherCache(folder=tmp_path))
        batches = list(data.batches("train", 16, augment="noise", epoch=1, shuffle=True))[:6]
        return [taught.logits for taught in made.along(iter(batches), 1)]

    fresh = served()
    with torch.no_grad():
        batches = list(data.batches("train", 16, augment="noise", epoch=1, shuffle=True))[:6]
        own = [teacher(x.to(memory_format=torch.channels_last)) for x, _ in batches]
    for stored, computed, replayed in zip(fresh, own, served(), strict=True):
        assert torch.equal(stored, computed)
        assert torch.equal(replayed, computed)
        assert replayed.dtype == computed.dtype


@pytest.mark.parametrize("harm", ["logits", "stamp", "partner", "zeros"])
def test_a_torn_entry_is_never_read(net, teacher, task, data, tmp_path, harm):
    cache = TeacherCache(folder=tmp_path)
    whole, _ = learnt(net, teacher, task, data, cache=cache)
    path = sorted(tmp_path.glob("*/*.logits"))[1]
    entries = np.memmap(path, dtype=_record(16), mode="r+")
    if harm == "zeros":
        entries[5] = np.zeros((), dtype=entries.dtype)
    else:
        raw = entries[5:6][harm].view(np.uint8)
        raw.flat[0] ^= 1
    entries.flush()
    again, asked = learnt(net, teacher, task, data, cache=cache)
    assert same(whole, again)
    assert asked == 1
    assert learnt(net, teacher, task, data, cache=cache)[1] == 0


def test_another_teacher_batch_size_seed_or_view_reads_nothing(net, teacher, task, data, tmp_path):
    cache = TeacherCache(folder=tmp_path)
    learnt(net, teacher, task, data, cache=cache)
    changed = copy.deepcopy(teacher)
    with torch.no_grad():
        changed.model.head.bias[0] += 1e-3
    assert learnt(net, changed, task, data, cache=cache)[1] == 18
    assert learnt(net, teacher, task, data, cache=cache, batch_size=24)[1] == 12
    assert learnt(net, teacher, task, data, cache=cache, seed=1)[1] == 18
    assert learnt(net, teacher, task, data, cache=cache, augment="none")[1] == 18


def test_views_are_served_in_turn(net, teacher, task, data, tmp_path):
    cache = TeacherCache(folder=tmp_path)
    data.views.clear()
    _, asked = learnt(net, teacher, task, data, cache=cache, epochs=6, views=2)
    epochs = [epoch for split, augment, _, epoch in data.views if augment == "noise"]
    assert epochs == [0, 1, 0, 1, 0, 1]
    assert asked == 12
    assert len(list(tmp_path.glob("*/*.logits"))) == 2


def test_the_size_is_told_and_at_the_limit_the_teacher_answers_itself(net, teacher, task, data, tmp_path):
    said: list[str] = []
    each = TeacherCache(folder=tmp_path).view_bytes(97, 4)
    cache = TeacherCache(folder=tmp_path, limit=2 * each)
    online, _ = learnt(net, teacher, task, data)
    limited, _ = learnt(net, teacher, task, data, cache=cache, say=said.append)
    assert same(online, limited)
    assert cache.stored_bytes() <= 2 * each
    assert len(list(tmp_path.glob("*/*.logits"))) == 2
    assert any("97 examples x 4 classes x 3 views" in text for text in said)
    assert any("room is left for 2 of 3 new views" in text for text in said)
    assert learnt(net, teacher, task, data, cache=cache)[1] == 6
    with pytest.raises(UsageError, match="at least 1"):
        TeacherCache(folder=tmp_path, limit=0)


def test_a_disk_without_room_leaves_the_teacher_online(net, teacher, task, data, tmp_path, monkeypatch):
    online, _ = learnt(net, teacher, task, data)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    said: list[str] = []
    limited, asked = learnt(net, teacher, task, data, cache=TeacherCache(folder=tmp_path), say=said.append)
    assert same(online, limited)
    assert asked == 18
    assert not list(tmp_path.glob("*/*.logits")) + list(tmp_path.glob("*/.*"))
    assert [text for text in said if "No space left" in text] == [
        "the teacher answers itself: its cache cannot be written ([Errno 28] No space left on device)"
    ]


@pytest.mark.parametrize("place", ["a file", "under a file", "read-only"])
def test_a_folder_that_cannot_be_written_leaves_the_teacher_online_and_says_so(
    net, teacher, task, data, tmp_path, monkeypatch, place
):
    (tmp_path / "file").write_text("here")
    folder = tmp_path / {"a file": "file", "under a file": "file/sub", "read-only": "locked"}[place]
    if place == "read-only":  # root may write into any folder

        def locked(self: Path, **_: Any) -> None:
            raise PermissionError(13, "Permission denied", str(self))

        monkeypatch.setattr(Path, "mkdir", locked)
    said: list[str] = []
    online, _ = learnt(net, teacher, task, data)
    found, asked = learnt(net, teacher, task, data, cache=TeacherCache(folder=folder), say=said.append)
    assert same(online, found)
    assert asked == 18
    assert sum("the teacher answers itself: its cache cannot be written" in text for text in said) == 1


@pytest.mark.parametrize("harm", ["shorter", "longer", "a folder"])
def test_a_view_of_another_size_is_made_anew(net, teacher, task, data, tmp_path, harm):
    cache = TeacherCache(folder=tmp_path)
    whole, _ = learnt(net, teacher, task, data, cache=cache)
    path = sorted(tmp_path.glob("*/*.logits"))[1]
    size = path.stat().st_size
    if harm == "a folder":
        path.unlink()
        path.mkdir()
    else:
        os.truncate(path, 100 if harm == "shorter" else 2 * size)
    again, asked = learnt(net, teacher, task, data, cache=cache)
    assert same(whole, again)
    assert asked == 6
    assert harm == "a folder" or path.stat().st_size == size


def test_a_folder_may_be_given_as_text(net, teacher, task, data, tmp_path):
    cache: Any = TeacherCache(folder=str(tmp_path))  # pyright: ignore[reportArgumentType]
    learnt(net, teacher, task, data, cache=cache)
    assert len(list(tmp_path.glob("*/*.logits"))) == 3


def test_a_limit_below_one_view_is_said_and_stores_nothing(net, teacher, task, data, tmp_path):
    said: list[str] = []
    cache = TeacherCache(folder=tmp_path, limit=100)
    assert learnt(net, teacher, task, data, cache=cache, say=said.append)[1] == 18
    assert any(
        "room is left for 0 of 3 new views, in the others the teacher answers" in text for text in said
    )
    assert not list(tmp_path.iterdir())


def test_matching_keeps_the_teacher_online_and_says_so(net, teacher, task, data, tmp_path):
    said: list[str] = []
    options = {"cache": TeacherCache(folder=tmp_path), "hidden": 1.0, "say": said.append}
    assert learnt(net, teacher, task, data, **options)[1] == 18
    assert any("stays online: hidden states or attention are matched" in text for text in said)
    assert not list(tmp_path.iterdir())


def test_data_that_cannot_name_its_examples_keeps_the_teacher_online(teacher, task, data, tmp_path):
    class Nameless:
        n, batches = data.n, data.batches

    made, said = teaching(
        teacher, task, Nameless(), Training(epochs=1), TeacherCache(folder=tmp_path), NOTHING
    )
    assert made is None
    assert "`indices`" in said


def test_the_mixup_partner_is_part_of_the_key(tmp_path):
    entries = np.memmap(tmp_path / "view", dtype=_record(8), mode="w+", shape=(3,))
    view = View(entries, np.array([4, 7, 9]), (0, 0))
    logits = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    view.write([9, 4], b"inputs", as_rows(logits), partners=[4, 9])
    assert view.read([9, 4], b"inputs") is None
    assert view.read([9, 4], b"inputs", partners=[4, 7]) is None
    assert view.read([9, 4], b"others", partners=[4, 9]) is None
    assert view.read([7], b"inputs", partners=[ALONE]) is None
    found = view.read([4, 9], b"inputs", partners=[9, 4])
    assert found is not None
    assert torch.equal(as_logits(found, 2, torch.float32), logits.flip(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_logits_of_every_dtype_come_back(dtype):
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert torch.equal(as_logits(as_rows(logits).tobytes(), 5, dtype), logits)


def test_the_digest_tells_values_shapes_dtypes_and_names():
    x = torch.arange(6.0)
    others = [x + 1, x.view(2, 3), x.double(), {"a": x}, {"b": x}, (x, x)]
    assert len({digest(value) for value in (x, *others)}) == 7
    assert digest(x.view(2, 3).t()) == digest(x.view(2, 3).t().contiguous())


KILLED = """
import os, signal, sys
import numpy as np
from pathlib import Path
from penjing.recover._cache import TeacherCache, as_rows
import torch
from torch import nn

torch.manual_seed(0)
shelf = TeacherCache(folder=Path(sys.argv[1])).of(nn.Linear(2, 2))
view = shelf.view(0, 0, range(8), 16)
rows = as_rows(torch.arange(32.0).view(8, 4))
for i in range(5):
    view.write([i], b"inputs", rows[i : i + 1])
entry = view._entries[5:6]
entry["logits"] = rows[5:6]  # half of an entry: no stamp yet
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_stored_survives_a_kill_and_half_an_entry_does_not(tmp_path: Path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], env=environment, check=False)
    assert ended.returncode == -signal.SIGKILL
    torch.manual_seed(0)
    shelf = TeacherCache(folder=tmp_path).of(nn.Linear(2, 2))
    assert shelf.stored_views(0) == 1
    assert json.loads((shelf.path / "about.json").read_text())["torch"] == str(torch.__version__)
    view = shelf.view(0, 0, range(8), 16)
    assert view is not None
    rows = as_rows(torch.arange(32.0).view(8, 4))
    for i in range(8):
        found = view.read([i], b"inputs")
        assert found == (rows[i].tobytes() if i < 5 else None)


def test_a_batch_is_taught_and_placed_with_its_logits():
    taught = Taught((torch.zeros(2, 1, 4, 4), torch.zeros(2)), torch.ones(2, 3))
    from penjing.recover import place

    placed = place(taught, torch.device("cpu"), torch.channels_last)
    assert isinstance(placed, Taught)
    assert torch.equal(placed.logits, taught.logits)
