"""`penjing export` on a small run: files that ONNX Runtime and OpenVINO answer from as PyTorch does."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import tiny_recipe

from penjing.cli import main
from penjing.core import RunError, UsageError
from penjing.export import load
from penjing.pipeline import export, shape
from penjing.sources import load_source

RECIPE = {
    "task": "image-classification",
    "data": "builtin:digits",
    "budget": "macs<=0.6x",
    "image_size": 8,
    "steps": {
        "transfer": {"epochs": 1, "probe_epochs": 0, "lr": 0.01},
        "prune": {"criterion": "l2", "scope": "uniform", "round_to": 1},
        "recover": {"epochs": 1, "lr": 0.01, "reconstruct": False},
        "controls": {"scratch": False},
        "measure": {"elsewhere": False, "repeats": 3, "rounds": 5, "batch_sizes": [4]},
    },
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    shape(tiny_recipe(RECIPE, folder), folder / "run", trust=True)
    return folder / "run"


def code_of(run: Path) -> str:
    return f"file:{run.parent / 'net.py'}:tiny"


def expected(run: Path, pictures: torch.Tensor) -> np.ndarray:
    source = load_source(code_of(run), weights="none", num_classes=10, trust_files=True)
    with torch.no_grad():
        return load(run / "model", model=source.model)(pictures).numpy()


def test_the_onnx_file_answers_any_batch_as_the_slim_network(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = pytest.importorskip("onnxruntime")
    monkeypatch.setattr("sys.argv", ["penjing", "export", str(run), "--to", "onnx", "--model", code_of(run)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    told = " ".join(capsys.readouterr().out.split())
    assert "model.onnx" in told
    assert "any batch" in told
    pictures = torch.randn(5, 3, 8, 8)
    session = runtime.InferenceSession(run / "export" / "model.onnx")
    (answer,) = session.run(None, {session.get_inputs()[0].name: pictures.numpy()})
    np.testing.assert_allclose(answer, expected(run, pictures), atol=1e-4)  # float32, other kernels


def test_the_record_says_what_the_file_is(run: Path) -> None:
    pytest.importorskip("onnxruntime")
    found = export(str(run), "onnx", trust=True, model=code_of(run))
    record = json.loads(found.record.read_text())
    assert (record["format"], record["file"], record["varying"]) == ("onnx", "model.onnx", ["batch"])
    assert record["inputs"] == [{"name": "x", "dtype": "float32", "dims": ["batch", 3, 8, 8]}]
    assert record["about"]["labels"] == [str(digit) for digit in range(10)]
    assert record["about"]["preprocessing"]["input_size"] == [3, 8, 8]
    assert [one["shapes"] for one in record["checks"]] == [[[n, 3, 8, 8]] for n in (2, 4, 1)]
    assert 0 <= record["error"] < 1e-4
    assert record["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert sorted(place.name for place in (run / "export").iterdir() if "model" in place.name) == [
        "model.onnx",
        "model.onnx.json",
    ]


def test_the_openvino_file_answers_as_the_slim_network(run: Path) -> None:
    openvino = pytest.importorskip("openvino")
    found = export(str(run), "openvino", trust=True, model=code_of(run))
    pictures = torch.randn(3, 3, 8, 8)
    hints = {"INFERENCE_PRECISION_HINT": "f32"}
    answer = openvino.Core().compile_model(found.path, "CPU", hints)(pictures.numpy())[0]
    np.testing.assert_allclose(answer, expected(run, pictures), atol=1e-4)  # float32, other kernels


@pytest.mark.parametrize(
    ("to", "int8", "told"),
    [
        ("executorch", False, "not built yet. There are: onnx, openvino"),
        ("torch", False, r"not built yet(.*)penjing.load"),
        ("onyx", False, "is not known. There are: onnx, openvino"),
        ("onnx", True, "--int8 is not built yet"),
    ],
)
def test_what_is_not_built_is_refused_by_name(run: Path, to: str, int8: bool, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        export(str(run), to, int8=int8)


def test_a_run_without_a_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(RunError, match="has not finished"):
        export(str(tmp_path), "onnx")
    with pytest.raises(UsageError, match="no folder"):
        export("timm:resnet18", "onnx")
