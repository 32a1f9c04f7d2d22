"""A run folder keeps what finished, refuses what is not its own, and survives being cut off anywhere."""

import errno
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from penjing.core import Recipe, RunError
from penjing.pipeline import _files, _run
from penjing.pipeline._lock import lock

RECIPE = Recipe.of(
    {
        "task": "image-classification",
        "model": "timm:resnet18",
        "data": "builtin:digits",
        "budget": "macs<=0.5x",
    }
)


def _created(path: Path) -> _run.RunFolder:
    path.mkdir(exist_ok=True)
    return _run.create(path, RECIPE, ("one", "two"))


def _finish(run: _run.RunFolder, step: str, **files: str) -> None:
    with run.step(step) as (staging, figures):
        for name, text in files.items():
            (staging / name.replace("__", "/")).parent.mkdir(parents=True, exist_ok=True)
            (staging / name.replace("__", "/")).write_text(text)
        figures["loss"] = 1.0


def test_a_finished_step_is_there_whole_and_recorded(tmp_path: Path):
    run = _created(tmp_path / "run")
    _finish(run, "one", model__weights="w", plan="p")
    again = _run.reopen(run.path, RECIPE)
    assert again.done("one")
    assert not again.done("two")
    assert (run.path / "model" / "weights").read_text() == "w"
    assert set(again.record("one")["files"]) == {"model/weights", "plan"}
    assert again.record("one")["figures"] == {"loss": 1.0}


def test_a_failing_step_leaves_nothing(tmp_path: Path):
    run = _created(tmp_path / "run")
    before = sorted(path.name for path in run.path.iterdir())
    with pytest.raises(IsADirectoryError), run.step("one") as (staging, _):
        (staging / "half").mkdir() or (staging / "half").write_text("h")
    assert sorted(path.name for path in run.path.iterdir()) == before
    assert not _run.reopen(run.path, RECIPE).done("one")


def test_volatile_facts_stay_out_of_the_ledger(tmp_path: Path):
    ledgers = []
    for name in ("a", "b"):
        run = _created(tmp_path / name)
        with run.step("one") as (staging, _):
            (staging / "metrics.json").write_text(name)
            (staging / "plan.json").write_text("same")
        ledgers.append((run.path / "run.json").read_text())
    assert ledgers[0] == ledgers[1]
    volatile = json.loads((tmp_path / "a" / "volatile.json").read_text())
    assert "metrics.json" in volatile["steps"]["one"]["checksums"]
    assert volatile["steps"]["one"]["seconds"] >= 0


@pytest.mark.parametrize("file", ["weights.bin", "metrics.json", "recipe.yaml"])
@pytest.mark.parametrize("harm", ["altered", "cut", "gone"])
def test_a_harmed_file_is_refused_by_name(tmp_path: Path, file: str, harm: str):
    run = _created(tmp_path / "run")
    with run.step("one") as (staging, _):
        (staging / "weights.bin").write_bytes(b"0123456789")
        (staging / "metrics.json").write_text("{}")
    path = run.path / file
    content = path.read_bytes()
    if harm == "gone":
        path.unlink()
    else:
        path.write_bytes(content[:-1] if harm == "cut" else content[:-1] + b"#")
    with pytest.raises(RunError, match=file):
        _run.reopen(run.path, RECIPE)


def test_a_torn_ledger_is_refused_by_name(tmp_path: Path):
    run = _created(tmp_path / "run")
    (run.path / "run.json").write_text('{"state": ')
    with pytest.raises(RunError, match=r"run\.json"):
        _run.reopen(run.path, RECIPE)


def test_occupants(tmp_path: Path):
    assert _run.occupant(tmp_path / "new") is None
    assert _run.occupant(tmp_path) is None
    run = _created(tmp_path / "run")
    _finish(run, "one", plan="p")
    assert _run.occupant(run.path) == RECIPE
    (run.path / "plan").unlink()
    (run.path / "run.json").unlink()
    assert _run.occupant(run.path) is None
    (tmp_path / "photo.png").write_text("")
    with pytest.raises(RunError, match="holds no run"):
        _run.occupant(tmp_path)
    with pytest.raises(RunError, match="is a file"):
        _run.occupant(tmp_path / "photo.png")


def test_changed_inputs_are_refused_on_resume(tmp_path: Path):
    run = _created(tmp_path / "run")
    run.remember({"train examples": "abc", "selection examples": "s"})
    run.set_state("stopped")
    again = _run.reopen(run.path, RECIPE)
    again.recognise({"train examples": "abc", "weights of the teacher": "new"})
    with pytest.raises(RunError, match=r"train examples: abc then, xyz now.*--out"):
        again.recognise({"train examples": "xyz"})


