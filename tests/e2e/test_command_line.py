"""The command line from the outside: whole runs in processes of their own, broken off and resumed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from penjing.cli import main

Ran = subprocess.CompletedProcess[str]
COMMAND = (sys.executable, "-m", "penjing")
RECIPE = """
data: builtin:digits
budget: macs<=0.5x
image_size: 8
steps:
  transfer: {epochs: 3, probe_epochs: 1, lr: 0.01}
  recover: {epochs: 3, lr: 0.01}
  prune: {criterion: l2, scope: uniform, round_to: 1}
  measure: {repeats: 3, rounds: 5}
"""


def penjing(*arguments: object, cwd: Path) -> Ran:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def _start(*arguments: object, cwd: Path) -> subprocess.Popen[str]:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=cwd, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network of one's own and a recipe."""
    folder = tmp_path_factory.mktemp("desk")
    shutil.copy(Path(__file__).parent / "networks" / "tiny.py", folder / "net.py")
    (folder / "tiny.yaml").write_text(RECIPE)
    return folder


SHAPE = ("shape", "tiny.yaml", "--model", "file:net.py:tiny")


@pytest.fixture(scope="module")
def whole(desk: Path) -> Ran:
    """An unbroken run in desk/whole."""
    return penjing(*SHAPE, "--out", "whole", "--json", cwd=desk)


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


Ask = Callable[..., Answer]


