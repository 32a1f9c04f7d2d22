import subprocess
import sys

import pytest
import torch
from torch import nn

from penjing.core import SourceError
from penjing.sources import build_source, find_head, load_source
from penjing.sources._head import replace_heads

torch.set_num_threads(1)

HEADS = {
    "torchvision:resnet18": "fc",
    "torchvision:vgg11_bn": "classifier.6",
    "torchvision:squeezenet1_1": "classifier.1",
    "torchvision:densenet121": "classifier",
    "torchvision:mobilenet_v3_small": "classifier.3",
    "torchvision:regnet_y_400mf": "fc",
    "torchvision:convnext_tiny": "classifier.2",
    "torchvision:inception_v3": "fc",
    "torchvision:googlenet": "fc",
    "torchvision:vit_b_32": "heads.head",
    "timm:inception_v3": "fc",
    "timm:inception_v4": "last_linear",
    "timm:inception_resnet_v2": "classif",
    "timm:tf_efficientnet_lite0": "classifier",
    "timm:resnet18.a1_in1k": "fc",
    "timm:levit_128s": "head.linear",
    "timm:resnetv2_18": "head.fc",
}


def layout(model: nn.Module) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {key: (value.shape, value.dtype) for key, value in model.state_dict().items()}


@pytest.mark.parametrize(("source", "head"), HEADS.items())
def test_structure_and_head_by_name(source: str, head: str) -> None:
    model = build_source(source, {"num_classes": 7})
    assert find_head(model) == head
    classifier = model.get_submodule(head)
    assert 7 in (getattr(classifier, "out_features", 0), getattr(classifier, "out_channels", 0))
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert not model.training


@pytest.mark.parametrize("source", ["timm:resnet18", "torchvision:googlenet", "torchvision:regnet_y_400mf"])
def test_what_was_loaded_is_built_again(source: str) -> None:
    loaded = load_source(source, num_classes=5)
    assert loaded.args["num_classes"] == 5
    assert loaded.weights == "none"
    assert not loaded.model.training
    assert layout(build_source(loaded.source, loaded.args)) == layout(loaded.model)


def test_auxiliary_heads_follow_the_number_of_classes() -> None:
    googlenet = build_source("torchvision:googlenet", {"num_classes": 5})
    inception = build_source("torchvision:inception_v3", {"num_classes": 5})
    for model, path in ((googlenet, "aux1.fc2"), (googlenet, "aux2.fc2"), (inception, "AuxLogits.fc")):
        assert model.get_submodule(path).out_features == 5


def test_preprocessing_is_the_registrys() -> None:
    lite = load_source("timm:tf_efficientnet_lite0", num_classes=2)
    assert (lite.reads.size, lite.reads.mean, lite.reads.std) == (
        (3, 224, 224),
        (0.5, 0.5, 0.5),
        (0.5, 0.5, 0.5),
    )
    grey = load_source("timm:resnet18", args={"in_chans": 1})
    assert (grey.reads.size, len(grey.reads.mean), len(grey.reads.std)) == ((1, 224, 224), 1, 1)
    assert grey.model(torch.zeros(1, 1, 32, 32)).shape == (1, 1000)
    inception = load_source("torchvision:inception_v3", num_classes=2)
    assert inception.reads.size == (3, 299, 299)
    assert inception.reads.mean == (0.485, 0.456, 0.406)
    assert (lite.family, inception.family) == ("efficientnet", "inception")


def test_building_leaves_the_random_numbers_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    build_source("torchvision:regnet_y_400mf", {})
    assert torch.equal(torch.rand(3), expected)


def test_a_new_head_is_a_function_of_the_seed() -> None:
    torch.manual_seed(3)
    first = load_source("timm:resnet18", num_classes=4).model.get_submodule("fc").weight
    torch.manual_seed(3)
    again = load_source("timm:resnet18", num_classes=4).model.get_submodule("fc").weight
    other = load_source("timm:resnet18", num_classes=4).model.get_submodule("fc").weight
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("timm:resnet81", "Nearest names: .*resnet18"),
        ("torchvision:incepton_v3", "Nearest names: .*inception_v3"),
        ("torchvision:fcn_resnet50", "no classification network"),
        ("timm:hf-hub:timm/resnet18", "no classification network"),
        ("timm:qqqqqqqqqqqqq", "No name is near it"),
    ],
)
def test_unknown_names(source: str, says: str) -> None:
    with pytest.raises(SourceError, match=says):
        load_source(source)
    with pytest.raises(SourceError, match=says):
        build_source(source, {})


@pytest.mark.parametrize(
    "args",
    [{"pretrained": True}, {"checkpoint_path": "x.pth"}, {"pretrained_cfg": {}}, {"weights": "DEFAULT"}],
)
def test_arguments_that_fetch_or_open_are_refused(args: dict) -> None:
    for call in (
        lambda: build_source("timm:resnet18", args),
        lambda: load_source("timm:resnet18", args=args),
    ):
        with pytest.raises(SourceError, match=next(iter(args))):
            call()


@pytest.mark.parametrize("source", ["file:net.py:make", "hub:owner/repo:net", "."])
def test_only_registered_names_are_rebuilt(source: str) -> None:
    with pytest.raises(SourceError, match="pass it as model="):
        build_source(source, {})


def test_other_mistakes_say_what_to_do() -> None:
    with pytest.raises(SourceError, match=r"penjing.load"):
        load_source(".")
    with pytest.raises(SourceError, match="num_classes is 0"):
        load_source("timm:resnet18", num_classes=0)
    with pytest.raises(SourceError, match="unexpected keyword argument 'depth'"):
        load_source("timm:resnet18", args={"depth": 3})
    with pytest.raises(SourceError, match="no classifier"):
        find_head(nn.Sequential(nn.ReLU()))


def test_importing_sources_imports_no_registry() -> None:
    code = (
        "import sys, penjing.sources; print([m for m in ('timm', 'torchvision', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(SourceError, match=r"pip install 'penjing\[vision\]'"):
        load_source("timm:resnet18")


@pytest.mark.parametrize("source", ["timm:RESNET18", "torchvision:ResNet18"])
def test_capitals_do_not_hide_the_nearest_name(source: str) -> None:
    with pytest.raises(SourceError, match="Nearest names: resnet18"):
        load_source(source)


def test_a_head_over_time_is_found_and_replaced() -> None:
    model = nn.Sequential(nn.Conv1d(4, 8, 3), nn.ReLU(), nn.Conv1d(8, 5, 1, bias=False))
    assert find_head(model) == "2"
    replace_heads(model, 7)
    assert model(torch.zeros(2, 4, 9)).shape == (2, 7, 7)
    assert model[2].bias is None
