"""Hostile and torn artifacts and plans: each is refused with an error that names the file, and quickly."""

import hashlib
import json
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import penjing as pj

X = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    slim, plan = pj.prune(network(), X, ratio=0.5)
    return pj.save(tmp_path / "m", slim, plan, source="file:net.py:make")


def refused(folder: Path) -> str:
    with pytest.raises(pj.PenjingError) as caught:
        pj.load(folder, model=network())
    return str(caught.value)


def edit(folder: Path, change: dict[str, Any]) -> None:
    file = folder / "structure.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))


def with_weights(folder: Path, content: bytes) -> None:
    """Weights with a checksum that fits, as an attacker would write them."""
    (folder / "model.safetensors").write_bytes(content)
    edit(folder, {"weights_sha256": hashlib.sha256(content).hexdigest()})


def test_the_untouched_artifact_loads(artifact: Path):
    assert pj.load(artifact, model=network())(X).shape == (2, 3)


@pytest.mark.parametrize("name", ["structure.json", "model.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_torn_file(artifact: Path, name: str, share: float):
    file = artifact / name
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    assert name in refused(artifact)


def test_one_altered_byte_anywhere_in_the_weights(artifact: Path):
    file = artifact / "model.safetensors"
    content = bytearray(file.read_bytes())
    for position in (0, 9, len(content) // 2, len(content) - 1):
        changed = bytearray(content)
        changed[position] ^= 1
        file.write_bytes(changed)
        assert "model.safetensors" in refused(artifact)


def header(tensors: dict[str, Any], data: bytes = b"") -> bytes:
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text + data


LYING_WEIGHTS = {
    "nothing": b"",
    "a giant header": struct.pack("<Q", 2**62) + b"{}",
    "no header": struct.pack("<Q", 40) + b"{}",
    "not JSON": struct.pack("<Q", 4) + b"nope",
    "deep JSON": struct.pack("<Q", 100_000) + b"[" * 100_000,
    "offsets past the end": header({"0.weight": {"dtype": "F32", "shape": [4, 5], "data_offsets": [0, 80]}}),
    "a giant tensor": header(
        {"0.weight": {"dtype": "F32", "shape": [2**40, 2**20], "data_offsets": [0, 2**62]}}
    ),
    "a negative shape": header(
        {"0.weight": {"dtype": "F32", "shape": [-4, 5], "data_offsets": [0, 80]}}, bytes(80)
    ),
    "overlapping tensors": header(
        {n: {"dtype": "F32", "shape": [4, 5], "data_offsets": [0, 80]} for n in ("0.weight", "2.weight")},
        bytes(80),
    ),
    "an unknown dtype": header(
        {"0.weight": {"dtype": "EVIL", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)
    ),
    "missing tensors": header(
        {"0.weight": {"dtype": "F32", "shape": [4, 5], "data_offsets": [0, 80]}}, bytes(80)
    ),
    "a name that walks": header(
        {"../../x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)
    ),
    "a pickle": pickle.dumps({"0.weight": [1.0]}),
}


@pytest.mark.parametrize("name", sorted(LYING_WEIGHTS))
def test_lying_weights_with_a_fitting_checksum(artifact: Path, name: str):
    with_weights(artifact, LYING_WEIGHTS[name])
    assert "model.safetensors" in refused(artifact)


class Trap:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return pytest.fail, ("a pickle was read",)


def test_pickles_are_never_read(artifact: Path):
    with_weights(artifact, pickle.dumps(Trap()))
    refused(artifact)
    (artifact / "structure.json").write_bytes(pickle.dumps(Trap()))
    refused(artifact)


def plan_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "structure.json").read_text())["plan"]


def removal(name: str = "0.weight", dim: Any = 0, indices: Any = "0") -> dict[str, Any]:
    tensors = [{"name": name, "dim": dim, "indices": indices}]
    return {"kind": "remove_units", "group": "g", "granularity": "neuron", "units": "0", "tensors": tensors}


def attribute(name: str, item: Any = None, value: Any = 1) -> dict[str, Any]:
    return {"kind": "set_attribute", "module": "0", "attribute": name, "item": item, "value": value}


HOSTILE_EDITS = {
    "a giant run": removal(indices="0-99999999999"),
    "an endless number": removal(indices="9" * 5000),
    "many giant runs": removal(indices=",".join(f"{i * 9_000_000}-{(i + 1) * 9_000_000 - 1}" for i in range(50))),
    "a negative index": removal(indices="-3"),
    "a reversed run": removal(indices="7-3"),
    "an index twice": removal(indices="1,1"),
    "words": removal(indices="one"),
    "a float": removal(indices=1.5),
    "no index": removal(name="2.bias", indices=""),
    "an index past the end": removal(indices="8"),
    "every index": removal(indices="0-7"),
    "a dim past the end": removal(dim=2),
    "a negative dim": removal(dim=-1),
    "a true dim": removal(dim=True),
    "a float dim": removal(dim=0.0),
    "another name": removal(name="../../etc/passwd"),
    "a dunder name": removal(name="__class__"),
    "an attribute that is none": attribute("weight"),
    "a dunder attribute": attribute("__class__"),
    "hooks": attribute("_forward_hooks", 0, 1),
    "a giant value": attribute("in_features", None, 2**70),
    "text for a value": attribute("in_features", None, "5"),
    "a block elsewhere": {"kind": "drop_block", "module": "../0", "tensors": []},
    "code": {"kind": "eval", "code": "import os"},
    "an unknown replacement": {"kind": "replace_component", "module": "0", "with": "os.system"},
    "a number": 3,
    "nothing": None,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(HOSTILE_EDITS))
def test_hostile_edits(artifact: Path, name: str):
    plan = plan_of(artifact)
    edit(artifact, {"plan": {**plan, "edits": [*plan["edits"], HOSTILE_EDITS[name]]}})
    refused(artifact)


@pytest.mark.parametrize("change", [
    {"schema": 99}, {"schema": None}, {"plan": None}, {"plan": []}, {"plan": "x" * 1000}, {"aliases": None},
    {"aliases": {"0.weight": "../../x"}}, {"aliases": {"2.weight": "0.weight"}}, {"aliases": ["a"]},
    {"weights_sha256": None}, {"fingerprint": "0" * 64}, {"fingerprint": None}, {"channels_last": 3},
    {"frozen_parameters": 7},
], ids=str)  # fmt: skip
def test_structures_that_lie(artifact: Path, change: dict[str, Any]):
    edit(artifact, change)
    refused(artifact)


@pytest.mark.parametrize(
    "missing", ["source", "source_args", "plan", "fingerprint", "weights_sha256", "aliases", "schema"]
)
def test_structures_that_lack_a_field(artifact: Path, missing: str):
    file = artifact / "structure.json"
    body = json.loads(file.read_text())
    del body[missing]
    file.write_text(json.dumps(body))
    refused(artifact)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 200_000, '"x"', "\x00"])
def test_structures_that_are_none(artifact: Path, text: str):
    (artifact / "structure.json").write_text(text)
    assert "structure.json" in refused(artifact)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b'{"schema": NaN}'])
def test_structures_of_odd_bytes(artifact: Path, content: bytes):
    (artifact / "structure.json").write_bytes(content)
    assert "structure.json" in refused(artifact)


@pytest.mark.parametrize("source", [
    "file:/etc/passwd:x", "hub:evil/repo:model", "timm:../../x", "timm:__class__", "torchvision:os", "nonsense", "", 3,
    None, "folder:..", "torchvision:resnet18; import os",
], ids=str)  # fmt: skip
def test_sources_that_lie(artifact: Path, source: Any, tmp_path: Path):
    edit(artifact, {"source": source})
    with pytest.raises(pj.PenjingError):
        pj.load(artifact)


@pytest.mark.parametrize(
    "args",
    [{"pretrained": True}, {"checkpoint_path": "/etc/passwd"}, {"num_classes": "x"}, 3, ["a"]],
    ids=str,
)
def test_source_arguments_that_lie(artifact: Path, args: Any):
    edit(artifact, {"source": "timm:resnet10t", "source_args": args})
    with pytest.raises(pj.PenjingError):
        pj.load(artifact)
