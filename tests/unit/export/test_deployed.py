"""Files for other runtimes: checked before they are there, and told of truthfully."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import penjing as pj
from penjing.core import UsageError
from penjing.runtimes import _deliver_onnx, _session

runtime = pytest.importorskip("onnxruntime")


class Tagger(nn.Module):
    """Token ids and a mask in, one score per token and one per text out."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(20, 8), nn.Linear(8, 3)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        hidden = self.layer(self.table(input_ids), src_key_padding_mask=attention_mask == 0)
        return {"logits": self.head(hidden), "pooled": hidden.mean(1)}


class OnlyPairs(nn.Module):
    """Its reshape takes two examples and no other number."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(2, 4).relu()


class CountsExamples(nn.Module):
    """PyTorch runs it at any batch; a graph of it holds the number of examples as a constant."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x[i] * (i + 1) for i in range(x.shape[0])])


MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
TEXTS = {"input_ids": torch.randint(20, (2, 6)), "attention_mask": MASK}


def run(path: Path, feed: dict[str, Tensor]) -> dict[str, Any]:
    session = runtime.InferenceSession(path)
    names = [value.name for value in session.get_outputs()]
    arrays = {name: tensor.numpy() for name, tensor in feed.items()}
    return dict(zip(names, session.run(None, arrays), strict=True))