@pytest.mark.parametrize("file", ["run.json", "volatile.json"])
def test_an_altered_ledger_is_refused_by_name(tmp_path: Path, file: str):
    run = _created(tmp_path / "run")
    _finish(run, "one", plan="p")
    path = run.path / file
    path.write_text(path.read_text().replace(': "', ': "0', 1))
    with pytest.raises(RunError, match=file.replace(".", r"\.")):
        _run.reopen(run.path, RECIPE)


def test_a_cut_recipe_is_torn_and_no_other_run(tmp_path: Path):
    run = _created(tmp_path / "run")
    _finish(run, "one", plan="p")
    path = run.path / "recipe.yaml"
    path.write_text(path.read_text()[:-30])
    with pytest.raises(RunError, match=r"recipe\.yaml is torn"):
        _run.occupant(run.path)


def test_a_run_without_a_finished_step_leaves_its_folder_free(tmp_path: Path):
    run = _created(tmp_path / "run")
    assert _run.occupant(run.path) is None
    _finish(run, "one", plan="p")
    assert _run.occupant(run.path) == RECIPE


def test_another_recipe_is_adopted_with_what_finished_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run, other = _created(tmp_path / "run"), RECIPE.model_copy(update={"budget": "macs<=0.4x"})
    _finish(run, "one", plan="p")
    with monkeypatch.context() as patch:  # killed between the ledger and the recipe
        patch.setattr(_run, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run.adopt(other, ("one", "three"))
    again = _run.reopen(run.path, RECIPE)
    again.adopt(other, ("one", "three"))
    found = _run.reopen(run.path, other)
    assert _run.stored_recipe(run.path) == other
    assert found.steps_done == ("one",)
    assert [record["name"] for record in found.ledger["steps"]] == ["one", "three"]


def test_no_space_left_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = _created(tmp_path / "run")
    _finish(run, "one", plan="p")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(_files.os, "fsync", full)
        with pytest.raises(RunError, match=r"No space left .* the step two.*--resume"):
            _finish(run, "two", more="m")
    again = _run.reopen(run.path, RECIPE)
    assert again.done("one")
    assert not again.done("two")
    assert not (run.path / ".staging").exists()


def test_a_native_writer_out_of_space_is_understood(tmp_path: Path):
    with pytest.raises(RunError, match="free some space"), _files.room_left("saving", tmp_path, "again"):
        raise ValueError("I/O error: No space left on device (os error 28)")
    with pytest.raises(ValueError, match="other"), _files.room_left("saving", tmp_path, "again"):
        raise ValueError("other")


def test_write_replaces_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "f"
    _files.write(file, b"old")
    monkeypatch.setattr(_files.os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        _files.write(file, b"new")
    assert file.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_a_second_process_is_refused_and_told_the_pid(tmp_path: Path):
    code = (
        "import sys; from pathlib import Path; from penjing.pipeline._lock import lock\n"
        "with lock(Path(sys.argv[1])):\n    print('held', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        assert child.stdout.readline().strip() == "held"
        with pytest.raises(RunError, match=rf"pid {child.pid}\b"), lock(tmp_path):
            pass
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()
    with lock(tmp_path):
        assert (tmp_path / ".lock").read_text().strip() == str(os.getpid())


def test_differences_name_the_keys():
    other = RECIPE.model_copy(update={"seed": 3, "model": "timm:resnet34"})
    assert _run.differences(RECIPE, other) == (
        "model: timm:resnet34 there, timm:resnet18 asked; seed: 3 there, 0 asked"
    )


def test_the_way_to_go_on_is_a_whole_command():
    change = {"model": "file:my nets/net.py:make", "teacher": "file:big.py:make"}
    said = _run.resume_command(RECIPE.model_copy(update=change), "my runs/it's")
    assert shlex.split(said) == [
        "penjing", "shape", "--model", change["model"], "--teacher", change["teacher"],
        "--out", "my runs/it's", "--resume",
    ]  # fmt: skip
    assert _run.resume_command(RECIPE, "runs/a") == "penjing shape --out runs/a --resume"


def test_every_step_has_its_own_seed():
    seeds = {_run.seed_of(seed, step) for seed in range(20) for step in ("transfer", "recover")}
    assert len(seeds) == 40
    assert all(0 <= seed < 2**31 for seed in seeds)