@pytest.fixture
def here(desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """The same command in this process, which saves its start."""

    def ask(*arguments: str) -> Answer:
        monkeypatch.chdir(desk)
        monkeypatch.setattr(sys, "argv", ["penjing", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return Answer(int(ended.value.code or 0), said.out, said.err)

    return ask


def test_a_whole_run_leaves_everything(desk: Path, whole: Ran):
    assert whole.returncode == 0, whole.stderr
    folder = desk / "whole"
    metrics = json.loads((folder / "metrics.json").read_text())
    rows = {row["name"]: row for row in metrics["rows"]}
    assert list(rows) == ["base", "transferred", "slim", "control:scratch"]
    assert rows["base"]["accuracy"] is None
    assert rows["transferred"]["accuracy"] > 0.6
    assert 0.8 <= rows["slim"]["macs"] / (0.5 * rows["transferred"]["macs"]) <= 1
    assert rows["slim"]["macs_ratio"] == rows["slim"]["macs"] / rows["transferred"]["macs"]
    assert {"batch_32", "batch_1"} == set(rows["slim"]["speedup"])
    assert rows["slim"]["latency_ms"]["batch_size"] == 32
    assert rows["control:scratch"]["macs"] == rows["slim"]["macs"]
    assert sorted(rows["slim"]["per_class"]) == sorted("0123456789")
    assert json.loads((folder / "run.json").read_text())["state"] == "finished"
    assert (folder / "model" / "model.safetensors").exists()
    assert (folder / "plan.json").exists()
    assert any((folder / "tensorboard" / "recover").iterdir())
    assert not (folder / ".checkpoint").exists()
    assert not (folder / ".staging").exists()
    assert not [path for path in folder.rglob("*") if path.suffix in (".pt", ".pth", ".pkl")]


def test_predictions_agree_with_the_metrics(desk: Path, whole: Ran):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(desk / "whole" / "predictions.parquet").to_pydict()
    rows = {row["name"]: row for row in json.loads((desk / "whole" / "metrics.json").read_text())["rows"]}
    assert set(table) >= {"label", "reference", "slim"}
    for column, row in (("reference", "transferred"), ("slim", "slim")):
        right = [answer == label for answer, label in zip(table[column], table["label"], strict=True)]
        assert sum(right) / len(right) == pytest.approx(rows[row]["accuracy"])


def test_json_is_lines_on_stdout_and_nothing_else(whole: Ran):
    events = [json.loads(line) for line in whole.stdout.splitlines()]
    assert [event["step"] for event in events if event["event"] == "finish"] == [
        "base", "transfer", "prune", "recover", "fold", "control:scratch", "measure", "save",
        "stability", "explain",
    ]  # fmt: skip
    assert events[0]["event"] == "plan"
    assert events[-1]["event"] == "result"
    assert "slim:" in events[-1]["verdict"]
    assert events[-1]["metrics"]["rows"][0]["name"] == "base"


def test_defaults_are_filled_in(desk: Path, whole: Ran):
    import yaml

    recipe = yaml.safe_load((desk / "whole" / "recipe.yaml").read_text())
    assert recipe["model"] == "file:net.py:tiny"
    assert recipe["steps"]["recover"]["temperature"] == "auto"
    steps = {step["name"]: step for step in json.loads((desk / "whole" / "run.json").read_text())["steps"]}
    assert steps["recover"]["figures"]["chosen"]["temperature"] > 0
    assert recipe["seed"] == 0


def _holds(folder: Path, step: str) -> bool:
    try:
        return any(name.startswith(f"{step}.") for name in os.listdir(folder))
    except FileNotFoundError:
        return False


def _killed_in(step: str, desk: Path, out: str) -> None:
    """Runs until `step` has stored a training state, then kills the process without mercy."""
    process = _start(*SHAPE, "--out", out, "--quiet", cwd=desk)
    deadline = time.monotonic() + 120
    while not _holds(desk / out / ".checkpoint", step):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_kill_and_resume_end_as_if_unbroken(desk: Path, whole: Ran, here: Ask):
    _killed_in("recover", desk, "broken")
    ledger = json.loads((desk / "broken" / "run.json").read_text())
    assert [record["name"] for record in ledger["steps"] if record["state"] == "finished"] == [
        "base", "transfer", "prune",
    ]  # fmt: skip
    refused = here(*SHAPE, "--out", "broken")
    assert refused.code == 2
    assert "--resume" in refused.err
    resumed = penjing(*SHAPE, "--out", "broken", "--resume", "--quiet", cwd=desk)
    assert (resumed.returncode, resumed.stdout, resumed.stderr) == (0, "", "")
    for name in ("model/model.safetensors", "plan.json", "predictions.parquet", "recipe.yaml", "run.json"):
        assert (desk / "broken" / name).read_bytes() == (desk / "whole" / name).read_bytes(), name


def test_a_second_process_is_refused_and_an_interrupt_says_how_to_go_on(desk: Path, here: Ask):
    process = _start(*SHAPE, "--out", "busy", "--quiet", cwd=desk)
    while not (desk / "busy" / "run.json").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    refused = here(*SHAPE, "--out", "busy", "--resume")
    assert process.poll() is None, "the first run ended too early for this test"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert refused.code == 2
    assert f"pid {process.pid}" in refused.err
    assert process.returncode == 130
    assert "penjing shape --model file:net.py:tiny --out busy --resume" in said
    assert json.loads((desk / "busy" / "run.json").read_text())["state"] == "stopped"


def test_a_folder_with_another_run_is_refused_with_both_named(desk: Path, whole: Ran, here: Ask):
    before = {path: path.stat().st_mtime_ns for path in (desk / "whole").rglob("*")}
    found = here(*SHAPE, "--out", "whole", "--seed", "7")
    assert found.code == 2
    assert "seed: 0 there, 7 asked" in found.err
    assert "Traceback" not in found.err
    assert {path: path.stat().st_mtime_ns for path in (desk / "whole").rglob("*")} == before


def test_a_finished_run_is_shown_again(whole: Ran, here: Ask):
    found = here(*SHAPE, "--out", "whole")
    assert found.code == 0
    assert "finished: its stored figures follow" in found.err
    assert found.out.splitlines()[0] == json.loads(whole.stdout.splitlines()[-1])["verdict"]


def test_a_harmed_file_is_refused_by_name(desk: Path, whole: Ran, here: Ask):
    path = desk / "whole" / "plan.json"
    content = path.read_bytes()
    try:
        path.write_bytes(content[:-1])
        found = here(*SHAPE, "--out", "whole", "--resume")
    finally:
        path.write_bytes(content)
    assert found.code == 2
    assert "plan.json" in found.err


def test_code_of_a_stored_recipe_runs_only_when_named_again(whole: Ran, here: Ask):
    found = here("shape", "--out", "whole", "--resume")
    assert found.code == 2
    assert "--model file:net.py:tiny" in found.err


def test_a_dry_run_writes_nothing(desk: Path, here: Ask):
    before = sorted(desk.rglob("*"))
    found = here(*SHAPE, "--out", "dry", "--dry-run", "--json")
    assert found.code == 0, found.err
    said = json.loads(found.out)
    assert list(said["seconds"]) == [
        "base",
        "transfer",
        "prune",
        "recover",
        "fold",
        "control:scratch",
        "measure",
        "save",
        "stability",
        "explain",
    ]
    assert all(seconds > 0 for seconds in said["seconds"].values())
    assert said["recipe"]["budget"] == "macs<=0.5x"
    after = [path for path in sorted(desk.rglob("*")) if "__pycache__" not in str(path)]
    assert after == [path for path in before if "__pycache__" not in str(path)]


def test_a_budget_out_of_reach_exits_with_4_and_the_nearest(here: Ask):
    found = here(*SHAPE, "--out", "far", "--budget", "macs<=10", "--json")
    assert found.code == 4, found.err
    said = json.loads(found.out.splitlines()[-1])
    assert said["event"] == "error"
    assert said["nearest"] > 10
    assert "Traceback" not in found.err
