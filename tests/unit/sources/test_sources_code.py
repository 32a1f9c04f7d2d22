from pathlib import Path

import pytest
import torch

from penjing.core import SourceError
from penjing.sources import find_head, load_source

torch.set_num_threads(1)

CODE = """
from dataclasses import dataclass
import torch
from torch import nn


@dataclass
class Options:
    width: int = 4


class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body = nn.Conv2d(1, width, 3)
        self.head = nn.Linear(width, 6, bias=False)
        self.aux = nn.Sequential(nn.Conv2d(width, 2, 1), nn.Conv2d(2, 6, 1))

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


def make(width=4):
    return Net(Options(width).width)


def sized():
    net = Net(4)
    net.input_size, net.mean, net.std = (1, 8, 8), (0.1,), (0.3,)
    return net


def nothing():
    return 3


def fails():
    raise RuntimeError("no luck")
"""


@pytest.fixture
def source(tmp_path: Path) -> str:
    (tmp_path / "nets.py").write_text(CODE)
    return f"file:{tmp_path / 'nets.py'}"


def test_a_factory_in_a_file(source: str) -> None:
    loaded = load_source(f"{source}:make", args={"width": 5}, trust_files=True)
    assert loaded.model.head.in_features == 5
    assert (loaded.weights, loaded.family, loaded.args) == ("factory", "net", {"width": 5})
    assert (loaded.reads.size, len(loaded.reads.mean)) == ((1, 224, 224), 1)
    sized = load_source(f"{source}:sized", trust_files=True)
    assert (sized.reads.size, sized.reads.mean, sized.reads.std) == ((1, 8, 8), (0.1,), (0.3,))


def test_new_heads_for_a_factorys_network(source: str) -> None:
    loaded = load_source(f"{source}:make", num_classes=3, trust_files=True)
    assert find_head(loaded.model) == "head"
    assert loaded.model(torch.zeros(2, 1, 8, 8)).shape == (2, 3)
    assert loaded.model.head.bias is None
    assert loaded.model.aux[1].out_channels == 3
    assert loaded.args == {"num_classes": 3}


def test_weights_of_a_factorys_network_from_a_file(source: str, tmp_path: Path) -> None:
    state = load_source(f"{source}:make", trust_files=True).model.state_dict()
    torch.save(state, tmp_path / "w.pt")
    loaded = load_source(f"{source}:make", weights=str(tmp_path / "w.pt"), num_classes=2, trust_files=True)
    assert torch.equal(loaded.model.body.weight, state["body.weight"])
    assert loaded.weights == "file w.pt"


@pytest.mark.parametrize(
    ("factory", "says"),
    [
        ("mak", "has no function 'mak'. It has: make"),
        ("nothing", "returned int, not a torch.nn.Module"),
        ("fails", "failed with RuntimeError: no luck"),
    ],
)
def test_factories_that_cannot_be_used(source: str, factory: str, says: str) -> None:
    with pytest.raises(SourceError, match=says):
        load_source(f"{source}:{factory}", trust_files=True)


def test_code_must_be_trusted_and_is_not_run_before(tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    for source in (f"file:{tmp_path / 'evil.py'}:make", "hub:owner/repo:net"):
        with pytest.raises(SourceError, match="trust_files=True"):
            load_source(source)
    assert not (tmp_path / "ran").exists()


def test_files_that_cannot_be_imported(tmp_path: Path, source: str) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        load_source(f"file:{tmp_path / 'none.py'}:make", trust_files=True)
    (tmp_path / "broken.py").write_text("def make(:")
    with pytest.raises(SourceError, match="failed with SyntaxError"):
        load_source(f"file:{tmp_path / 'broken.py'}:make", trust_files=True)
    with pytest.raises(SourceError, match="decides itself about its weights"):
        load_source(f"{source}:make", weights="pretrained", trust_files=True)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub"


def test_torch_hub_out_of_reach(hub: Path) -> None:
    with pytest.raises(SourceError, match=r"cannot be fetched from https://github.com"):
        load_source("hub:owner/repo:net", trust_files=True)


def test_torch_hub_from_its_cache(hub: Path) -> None:
    folder = hub / "owner_repo_main"
    folder.mkdir(parents=True)
    (folder / "hubconf.py").write_text(
        "import torch\n\ndef net(width=2):\n    return torch.nn.Linear(width, 3)\n"
    )
    loaded = load_source("hub:owner/repo:main:net", args={"width": 7}, trust_files=True)
    assert loaded.model.in_features == 7
    with pytest.raises(SourceError, match="failed with"):
        load_source("hub:owner/repo:main:absent", trust_files=True)
