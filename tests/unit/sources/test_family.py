"""The relatives of a network, and networks made of some layers of another."""

import pytest
import torch

from penjing.sources import build_source, family_rings, from_layers, load_source, no_family, weights_missing
from penjing.sources._family import _with_layers


def rings(spec: str, **args: object) -> list[list[str]]:
    return [[str(one) for one in ring] for ring in family_rings(load_source(spec, num_classes=3, args=args))]


def test_rings_widen_from_the_nearest_names_to_the_whole_module():
    found = rings("timm:mobilenetv3_small_050")
    assert found[0] == ["timm:mobilenetv3_small_075", "timm:mobilenetv3_small_100"]
    assert "timm:mobilenetv3_large_100" in found[1]
    everything = [name for ring in found for name in ring]
    assert len(everything) == len(set(everything))
    assert "timm:mobilenetv3_small_050" not in everything


def test_members_of_torchvision_are_what_its_module_builds():
    found = rings("torchvision:shufflenet_v2_x1_0")
    assert {name for ring in found for name in ring} == {
        "torchvision:shufflenet_v2_x0_5",
        "torchvision:shufflenet_v2_x1_5",
        "torchvision:shufflenet_v2_x2_0",
    }


@pytest.mark.parametrize("spec", ["file:net.py:tiny", "hub:a/b:c", "builtin:speaker-lstm"])
def test_what_has_no_family_is_told(spec: str):
    assert "network by itself" in no_family(spec)


def test_missing_weights_come_with_their_reason(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert weights_missing("torchvision:resnet18", lambda where: f"{where} is away").endswith("is away")
    assert weights_missing("torchvision:resnet18", lambda where: None) == ""
    assert weights_missing("timm:resnet10t", lambda where: "cut off") == "cut off"
    assert weights_missing("timm:spnasnet_100", lambda where: None) == ""


def test_fewer_layers_hold_the_values_of_the_reference():
    pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32}
    source = load_source(
        "hf:vit", num_classes=3, task="image-classification", args={**sizes, "image_size": 8, "patch_size": 4}
    )
    ring = next(family_rings(source))
    assert [one.layers for one in ring] == [(0,), (0, 2), (0, 1, 2)]
    slim = from_layers(source.model, ring[1]).eval()
    dropped, kept = source.model.state_dict(), slim.state_dict()
    own = next(name for name in kept if ".1." in name and kept[name].ndim == 2)
    assert torch.equal(kept[own], dropped[own.replace(".1.", ".2.", 1)])
    assert not torch.equal(kept[own], dropped[own])
    again = build_source(ring[1].source, ring[1].args, device="cpu")
    assert {name: tuple(t.shape) for name, t in again.state_dict().items()} == {
        name: tuple(t.shape) for name, t in kept.items()
    }


def test_values_that_list_all_layers_keep_the_entries_of_those_that_stay():
    pytest.importorskip("transformers")
    kinds = ["full_attention", "sliding_attention"] * 2
    config = {"model_type": "qwen3", "num_hidden_layers": 4, "layer_types": kinds, "hidden_size": 16}
    changed = _with_layers({"config": config}, (1, 3))["config"]
    assert (changed["num_hidden_layers"], changed["layer_types"]) == (2, ["sliding_attention"] * 2)