def test_batch_and_length_vary_and_padding_counts(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Tagger().train()
    found = pj.to_onnx(tmp_path / "t.onnx", model, TEXTS, lengths=(1,), about={"labels": ["a", "b", "c"]})
    assert (found.varying, found.notes, model.training) == (("batch", "length"), (), True)
    ids, mask = torch.randint(20, (3, 9)), torch.ones(3, 9, dtype=torch.int64)
    mask[1, 4:] = 0
    with torch.no_grad():
        expected = model.eval()(ids, mask)
    answer = run(found.path, {"input_ids": ids, "attention_mask": mask})
    assert set(answer) == {"logits", "pooled"}
    for name, value in answer.items():
        np.testing.assert_allclose(value, expected[name].numpy(), atol=1e-5)  # float32, other kernels
    record = json.loads(found.record.read_text())
    assert [one["dims"] for one in record["inputs"]] == [["batch", "length"]] * 2
    assert [one["dims"] for one in record["outputs"]] == [["batch", "length", 3], ["batch", 8]]
    tried = [[2, 6], [4, 6], [1, 6], [2, 4], [2, 7], [4, 4]]
    assert [check["shapes"][0] for check in record["checks"]] == tried
    assert found.error == max(check["error"] for check in record["checks"]) < 1e-5


@pytest.mark.parametrize(
    ("model", "inputs", "told"),
    [
        (OnlyPairs(), torch.randn(2, 4), r"the batch is fixed: PyTorch itself refuses inputs of \(4, 4\)"),
        (CountsExamples(), torch.randn(1, 4), "batch cannot vary in the file"),
    ],
)
def test_a_batch_that_the_network_fixes_is_told(
    model: nn.Module, inputs: Tensor, told: str, tmp_path: Path
) -> None:
    found = pj.to_onnx(tmp_path / "m.onnx", model, inputs)
    (note,) = found.notes
    assert re.search(told, note), note
    assert found.varying == ()
    (answer,) = run(found.path, {"x": inputs}).values()
    np.testing.assert_allclose(answer, model(inputs).numpy(), atol=1e-6)


def test_a_file_that_answers_otherwise_never_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = _session.ran
    monkeypatch.setattr(_deliver_onnx, "ran", lambda *about: tuple(t + 0.1 for t in wrong(*about)))
    with pytest.raises(
        UsageError,
        match=r"Linear cannot be written for ONNX: Disagreement: its answers differ",
    ):
        pj.to_onnx(tmp_path / "m.onnx", nn.Linear(3, 2), torch.randn(2, 3))
    assert list(tmp_path.iterdir()) == []


def test_a_name_of_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ends in \.onnx"):
        pj.to_onnx(tmp_path / "m.xml", nn.Linear(3, 2), torch.randn(2, 3))


def test_openvino_takes_any_batch_and_length(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    torch.manual_seed(0)
    model = Tagger().eval()
    found = pj.to_openvino(tmp_path / "t.xml", model, TEXTS, lengths=(1,), about={"labels": ["a", "b", "c"]})
    assert found.varying == ("batch", "length")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["t.bin", "t.xml", "t.xml.json"]
    ids, mask = torch.randint(20, (1, 8)), torch.ones(1, 8, dtype=torch.int64)
    hints = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(found.path, "CPU", hints)
    answer = compiled({"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
    with torch.no_grad():
        expected = model(ids, mask)["logits"].numpy()
    np.testing.assert_allclose(answer["logits"], expected, atol=1e-5)  # float32, other kernels


class Branches(nn.Module):
    """Another function for large batches, or for long inputs."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim, self.head = dim, nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        answer = self.head(x)
        return answer if x.shape[self.dim] <= 8 else -answer


class Places(nn.Module):
    """Takes at least three places, as a convolution does, and at most ten, as a table of positions does."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.mix = nn.Parameter(torch.randn(10, 4)), nn.Conv1d(4, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        placed = x + self.table[: x.shape[1]]
        return self.mix(placed.mT).mT.mean(1)


@pytest.mark.parametrize(("dim", "left"), [(0, ("length",)), (1, ("batch",))])
def test_a_size_from_which_on_the_network_goes_another_way_is_fixed(
    dim: int, left: tuple[str, ...], tmp_path: Path
) -> None:
    found = pj.to_onnx(tmp_path / "m.onnx", Branches(dim).eval(), torch.randn(2, 6, 4), lengths=(1,))
    assert found.varying == left
    assert any("of 9 the network goes another way than the file" in note for note in found.notes)


def test_sizes_that_pytorch_refuses_too_are_told(tmp_path: Path) -> None:
    model, x = Places().eval(), torch.randn(2, 6, 4)
    found = pj.to_onnx(tmp_path / "m.onnx", model, x, lengths=(1,))
    assert found.varying == ("batch", "length")
    assert found.notes == ("the length may be 3 or more: PyTorch itself refuses others",)
    assert json.loads(found.record.read_text())["limits"] == {"length": [3, None]}
    longest = torch.randn(1, 10, 4)
    (answer,) = run(found.path, {"x": longest}).values()
    np.testing.assert_allclose(answer, model(longest).detach().numpy(), atol=1e-5)


def test_an_example_of_length_one_is_no_length_of_one(tmp_path: Path) -> None:
    model = nn.GRU(4, 5, batch_first=True).eval()
    found = pj.to_onnx(tmp_path / "m.onnx", model, torch.randn(1, 1, 4), lengths=(1,))
    record = json.loads(found.record.read_text())
    assert record["outputs"][0]["dims"] == ["batch", "length", 5]
    assert {check["shapes"][0][1] for check in record["checks"]} >= {1, 2}
    x = torch.randn(3, 7, 4)
    answer = run(found.path, {record["inputs"][0]["name"]: x})[record["outputs"][0]["name"]]
    np.testing.assert_allclose(answer, model(x)[0].detach().numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"lengths": 1}, r"lengths=1 must be a tuple"),
        ({"lengths": (0,)}, r"dims from 1 on"),
        ({"lengths": (-2,)}, r"dims from 1 on"),
        ({"lengths": (2,)}, r"names a dim that no input has"),
        ({"model": None}, "model must be a network"),
        ({"about": {3: "x"}}, "names as its keys, not 3"),
        ({"path": "folder.onnx"}, "is a folder"),
        ({"path": "file/m.onnx"}, "nothing can be written to"),
        ({"path": 3}, "must be a file's name"),
        ({"model": nn.Linear(3, 2).bfloat16(), "example_inputs": torch.randn(2, 3).bfloat16()}, "bfloat16"),
    ],
)
def test_what_cannot_be_written_says_so(options: dict[str, Any], says: str, tmp_path: Path) -> None:
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "file").write_text("")
    given = {"path": "m.onnx", "model": nn.Linear(3, 2), "example_inputs": torch.randn(2, 3)} | options
    path = given.pop("path")
    with pytest.raises(UsageError, match=says):
        pj.to_onnx(tmp_path / path if isinstance(path, str) else path, **given)


def test_openvino_says_what_it_computes_in_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    found = pj.to_openvino(tmp_path / "m.xml", nn.Linear(3, 2), torch.randn(2, 3))
    assert json.loads(found.record.read_text())["compared_with"] == {"INFERENCE_PRECISION_HINT": "f32"}
    assert all("computes in" in note for note in found.notes)  # none where the CPU knows no bfloat16
