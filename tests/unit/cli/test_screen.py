"""How a run shows itself."""

import io
import json

import pytest
from rich.console import Console

from penjing.cli import _screen
from penjing.cli._screen import Clock, JsonScreen, LineScreen, QuietScreen, screen
from penjing.pipeline import Event

LATENCY = {"median": 20.0, "mad": 0.4, "batch_size": 32, "device": "cpu", "runtime": "eager", "threads": 2}
ROW = {
    "params": 10, "macs": 10, "size_bytes": 40, "latency_ms": LATENCY, "peak_memory": None,
    "accuracy": 0.9, "macro_recall": 0.9, "per_class": {"a": 1.0, "b": 0.8},
}  # fmt: skip
METRICS = {
    "reference": "transferred",
    "data": {"name": "d", "split": "certification", "n": 4},
    "rows": [{**ROW, "name": "transferred"}, {**ROW, "name": "slim", "macs": 5}],
}
PLAN = Event(kind="plan", figures={"base": 10.0, "transfer": 90.0})


def test_the_share_done_follows_the_predicted_work():
    clock = Clock()
    clock.hear(PLAN)
    assert clock.share() == 0
    clock.hear(Event(kind="start", step="base"))
    clock.hear(Event(kind="progress", step="base", done=1, total=2))
    assert clock.share() == pytest.approx(0.05)
    clock.hear(Event(kind="finish", step="base"))
    clock.hear(Event(kind="start", step="transfer"))
    assert clock.share() == pytest.approx(0.1)
    clock.hear(Event(kind="finish", step="transfer"))
    assert clock.share() == 1
    assert clock.left() == 0


def test_time_left_learns_from_how_the_prediction_fares(monkeypatch: pytest.MonkeyPatch):
    now = [0.0]
    monkeypatch.setattr(_screen.time, "monotonic", lambda: now[0])
    clock = Clock()
    clock.hear(PLAN)
    assert clock.left() == pytest.approx(100)
    clock.hear(Event(kind="start", step="base"))
    now[0] = 30.0
    clock.hear(Event(kind="finish", step="base"))
    assert clock.left() == pytest.approx(90 * 40 / 20)


def test_steps_finished_before_count_for_nothing():
    clock = Clock()
    clock.hear(PLAN)
    clock.hear(Event(kind="skip", step="base"))
    clock.hear(Event(kind="start", step="transfer"))
    clock.hear(Event(kind="progress", step="transfer", done=1, total=2))
    assert clock.share() == pytest.approx(0.5)


def test_every_event_is_one_line_of_json(capsys: pytest.CaptureFixture[str]):
    view = JsonScreen()
    view.hear(PLAN)
    view.hear(Event(kind="progress", step="transfer", stage="probe", done=1, total=3, figures={"loss": 0.5}))
    view.hear(Event(kind="note", step="base", text="two\nlines"))
    view.result(METRICS, "runs/x")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["event"] for line in lines] == ["plan", "progress", "note", "result"]
    assert lines[1]["figures"] == {"loss": 0.5}
    assert lines[1]["stage"] == "probe"
    assert lines[3]["verdict"].startswith("slim: 50% of the MACs")


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]):
    view = QuietScreen()
    view.hear(PLAN)
    view.result(METRICS, "runs/x")
    view.close()
    assert capsys.readouterr() == ("", "")


def test_without_a_terminal_progress_is_lines_on_stderr_and_the_result_on_stdout(
    capsys: pytest.CaptureFixture[str],
):
    view = LineScreen()
    for event in (PLAN, Event(kind="skip", step="base"), Event(kind="start", step="transfer")):
        view.hear(event)
    view.hear(Event(kind="note", text="no curves"))
    view.result(METRICS, "runs/x")
    said = capsys.readouterr()
    assert said.err.splitlines() == [
        "base: finished before",
        "transfer ... (about 1 min 30 s left)",
        "note: no curves",
    ]
    assert said.out.splitlines()[0].startswith("slim: 50% of the MACs")
    assert "runs/x/model" in said.out


def test_options_choose_the_screen():
    assert type(screen(as_json=True, quiet=False)) is JsonScreen
    assert type(screen(as_json=False, quiet=True)) is QuietScreen
    assert isinstance(screen(as_json=False, quiet=False), LineScreen)


def test_the_drawn_screen_follows_a_run(capsys: pytest.CaptureFixture[str]):
    view = _screen.DrawnScreen(Console(stderr=True, width=120))
    view.hear(PLAN)
    view.hear(Event(kind="start", step="transfer"))
    figures = {"loss": 0.25, "lr": 0.001, "selection_accuracy": 0.9}
    view.hear(Event(kind="progress", step="transfer", stage="probe", done=1, total=2, figures=figures))
    view.hear(Event(kind="note", text="[not markup]"))
    task = view.bar.tasks[0]
    view.close()
    assert task.description == "transfer (probe)"
    assert task.completed == pytest.approx(0.45)
    assert task.fields["figures"] == "loss 0.25 accuracy 0.9 lr 0.001"
    assert "[not markup]" in capsys.readouterr().err


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_the_bar_and_the_time_left_stay_at_any_width(width: int):
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    view = _screen.DrawnScreen(console)
    step = "control:scratch"
    view.hear(Event(kind="plan", figures={step: 1000.0}))
    view.hear(Event(kind="start", step=step))
    figures = {"loss": 0.25123, "lr": 0.00123, "selection_accuracy": 0.98765}
    view.hear(Event(kind="progress", step=step, stage="recover", done=1, total=2, figures=figures))
    view.close()
    drawn = Console(file=io.StringIO(), width=width)
    drawn.print(view.bar.get_renderable())
    (line,) = drawn.file.getvalue().splitlines()
    assert "━━" in line
    assert "50%" in line
    assert line.rstrip().endswith("left")


def test_notes_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]):
    for view in (LineScreen(), _screen.DrawnScreen(Console(stderr=True, width=200))):
        view.hear(Event(kind="note", text="\x1b[31mred\n\x07"))
        view.close()
        assert r"\x1b[31mred\n\x07" in capsys.readouterr().err
