"""Forty networks of the zoo: half of every group removed, proven, and most parameters able to shrink.

`make zoo` runs all of them, at full size and with every figure.
"""

import pytest

from benchmarks.zoo_worker import measure_one

SAMPLE = (
    "torchvision:swin_t", "torchvision:shufflenet_v2_x0_5", "torchvision:mnasnet0_5",
    "timm:levit_128s", "timm:xcit_nano_12_p16_224", "timm:crossvit_tiny_240", "timm:pvt_v2_b0", "timm:res2net50_14w_8s",
    "timm:test_nfnet", "timm:repvgg_a0", "timm:skresnet18", "timm:resmlp_12_224", "timm:test_maxvit", "timm:dla46_c",
    "transformers:bert", "transformers:albert", "transformers:deberta_v2", "transformers:mpnet", "transformers:gpt2",
    "transformers:bloom", "transformers:llama", "transformers:gemma2", "transformers:falcon_new",
    "transformers:mixtral",
    "transformers:mamba", "transformers:t5", "transformers:whisper", "transformers:wav2vec2", "transformers:clip",
    "transformers:swinv2", "transformers:segformer", "transformers:mobilevit",
    "smp:Unet.mobilenet_v2", "smp:FPN", "x_transformers:decoder.kv_heads", "x_transformers:encoder.macaron",
    "own:conformer", "own:wavenet", "own:einops_attention", "own:grouped_queries_rotary",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("spec", SAMPLE)
def test_half_of_a_network_of_the_zoo_is_proven(spec: str):
    row = measure_one(spec)
    assert row["status"] == "verified"
    assert row["error"] <= 1e-9
    assert row["skipped"] == []
    assert row["unknown_ops"] == []
    assert row["shrinkable"] >= (
        0.75 if spec == "transformers:clip" else 0.9
    )  # both encoders hand out their streams
    assert row["params_kept"] < 0.6
