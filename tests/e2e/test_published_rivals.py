"""Smaller networks that were published beside a transformer's, where a copy of the hub's holds them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_rivals import RECIPE

from penjing.core import Recipe, UsageError
from penjing.pipeline import dry_run, shape
from penjing.sources import family_rings, load_source, structure_missing, weights_missing

transformers = pytest.importorskip("transformers")
SMALL = "facebook/deit-tiny-patch16-224"


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty copy of the hub's, which is out of reach."""
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path / "hub"


def vit(layers: int, folder: Path) -> None:
    torch.manual_seed(layers)
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=layers, num_attention_heads=4, intermediate_size=64, image_size=16,
        patch_size=4, num_channels=1,
    )  # fmt: skip
    transformers.ViTForImageClassification(config).save_pretrained(folder)


def fetched(hub: Path, name: str) -> Path:
    """The folder of a copy of NAME."""
    place = hub / f"models--{name.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("0123abcd")
    return place / "snapshots" / "0123abcd"


def bert(folder: Path, words: tuple[str, ...], layers: int) -> None:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    transformers.BertTokenizer(vocab={piece: n for n, piece in enumerate(pieces)}).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(pieces), hidden_size=32, num_hidden_layers=layers, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=32,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(folder)


def test_the_published_size_at_equal_latency_is_the_rival(tmp_path: Path, hub: Path) -> None:
    vit(4, tmp_path / "deit-base-patch16-224")
    vit(1, fetched(hub, SMALL))
    values: dict[str, Any] = RECIPE | {"model": f"hf:{tmp_path}/deit-base-patch16-224", "model_args": {}}
    metrics = shape(Recipe.of(values | {"budget": "macs<=0.7x", "weights": "pretrained"}), tmp_path / "run")
    row = metrics["rows"][-1]
    assert (row["name"], row["source"], row["pretrained"]) == ("control:smaller", f"hf:{SMALL}", True)
    assert row["weights"].startswith("hub 0123abcd")
    seen = json.loads((tmp_path / "run" / "smaller.json").read_text())["seen"]
    assert [one["source"] for one in seen if "macs" in one][:1] == [f"hf:{SMALL}"]


def test_sizes_come_before_own_layers_and_other_lineages_after(tmp_path: Path) -> None:
    bert(tmp_path / "all-MiniLM-L6-v2", ("good",), 4)
    loaded = load_source(
        f"hf:{tmp_path}/all-MiniLM-L6-v2", num_classes=2, task="text-classification", weights="none"
    )
    sizes, layers, others = family_rings(loaded)
    assert "hf:nreimers/MiniLM-L3-H384-uncased" in {one.source for one in sizes}
    assert not any(one.source.endswith("all-MiniLM-L6-v2") for one in sizes)
    assert [len(one.layers) for one in layers] == [1, 2, 3]
    assert "hf:google/bert_uncased_L-2_H-128_A-2" in {one.source for one in others}


def test_what_lies_here_and_what_does_not(tmp_path: Path, hub: Path) -> None:
    vit(1, fetched(hub, SMALL))
    assert (structure_missing(f"hf:{SMALL}", str), weights_missing(f"hf:{SMALL}", str)) == ("", "")
    (next((hub).glob("*/snapshots/*")) / "model.safetensors").unlink()
    assert structure_missing(f"hf:{SMALL}", str) == ""
    assert weights_missing(f"hf:{SMALL}", lambda where: f"{where} is away").endswith("is away")
    assert structure_missing("hf:a/b", lambda where: "cut off") == "cut off"
    assert (structure_missing("hf:bert", str), weights_missing("hf:bert", str)) == ("", "a type has none")
    assert structure_missing("timm:resnet18", str) == ""


def test_a_rival_of_another_tokenizer_is_refused(tmp_path: Path) -> None:
    bert(tmp_path / "own", ("good", "bad"), 2)
    bert(tmp_path / "other", ("bad", "good"), 1)
    rng, path = np.random.default_rng(0), tmp_path / "reviews.csv"
    texts = sorted({" ".join(rng.choice(("good", "bad"), rng.integers(3, 9))) for _ in range(90)})
    path.write_text("text,label\n" + "".join(f"{t},{'np'[n % 2]}\n" for n, t in enumerate(texts)))
    recipe = Recipe.of({
        "task": "text-classification", "model": f"hf:{tmp_path / 'own'}", "weights": "pretrained",
        "data": {"source": str(path)}, "budget": "macs<=0.9x",
        "steps": {"controls": {"smaller": f"hf:{tmp_path / 'other'}"}},
    })  # fmt: skip
    with pytest.raises(UsageError, match=r"cannot be the rival.*another tokenizer.*id 5 is 'good'"):
        dry_run(recipe, tmp_path / "run")
