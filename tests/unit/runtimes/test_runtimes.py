"""The same network gives the same answers in every runtime, and is left as it was."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import penjing as pj
from penjing.core import UsageError
from penjing.runtimes import NodeTime, Prepared, _graph, _onnx, _openvino, prepare, steady, versions_of


class SmallConvolutional(nn.Module):
    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width)
        self.second, self.head = nn.Conv2d(width, 2 * width, 3, stride=2), nn.Linear(2 * width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.norm(self.first(x)).relu()).relu()
        return self.head(x.mean((2, 3)))


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(20, 16), nn.Linear(16, 3)
        self.layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, dropout=0.0)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        hidden = self.layer(self.table(input_ids), src_key_padding_mask=attention_mask == 0)
        return {"logits": self.head(hidden.mean(1)), "hidden": hidden}


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.LSTM(6, 8, 2, batch_first=True), nn.Linear(8, 3)

    def forward(self, frames: Tensor) -> Tensor:
        return self.head(self.body(frames)[1][0][-1])


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.into, self.attention, self.out = nn.Linear(6, 16), nn.MultiheadAttention(16, 4), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x).transpose(0, 1)
        return self.out(self.attention(x, x, x)[0].transpose(0, 1))


def pruned_attention() -> nn.Module:
    """Attention with fewer heads than its width asks for, in a replacement module."""
    torch.manual_seed(0)
    return pj.prune(
        Attending().eval(), torch.randn(2, 5, 6), ratio=0.5, granularity=("head",), protect=("into", "out")
    )[0]


@dataclass(frozen=True)
class Case:
    name: str
    build: Callable[[], nn.Module]
    inputs: Any
    weighted: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]  # op in ONNX, one input, the output
    in_openvino: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]  # one input, the output


MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
CASES = (
    Case(
        "convolutions",
        SmallConvolutional,
        torch.randn(2, 3, 9, 9),
        (
            ("Conv", (16, 3, 3, 3), (2, 16, 9, 9)),
            ("Conv", (32, 16, 3, 3), (2, 32, 4, 4)),
            ("Gemm", (5, 32), (2, 5)),
        ),
        (((16, 3, 3, 3), (2, 16, 9, 9)), ((32, 16, 3, 3), (2, 32, 4, 4)), ((5, 32), (2, 5))),
    ),
    Case(
        "mask",
        Masked,
        {"input_ids": torch.randint(20, (2, 5)), "attention_mask": MASK},
        (("Gemm", (2, 16), (2, 3)), ("Gather", (20, 16), (2, 5, 16))),
        (((3, 16), (2, 3)), ((20, 16), (2, 5, 16))),
    ),
    Case(
        "recurrent",
        Recurrent,
        torch.randn(2, 7, 6),
        (("LSTM", (7, 2, 6), (7, 1, 2, 8)),),
        (((3, 8), (2, 3)),),
    ),
    Case(
        "pruned attention",
        pruned_attention,
        torch.randn(2, 5, 6),
        (("Gemm", (16, 8), (10, 8)), ("Gemm", (8, 16), (10, 16))),
        (((8, 16), (2, 5, 8)), ((16, 8), (2, 5, 16))),
    ),
)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture(scope="module")
def network(case: Case) -> nn.Module:
    torch.manual_seed(0)
    return case.build().train()


@pytest.fixture(scope="module")
def onnx(case: Case, network: nn.Module) -> Iterator[Prepared]:
    pytest.importorskip("onnxruntime")
    with closing(prepare(network, case.inputs, runtime="onnx", threads=1)) as prepared:
        yield prepared


def reference(network: nn.Module, inputs: Any) -> tuple[Tensor, ...]:
    with closing(prepare(network, inputs)) as prepared:
        return prepared.outputs()


def check_equal(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)  # float32, other kernels


def test_onnx_answers_as_eager(case: Case, network: nn.Module, onnx: Prepared) -> None:
    check_equal(onnx.outputs(), reference(network, case.inputs))
    assert (onnx.runtime, onnx.threads, onnx.batch_size, onnx.note) == ("onnx", 1, 2, "")
    assert network.training


def test_onnx_tells_its_operators_with_their_shapes(case: Case, onnx: Prepared) -> None:
    nodes = onnx.profile(3)
    assert all(len(node.milliseconds) == 3 and min(node.milliseconds) >= 0 for node in nodes)
    assert len({node.key for node in nodes}) == len(nodes)
    for op, taken, given in case.weighted:
        assert any(node.op == op and taken in node.inputs and given in node.outputs for node in nodes), (
            op,
            nodes,
        )


def test_eager_tells_its_operators_with_their_shapes() -> None:
    with closing(prepare(SmallConvolutional(), torch.randn(1, 3, 9, 9), batch_size=4, threads=1)) as prepared:
        nodes = prepared.profile(3)
    assert prepared.batch_size == 4
    shapes = {(node.op, node.inputs[1]): node.outputs for node in nodes if len(node.inputs) == 3}
    assert shapes["aten.conv2d", (32, 16, 3, 3)] == ((4, 32, 4, 4),)
    assert shapes["aten.linear", (5, 32)] == ((4, 5),)
    assert all(len(node.milliseconds) == 3 for node in nodes)


def keys(nodes: tuple[NodeTime, ...]) -> set[str]:
    return {node.key for node in nodes if "Reorder" not in node.op}


class Feedforward(nn.Module):
    """Products of three dims, which runtimes rewrite."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.into, self.out, self.norm = nn.Linear(6, width), nn.Linear(width, 6), nn.LayerNorm(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.out(nn.functional.gelu(self.into(x))))


