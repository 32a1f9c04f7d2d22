"""From words to a recipe; wrong words end with a plain sentence and the right code."""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from penjing.cli import _app, _go, main
from penjing.cli._go import first_free, recipe_from
from penjing.core import InternalError, UsageError

GIVEN = {
    "model": "timm:resnet18",
    "data.source": "builtin:digits",
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
    assert recipe_from(None, GIVEN | {"data.skip_bad": True}).data.skip_bad


def test_options_win_over_the_file(tmp_path: Path):
    file = tmp_path / "r.yaml"
    file.write_text(
        "model: timm:x\nweights: w.pt\nbudget: macs<=0.5x\ndata: {source: a, splits: [0.5, 0.2, 0.3]}\n"
    )
    kept = recipe_from(str(file), {"seed": 4})
    assert (kept.seed, kept.weights, kept.data.splits) == (4, "w.pt", (0.5, 0.2, 0.3))
    changed = recipe_from(str(file), {"model": "torchvision:resnet18", "data.source": "b"})
    assert (changed.weights, changed.data.source, changed.data.splits) == ("pretrained", "b", None)
    assert recipe_from(str(file), {"data.source": "a", "data.skip_bad": True}).data.splits == (0.5, 0.2, 0.3)


def test_weights_of_a_recipe_without_a_model_are_those_of_the_command_lines(tmp_path: Path):
    file = tmp_path / "r.yaml"
    file.write_text("weights: w.safetensors\nbudget: macs<=0.5x\ndata: d\n")
    assert recipe_from(str(file), {"model": "file:net.py:make"}).weights == "w.safetensors"


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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("inspect", "no-such-folder"), "no-such-folder"),
        (("shape", "--modle", "x"), "--modle"),
        (("shape", "--seed", "x"), "--seed"),
        (("compare", "a", "b"), "--data"),
        (("shap",), "shape"),
        (("inspect",), "SOURCE"),
        (("shape", "--data", "d", "--budget", "macs<=0.5x"), "--model"),
        (("shape", "--resume"), "--out"),
    ],
    ids=" ".join,
)
def test_errors_are_json_too(monkeypatch: pytest.MonkeyPatch, capsys, words: tuple[str, ...], said: str):
    assert _run(monkeypatch, *words, "--json") == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["event"] == "error"
    assert said in json.loads(line)["text"]


def test_options_of_data_without_a_source_stay(tmp_path: Path):
    file = tmp_path / "r.yaml"
    file.write_text(
        "model: timm:x\nbudget: macs<=0.5x\n"
        "data: {splits: [5, 4, 3], augment: none, skip_bad: true, path_column: p}\n"
    )
    data = recipe_from(str(file), {"data.source": "d", "data.label_column": "l"}).data
    assert (data.source, data.splits, data.augment, data.skip_bad) == ("d", (5, 4, 3), "none", True)
    assert (data.path_column, data.label_column) == ("p", "l")


def test_a_bad_option_is_not_the_files_fault(tmp_path: Path):
    file = tmp_path / "r.yaml"
    file.write_text("model: timm:x\nbudget: macs<=0.5x\ndata: d\n")
    with pytest.raises(UsageError, match=r"command line cannot be used:\n  --device: ") as raised:
        recipe_from(str(file), {"device": "gpu"})
    assert "r.yaml" not in str(raised.value)


def test_empty_data_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    words = ("shape", "--model", "timm:resnet18", "--data", "", "--budget", "macs<=0.5x")
    assert _run(monkeypatch, *words) == 2
    assert "--data: data without a name" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["shape", "demo"])
def test_what_is_not_there_cannot_be_resumed(monkeypatch: pytest.MonkeyPatch, capsys, tmp_path, command: str):
    assert _run(monkeypatch, command, "--out", str(tmp_path / "gone"), "--resume") == 2
    assert "gone does not exist" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_others_wrote_cannot_steer_the_terminal(monkeypatch: pytest.MonkeyPatch, capsys):
    assert _run(monkeypatch, "inspect", "timm:\x1b[31mred\r\x07") == 2
    said = capsys.readouterr().err
    assert r"\x1b[31mred" in said
    assert not set(said) & {"\x1b", "\r", "\x07"}


def test_our_own_mistakes_say_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(_go, "shape", broken)
    assert _run(monkeypatch, "demo", "--out", "never", "--quiet") == InternalError.exit_code
    assert "please report it: ZeroDivisionError: oh" in capsys.readouterr().err


def test_an_interrupt_exits_with_130_and_says_how_to_go_on(monkeypatch, capsys, tmp_path: Path):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_go, "shape", interrupted)
    assert _run(monkeypatch, "demo", "--out", str(tmp_path), "--quiet") == 130
    assert capsys.readouterr().err == "interrupted\n"
    (tmp_path / "run.json").write_text("{}")
    assert _run(monkeypatch, "demo", "--out", str(tmp_path), "--quiet") == 130
    assert f"interrupted; go on with: penjing shape --out {tmp_path} --resume" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "function"),
    [
        (("inspect", "run"), "inspect_network"),
        (("compare", "a", "b", "--data", "d"), "compare_networks"),
        (("export", "run", "--to", "onnx"), "export_network"),
    ],
    ids=["inspect", "compare", "export"],
)
def test_code_of_saved_networks_is_named_with_model(monkeypatch, words: tuple[str, ...], function: str):
    seen = {}
    monkeypatch.setattr(_app, function, lambda *_, **options: seen.update(options) or {})
    assert _run(monkeypatch, *words, "--model", "file:net.py:make", "--quiet") == 0
    assert (seen["model"], seen["trust"]) == ("file:net.py:make", True)


def test_the_alphabet_is_an_option(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    words = (
        "--task",
        "speech-recognition",
        "--model",
        "hf:wav2vec2",
        "--weights",
        "none",
        "--budget",
        "macs<=0.5x",
    )
    assert _run(monkeypatch, "shape", *words, "--data", "gone.csv", "--alphabet", "abc", "--dry-run") == 2
    assert "gone.csv" in capsys.readouterr().err
