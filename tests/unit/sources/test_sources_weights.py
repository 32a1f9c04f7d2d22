import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from penjing.core import SourceError
from penjing.sources import load_source
from penjing.sources._weights import read_weights

torch.set_num_threads(1)

NET = "torchvision:shufflenet_v2_x0_5"


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    torch.manual_seed(7)
    return load_source(NET).model.state_dict()


def write(path: Path, state: dict[str, Tensor], nested: str | None = None) -> str:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({nested: state, "epoch": 3} if nested else state, path)
    return str(path)


@pytest.mark.parametrize(
    ("name", "nested"), [("w.safetensors", None), ("w.pt", None), ("w.pth", "state_dict")]
)
def test_files_are_loaded_whole(
    name: str, nested: str | None, tmp_path: Path, state: dict[str, Tensor]
) -> None:
    loaded = load_source(NET, weights=write(tmp_path / name, state, nested))
    assert loaded.weights == f"file {name}"
    assert all(torch.equal(value, state[key]) for key, value in loaded.model.state_dict().items())


def test_a_new_head_keeps_the_body(tmp_path: Path, state: dict[str, Tensor]) -> None:
    loaded = load_source(NET, weights=write(tmp_path / "w.pt", state), num_classes=1000)
    own = loaded.model.state_dict()
    differing = [key for key, value in own.items() if not torch.equal(value, state[key])]
    assert differing == ["fc.weight", "fc.bias"]
    assert load_source(NET, weights=str(tmp_path / "w.pt"), num_classes=3).model.fc.out_features == 3


def test_the_head_of_a_file_is_kept_when_the_structure_asks_for_it(tmp_path: Path) -> None:
    mine = load_source(NET, num_classes=3).model.state_dict()
    path = write(tmp_path / "w.safetensors", mine)
    loaded = load_source(NET, weights=path, args={"num_classes": 3})
    assert torch.equal(loaded.model.fc.weight, mine["fc.weight"])
    with pytest.raises(SourceError, match=r"fc.weight is \(3, 1024\) in the file, \(1000, 1024\)"):
        load_source(NET, weights=path)


def test_old_files_without_batch_counters_and_with_a_prefix(tmp_path: Path, state: dict[str, Tensor]) -> None:
    old = {f"module.{k}": v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    loaded = load_source(NET, weights=write(tmp_path / "w.pt", old))
    assert torch.equal(loaded.model.fc.weight, state["fc.weight"])


def test_keys_that_do_not_fit_are_named(tmp_path: Path, state: dict[str, Tensor]) -> None:
    changed = dict(state)
    changed["conv9.weight"] = changed.pop("conv1.0.weight")
    with pytest.raises(SourceError) as failure:
        load_source(NET, weights=write(tmp_path / "w.pt", changed), num_classes=2)
    assert "missing in the file (1): conv1.0.weight" in str(failure.value)
    assert "unexpected in the file (1): conv9.weight" in str(failure.value)
    changed = {**state, "conv1.0.weight": torch.zeros(5, 3, 3, 3)}
    with pytest.raises(SourceError, match=r"conv1.0.weight is \(5, 3, 3, 3\) in the file, \(24, 3, 3, 3\)"):
        load_source(NET, weights=write(tmp_path / "w.pt", changed), num_classes=2)


class Attack:
    def __init__(self, target: str) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return (exec, (f"open({self.target!r}, 'w').close()",))


@pytest.mark.parametrize("name", ["w.pt", "w.bin"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_would_run_code_is_refused(name: str, zipped: bool, tmp_path: Path) -> None:
    victim, path = tmp_path / "ran", tmp_path / name
    if zipped:
        torch.save({"fc.weight": Attack(str(victim))}, path)
    else:
        path.write_bytes(pickle.dumps({"fc.weight": Attack(str(victim))}))
    with pytest.raises(SourceError, match=r"refused: .*would run code"):
        load_source(NET, weights=str(path))
    assert not victim.exists()


def test_the_attack_would_have_worked(tmp_path: Path) -> None:
    victim = tmp_path / "ran"
    pickle.loads(pickle.dumps(Attack(str(victim))))
    assert victim.exists()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("w.safetensors", b"\x08\x00", "cannot be read"),
        ("w.pt", b"PK\x03\x04 torn", "cannot be read"),
        ("w.pt", b"", "cannot be read"),
        ("w.onnx", b"x", "unknown suffix '.onnx'"),
    ],
)
def test_torn_and_foreign_files(name: str, content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=says):
        read_weights(tmp_path / name)


def test_files_without_weights(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(SourceError, match="hold no state dict"):
        read_weights(tmp_path / "list.pt")
    with pytest.raises(SourceError, match="is not a file"):
        load_source(NET, weights=str(tmp_path / "none.pt"))