@pytest.fixture(scope="module")
def openvino(case: Case, network: nn.Module) -> Iterator[Prepared]:
    pytest.importorskip("openvino")
    with closing(prepare(network, case.inputs, runtime="openvino", threads=1)) as prepared:
        yield prepared


def test_openvino_answers_as_eager(case: Case, network: nn.Module, openvino: Prepared) -> None:
    check_equal(openvino.outputs(), reference(network, case.inputs))
    assert (openvino.runtime, openvino.threads, openvino.batch_size) == ("openvino", 1, 2)
    assert network.training


def test_openvino_tells_its_operators_with_their_shapes(case: Case, openvino: Prepared) -> None:
    nodes = openvino.profile(3)
    assert all(len(node.milliseconds) == 1 and min(node.milliseconds) >= 0 for node in nodes)
    assert len({node.key for node in nodes}) == len(nodes)
    for taken, given in case.in_openvino:
        assert any(taken in node.inputs and given in node.outputs for node in nodes), (taken, nodes)


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_a_runtime_does_not_leave_denormals_flushed(runtime: str) -> None:
    pytest.importorskip({"onnx": "onnxruntime"}.get(runtime, runtime))
    with closing(prepare(Feedforward(8), torch.randn(2, 5, 6), runtime=runtime, threads=1)) as prepared:
        assert denormal() != 0
        prepared.outputs()
        assert denormal() != 0
        with steady(1):
            prepared.run()
            assert denormal() == 0
        assert denormal() != 0


def denormal() -> float:
    return (torch.full((), 1e-310, dtype=torch.float64) * 1).item()


def test_openvinos_averages_since_the_start_become_those_of_the_runs_asked_for() -> None:
    first, last = {"a": 9.0, "late": 1.0}, {"a": 4.0, "late": 1.0}  # a: 2 runs at 9, 10 at 4: 8 runs at 2.75
    assert _openvino._after(first, last, 2, 8) == pytest.approx({"a": 2.75, "late": 1.0})


@pytest.mark.slow
def test_compile_answers_as_eager() -> None:
    torch.manual_seed(0)
    network = Feedforward(8).train()
    x = torch.randn(2, 5, 6)
    with closing(prepare(network, x, runtime="compile", threads=1, batch_size=3)) as prepared:
        check_equal(prepared.outputs(), reference(network, torch.cat([x, x[:1]])))
        assert (prepared.runtime, prepared.batch_size, prepared.profile(2)) == ("compile", 3, ())
    assert network.training


