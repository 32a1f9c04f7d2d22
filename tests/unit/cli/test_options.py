"""From words to a recipe; wrong words end with a plain sentence and the right code."""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from penjing.cli import _go, main
from penjing.cli._go import first_free, recipe_from
from penjing.core import InternalError, UsageError

GIVEN = {
    "model": "timm:resnet18",
    "data": "builtin:digits",
    "budget": "macs<=0.5x",
    "seed": None,
    "teacher": None,
}


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["penjing", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_options_make_a_recipe():
    recipe = recipe_from(None, GIVEN)
    assert (recipe.model, recipe.weights, recipe.data.source) == (
        "timm:resnet18",
        "pretrained",
        "builtin:digits",
    )
    assert recipe_from(None, GIVEN | {"model": "file:net.py:make"}).weights == "none"
    assert recipe_from(None, GIVEN, skip_bad=True).data.skip_bad


def test_options_win_over_the_file(tmp_path: Path):
    file = tmp_path / "r.yaml"
    file.write_text(
        "model: timm:x\nweights: w.pt\nbudget: macs<=0.5x\ndata: {source: a, splits: [0.5, 0.2, 0.3]}\n"
    )
    kept = recipe_from(str(file), {"seed": 4})
    assert (kept.seed, kept.weights, kept.data.splits) == (4, "w.pt", (0.5, 0.2, 0.3))
    changed = recipe_from(str(file), {"model": "torchvision:resnet18", "data": "b"})
    assert (changed.weights, changed.data.source, changed.data.splits) == ("pretrained", "b", None)
    assert recipe_from(str(file), {"data": "a"}, skip_bad=True).data.splits == (0.5, 0.2, 0.3)


def test_code_in_a_file_is_refused_unless_the_command_line_names_it(tmp_path: Path):
    file = tmp_path / "r.yaml"
    file.write_text("model: file:net.py:make\nbudget: macs<=0.5x\ndata: d\n")
    with pytest.raises(UsageError, match=r"r\.yaml"):
        recipe_from(str(file), {})
    assert recipe_from(str(file), {"model": "file:net.py:make"}).model == "file:net.py:make"


def test_a_stored_recipe_is_taken_up_on_resume(tmp_path: Path):
    (tmp_path / "recipe.yaml").write_text(recipe_from(None, GIVEN).to_yaml())
    assert recipe_from(None, {"seed": None}, resumed=str(tmp_path)) == recipe_from(None, GIVEN)


def test_new_runs_get_a_folder_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert first_free("demo") == "runs/demo"
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    assert first_free("demo") == "runs/demo-2"


def test_the_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    assert _run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"penjing {version('penjing')}\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("shap",), "shape"),
        (("shape", "--modle", "x"), "--model"),
        (("shape", "--model", "timm:resnet18", "--budget", "macs<=0.5x"), "data"),
        (
            ("shape", "--model", "timm:resnet18", "--data", "d", "--budget", "mac<=0.5x"),
            "did you mean 'macs'",
        ),
        (
            ("shape", "--model", "timm:resnet18", "--data", "d", "--budget", "latency<=0.5x"),
            "macs and params",
        ),
        (("shape", "gone.yaml"), "gone.yaml"),
        (("inspect", "no-such-folder"), "no-such-folder"),
        (("compare", "a", "b"), "--data"),
    ],
    ids=lambda item: " ".join(item) if isinstance(item, tuple) else "",
)
def test_wrong_use_exits_with_2_and_a_sentence(monkeypatch: pytest.MonkeyPatch, capsys, words, said: str):
    assert _run(monkeypatch, *words) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert "Traceback" not in shown.err
    assert shown.out == ""


def test_debug_shows_where_an_error_came_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert _run(monkeypatch, "inspect", "no-such-folder", "--debug") == 2
    assert "Traceback" in capsys.readouterr().err


def test_errors_are_json_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    assert _run(monkeypatch, "inspect", "no-such-folder", "--json") == 2
    said = json.loads(capsys.readouterr().out)
    assert (said["event"], said["kind"]) == ("error", "SourceError")


def test_our_own_mistakes_say_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(_go, "shape", broken)
    assert _run(monkeypatch, "demo", "--out", "never", "--quiet") == InternalError.exit_code
    assert "please report it: ZeroDivisionError: oh" in capsys.readouterr().err


def test_an_interrupt_exits_with_130_and_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_go, "shape", interrupted)
    assert _run(monkeypatch, "demo", "--out", "never", "--quiet") == 130
    assert "penjing shape --out never --resume" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["certify", "explain", "export", "report", "certificate"])
def test_the_help_promises_nothing_that_is_not_there(monkeypatch: pytest.MonkeyPatch, capsys, word: str):
    for command in ((), ("demo",), ("shape",), ("inspect",), ("compare",)):
        assert _run(monkeypatch, *command, "--help") == 0
        assert word not in capsys.readouterr().out.lower()
