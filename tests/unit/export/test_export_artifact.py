"""Save and load, bit for bit, in a new process; nothing torn or altered is accepted."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import penjing as pj

timm = pytest.importorskip("timm")


class Tied(nn.Module):
    """Tied weights, a non-persistent buffer, an integer buffer and channels-last kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = 4
        self.embed, self.out = nn.Embedding(9, 8), nn.Linear(8, 9, bias=False)
        self.out.weight = self.embed.weight
        self.hidden = nn.Linear(8, 16)
        self.back = nn.Linear(16, 8)
        self.conv = nn.Conv2d(1, 6, 3, padding=1).to(memory_format=torch.channels_last)
        self.last = nn.Conv2d(6, 1, 3, padding=1).to(memory_format=torch.channels_last)
        self.register_buffer("scale", torch.rand(8), persistent=False)
        self.register_buffer("seen", torch.tensor(3))
        self.back.bias.requires_grad_(False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        h = self.embed(ids) * self.scale
        h = self.back(F.relu(self.hidden(h)))
        return self.last(F.relu(self.conv(self.out(h)[:, None])))


IDS = torch.arange(6).view(2, 3)


def tied() -> tuple[Tied, nn.Module, pj.Plan]:
    torch.manual_seed(0)
    model = Tied().eval()
    slim, plan = pj.prune(model, IDS, ratio=0.5)
    return model, slim, plan


def test_a_registered_network_reloads_bit_for_bit_in_a_new_process(tmp_path: Path):
    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=7).eval()
    x = torch.randn(1, 3, 64, 64)
    slim, plan = pj.prune(model, x, ratio=0.5)
    pj.save(
        tmp_path / "m",
        slim,
        plan,
        source="timm:resnet10t",
        source_args={"num_classes": 7},
        labels=list("abcdefg"),
    )
    torch.save({"x": x, "y": slim.eval()(x).detach()}, tmp_path / "xy.pt")
    code = (
        "import sys, torch, penjing as pj; torch.set_num_threads(1)\n"
        "held = torch.load(sys.argv[2], weights_only=True); model = pj.load(sys.argv[1])\n"
        "assert not model.training and not any(p.is_meta for p in model.parameters())\n"
        "print(torch.equal(model(held['x']), held['y']), 'pickle' in sys.argv[0])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "m"), str(tmp_path / "xy.pt")],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["True", "False"]
    assert sorted(f.name for f in (tmp_path / "m").iterdir()) == [
        "README.md",
        "model.safetensors",
        "structure.json",
    ]


def test_ties_buffers_formats_flags_and_attributes_come_back(tmp_path: Path):
    model, slim, plan = tied()
    pj.save(tmp_path, slim, plan, source="file:net.py:Tied")
    back = pj.load(tmp_path, model=Tied())
    assert back.out.weight is back.embed.weight
    assert torch.equal(back.scale, slim.scale)
    assert "scale" not in back.state_dict()
    assert back.seen.item() == 3
    assert back.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert [p.requires_grad for p in back.parameters()] == [p.requires_grad for p in slim.parameters()]
    assert torch.equal(back(IDS), slim(IDS))
    assert pj.verify(model, back, plan, IDS).passed


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes_come_back(tmp_path: Path, dtype: torch.dtype):
    torch.manual_seed(0)
    make = lambda: nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).to(dtype)  # noqa: E731
    x = torch.randn(2, 5, dtype=dtype)
    slim, plan = pj.prune(make(), x, ratio=0.5)
    pj.save(tmp_path, slim, plan, source="file:a.py:make")
    back = pj.load(tmp_path, model=make())
    assert {p.dtype for p in back.parameters()} == {dtype}
    assert torch.equal(back(x), slim(x))


def test_a_trained_slim_network_keeps_its_weights(tmp_path: Path):
    _, slim, plan = tied()
    with torch.no_grad():
        for parameter in slim.parameters():
            parameter.add_(1)
    pj.save(tmp_path, slim, plan, source="file:net.py:Tied")
    assert torch.equal(pj.load(tmp_path, model=Tied())(IDS), slim.eval()(IDS))


def test_a_code_source_is_not_run(tmp_path: Path):
    _, slim, plan = tied()
    trap = tmp_path / "net.py"
    trap.write_text("raise SystemExit('ran')")
    pj.save(tmp_path / "m", slim, plan, source=f"file:{trap}:Tied")
    with pytest.raises(pj.ArtifactError, match="model=my_model"):
        pj.load(tmp_path / "m")


def test_another_network_is_refused(tmp_path: Path):
    _, slim, plan = tied()
    pj.save(tmp_path, slim, plan, source="file:net.py:Tied")
    with pytest.raises(pj.PlanError, match="another network"):
        pj.load(tmp_path, model=nn.Linear(3, 3))


def test_a_slim_network_of_another_plan_is_refused(tmp_path: Path):
    model, slim, _ = tied()
    _, other = pj.prune(model, IDS, ratio=0.3)
    pj.save(tmp_path, slim, other, source="file:net.py:Tied")
    with pytest.raises(pj.ArtifactError, match=r"model\.safetensors"):
        pj.load(tmp_path, model=Tied())


def test_what_cannot_be_written(tmp_path: Path):
    _, slim, plan = tied()
    with pytest.raises(pj.ArtifactError, match="plain JSON"):
        pj.save(tmp_path / "a", slim, plan, source="file:n.py:T", source_args={"x": object()})
    with pytest.raises(pj.ArtifactError, match="plain JSON"):
        pj.save(tmp_path / "b", slim, plan, source="file:n.py:T", preprocessing={"mean": float("nan")})
    with pytest.raises(pj.SourceError):
        pj.save(tmp_path / "c", slim, plan, source="nonsense")
    with pytest.raises(pj.ArtifactError, match="meta"):
        pj.save(tmp_path / "d", slim.to("meta"), plan, source="file:n.py:T")
    assert not list(tmp_path.rglob("*.part"))
    assert not (tmp_path / "a" / "structure.json").exists()


def test_saving_again_replaces_and_leaves_nothing_behind(tmp_path: Path):
    _, slim, plan = tied()
    pj.save(tmp_path, slim, plan, source="file:net.py:Tied")
    first = {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in tmp_path.iterdir()}
    pj.save(tmp_path, slim, plan, source="file:net.py:Tied")
    assert {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in tmp_path.iterdir()} == first
    body = json.loads((tmp_path / "structure.json").read_text())
    assert body["weights_sha256"] == first["model.safetensors"]


def test_a_folder_that_is_no_artifact(tmp_path: Path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(pj.ArtifactError, match=r"structure\.json"):
            pj.load(path)