@pytest.mark.slow
def test_more_networks_of_a_class_than_torch_compiles_by_itself() -> None:
    """Past torch's limit (8, here 1) a network would silently run eagerly."""
    x = torch.randn(2, 5, 6)
    with torch._dynamo.config.patch(recompile_limit=1, accumulated_recompile_limit=1):
        for hidden in (8, 9, 10):
            before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
            prepare(Feedforward(hidden), x, runtime="compile", threads=1).close()
            assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before + 1


def test_compile_without_a_compiler_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> str:
        raise RuntimeError("no compiler")

    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", none)
    with pytest.raises(UsageError, match=r"needs a C\+\+ compiler, and none is found here \(no compiler\)"):
        prepare(nn.Linear(3, 2), torch.ones(1, 3), runtime="compile")


@pytest.mark.parametrize("runtime", ["eager", "onnx", "openvino"])
@pytest.mark.parametrize(
    ("build", "x"),
    [(SmallConvolutional, torch.randn(1, 3, 9, 9)), (Feedforward, torch.randn(2, 5, 6))],
    ids=["convolutions", "feedforward"],
)
def test_keys_stay_between_widths(runtime: str, build: Callable[[int], nn.Module], x: Tensor) -> None:
    if runtime != "eager":
        pytest.importorskip({"onnx": "onnxruntime"}.get(runtime, runtime))
    found = []
    for width in (11, 16):
        with closing(prepare(build(width), x, runtime=runtime)) as prepared:
            found.append(keys(prepared.profile(1)))
    assert found[0] == found[1]
    assert not any("_token_" in key for key in found[0])


class AsksForAValue(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.relu() if x.sum().item() > 0 else x.exp()


def test_a_way_that_values_decide_is_timed_as_the_inputs_go_it() -> None:
    pytest.importorskip("onnxruntime")
    for x in (torch.tensor([[-1.0, 3.0]]), torch.tensor([[-1.0, -3.0]])):
        with closing(prepare(AsksForAValue(), x, runtime="onnx")) as prepared:
            check_equal(prepared.outputs(), (x.relu() if x.sum() > 0 else x.exp(),))


class Eigenvalues(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.eigvalsh(x)


def test_a_network_that_a_runtime_cannot_take_is_told_with_a_way_out() -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(
        UsageError, match=r"runtime onnx cannot take Eigenvalues: (?s:.*)Fix: use runtime eager"
    ):
        prepare(Eigenvalues(), torch.eye(3), runtime="onnx")


def test_exporters_write_nothing_to_the_users_output(capfd: pytest.CaptureFixture[str]) -> None:
    class Eigen(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            print("from the network")
            return x + torch.linalg.eigvalsh(x.T @ x).sum()

    with pytest.raises(UsageError, match="runtime onnx cannot take Eigen"):
        prepare(Eigen(), torch.randn(4, 4), runtime="onnx")
    assert "graph" not in capfd.readouterr().out


def test_answers_that_are_not_pytorchs_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(_onnx, "answers", lambda model, inputs: (model(inputs) + 1,))
    with pytest.raises(UsageError, match=r"its answers differ from PyTorch's by"):
        prepare(nn.Linear(3, 2), torch.ones(1, 3), runtime="onnx")


def test_what_cannot_be_recorded_is_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A later torch may have no recording exporter any more."""
    pytest.importorskip("onnxruntime")

    def gone(*about: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(_graph, "_trace", gone)
    torch.manual_seed(0)
    network, x = SmallConvolutional(), torch.randn(2, 3, 9, 9)
    with closing(prepare(network, x, runtime="onnx")) as prepared:
        check_equal(prepared.outputs(), reference(network, x))


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(UsageError, match=r"'onnxruntime'(?s:.*)pip install 'penjing\[onnx\]'"):
        prepare(nn.Linear(3, 2), torch.ones(1, 3), runtime="onnx")


def test_unknown_runtimes_are_refused() -> None:
    with pytest.raises(UsageError, match="did you mean 'onnx'"):
        prepare(nn.Linear(3, 2), torch.ones(1, 3), runtime="onx")


def test_the_versions_are_those_of_the_packages_that_run() -> None:
    assert versions_of("eager") == {"torch": version("torch")}
    pytest.importorskip("onnxruntime")
    assert versions_of("onnx")["onnxruntime"] == version("onnxruntime")
