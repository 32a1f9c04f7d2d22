"""The zoo's list is complete for torchvision and timm, and every name on it is one that its library builds."""

import importlib.util

import pytest

from benchmarks.networks import LIBRARIES, PACKAGES, library
from benchmarks.zoo import listed

SPECS = listed()


def _names(prefix: str) -> set[str]:
    return {spec.partition(":")[2] for spec in SPECS if spec.startswith(f"{prefix}:")}


def test_no_network_is_listed_twice():
    assert len(SPECS) == len(set(SPECS))
    assert {spec.partition(":")[0] for spec in SPECS} <= set(LIBRARIES)


@pytest.mark.parametrize("prefix", sorted({spec.partition(":")[0] for spec in SPECS}))
def test_every_listed_network_is_known_to_its_library_and_the_reverse(prefix: str):
    if importlib.util.find_spec(PACKAGES.get(prefix, prefix)) is None:
        pytest.skip(f"{prefix} is not installed")
    assert _names(prefix) == set(library(prefix).NAMES)


def test_every_classifier_of_torchvision_is_listed():
    models = pytest.importorskip("torchvision.models")
    classifiers = models.list_models(module=models)
    assert len(classifiers) >= 80
    assert _names("torchvision") >= set(classifiers)
    for kind in ("segmentation", "detection", "optical_flow", "video"):
        assert _names("torchvision") >= set(models.list_models(module=getattr(models, kind)))


def test_every_module_of_timm_has_a_listed_network():
    timm = pytest.importorskip("timm")
    names = _names("timm")
    missing = [module for module in timm.list_modules() if not names & set(timm.list_models(module=module))]
    assert missing == []
