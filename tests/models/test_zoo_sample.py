"""A sample of the zoo, as `make zoo` builds it: halved, proven in float64, and still networks of the same class."""

import importlib.util
import warnings

import pytest

import penjing as pj
from benchmarks.networks import PACKAGES, build
from benchmarks.zoo_worker import measure_one, shape_of
from penjing.measure import count_params

SAMPLE = """
torchvision: resnet18 resnext50_32x4d densenet121 googlenet mobilenet_v2 mobilenet_v3_small shufflenet_v2_x1_0
    efficientnet_b0 regnet_y_400mf squeezenet1_1 lraspp_mobilenet_v3_large ssdlite320_mobilenet_v3_large
timm: tf_efficientnet_lite0 inception_v3 inception_v4 inception_resnet_v2 vit_tiny_patch16_224 levit_128s
    xcit_nano_12_p16_224 efficientformerv2_s0 test_maxvit test_nfnet pvt_v2_b0 lambda_resnet26t
transformers: bert gpt2 llama gemma2 t5 mamba mixtral swin wav2vec2 clip
smp: Unet.mobilenet_v2
vit_pytorch: cross_vit.CrossViT t2t.T2TViT
x_transformers: decoder.rotary encoder.talking_heads
own: u_net conformer wavenet lstm_bidirectional_stacked packed_tagger experts early_exit
"""


def _specs() -> list[str]:
    found, prefix = [], ""
    for word in SAMPLE.split():
        if word.endswith(":"):
            prefix = word
        else:
            found.append(prefix + word)
    return found


@pytest.mark.parametrize("spec", _specs())
def test_half_of_a_network_of_the_zoo_is_proven(spec: str):
    prefix = spec.partition(":")[0]
    if importlib.util.find_spec(PACKAGES.get(prefix, prefix)) is None:
        pytest.skip(f"{prefix} is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what libraries say while they build
        model, example = build(spec)
    slim, plan = pj.prune(model, example, ratio=0.5)
    assert plan.skipped == ()
    proof = pj.verify(model, slim, plan, example)
    assert proof.passed, proof.cause
    assert proof.max_error <= 1e-9
    assert count_params(slim) < 2 / 3 * count_params(model)  # tiny ones keep tables and heads
    assert type(slim) is type(model)


@pytest.mark.parametrize("spec", ["torchvision:resnet18", "timm:vit_tiny_patch16_224", "own:conformer"])
def test_nearly_all_of_a_network_can_shrink(spec: str):
    pytest.importorskip(PACKAGES.get(spec.partition(":")[0], spec.partition(":")[0]))
    model, example = build(spec)
    assert shape_of(pj.trace(model, example))["shrinkable"] > 0.9


def test_a_row_of_the_table_times_every_stage():
    row = measure_one("own:u_net")
    assert row["status"] == "verified"
    assert 0.9 < row["shrinkable"] <= 1
    assert row["params_kept"] < 0.5
    assert all(row["seconds"][stage] > 0 for stage in ("trace", "plan", "surgery", "verify"))
