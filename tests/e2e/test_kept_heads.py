"""Checkpoints that were trained for just this data keep their head from the first step to the saved network."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import penjing as pj
from penjing.core import DataError, Recipe, UsageError
from penjing.pipeline import compare, shape
from penjing.pipeline._events import Event
from penjing.pipeline._job import Inputs, read_state, state_file
from penjing.recover import evaluate

transformers = pytest.importorskip("transformers")
WORDS = ("good", "bad", "fine", "poor", "well", "ill")
STILL: dict[str, Any] = {
    "transfer": {"epochs": 1, "probe_epochs": 3, "lr": 1e-30, "weight_decay": 0.0, "batch_size": 8},
    "prune": {"criterion": "l2", "round_to": 1},
    "recover": {"epochs": 1, "batch_size": 8},
    "controls": {"scratch": False, "smaller": "none"},
    "measure": {"elsewhere": False, "repeats": 3, "rounds": 3, "batch_sizes": [2]},
}


@pytest.fixture
def judge(tmp_path: Path) -> Path:
    """A tiny BERT that was fine-tuned for the classes pos and neg, in that order, and its tokenizer."""
    folder = tmp_path / "judge"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    transformers.BertTokenizer(vocab={piece: n for n, piece in enumerate(pieces)}).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(pieces), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=32, id2label={0: "pos", 1: "neg"}, label2id={"pos": 0, "neg": 1},
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture
def reviews(tmp_path: Path) -> str:
    rng, path = np.random.default_rng(0), tmp_path / "reviews.csv"
    rows = {" ".join(rng.choice(WORDS, rng.integers(3, 9))) for _ in range(90)}
    path.write_text(
        "text,label\n" + "".join(f"{t},{('neg', 'pos')[i % 2]}\n" for i, t in enumerate(sorted(rows)))
    )
    return str(path)


@pytest.fixture
def listener(tmp_path: Path) -> Path:
    """A tiny wav2vec2 that was fine-tuned to spell with capitals, and its vocabulary."""
    folder = tmp_path / "listener"
    symbols = ["<pad>", "<s>", "</s>", "<unk>", "|", "C", "B", "A", "Z"]
    config = transformers.Wav2Vec2Config(
        vocab_size=len(symbols), pad_token_id=0, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, conv_dim=[16, 16], conv_kernel=[10, 3], conv_stride=[20, 4], num_feat_extract_layers=2,
        num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2, feat_extract_norm="layer",
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.Wav2Vec2ForCTC(config).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({s: n for n, s in enumerate(symbols)}))
    return folder


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    soundfile = pytest.importorskip("soundfile")
    pytest.importorskip("jiwer")
    folder, rng = tmp_path / "clips", np.random.default_rng(0)
    folder.mkdir()
    rows = ["path,transcript"]
    for n in range(24):
        soundfile.write(folder / f"{n}.wav", rng.standard_normal(6400 + 400 * (n % 3)) * 0.1, 16_000)
        rows.append(f"{n}.wav,{('ab', 'ba c', 'c', 'a a')[n % 4]}")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")
    return folder


def ran(out: Path, **values: Any) -> tuple[dict[str, Any], list[str]]:
    notes: list[str] = []
    recipe = Recipe.of({"budget": "macs<=0.6x", "steps": STILL} | values)
    found = shape(
        recipe, out, listen=lambda event: notes.append(event.text) if event.kind == "note" else None
    )
    return found, notes


def figures(found: dict[str, Any], name: str) -> dict[str, Any]:
    return next(row for row in found["rows"] if row["name"] == name)


def test_a_classifier_answers_as_its_checkpoint_did(judge: Path, reviews: str, tmp_path: Path) -> None:
    values = {"task": "text-classification", "model": f"hf:{judge}", "data": reviews}
    found, notes = ran(tmp_path / "run", **values)
    assert any("own head is kept" in note and "rows in the data's order" in note for note in notes)
    inputs = Inputs(recipe=Recipe.of({"budget": "macs<=0.6x", "steps": STILL} | values))
    kept = read_state(inputs.fresh(), state_file(tmp_path / "run", "transfer"))
    own = transformers.BertForSequenceClassification.from_pretrained(judge).eval()
    batch, _ = next(iter(inputs.data.batches("certification", 16)))
    assert inputs.data.labels == ("neg", "pos")
    with torch.no_grad():
        assert torch.equal(kept(**batch).logits, own(**batch).logits[:, [1, 0]])
    assert figures(found, "base")["accuracy"] == figures(found, "transferred")["accuracy"]
    epochs = json.loads((tmp_path / "run" / "run.json").read_text())
    assert epochs["steps"][0]["figures"]["head_kept"] is True
    exported = tmp_path / "run" / "export" / "transformers" / "config.json"
    if exported.is_file():
        assert json.loads(exported.read_text())["id2label"] == {"0": "neg", "1": "pos"}
    slim = pj.load(tmp_path / "run" / "model")
    answer = evaluate(slim, inputs.task(), inputs.data, "certification", 64)
    assert answer["accuracy"] == figures(found, "slim")["accuracy"]
    beside = compare(str(tmp_path / "run"), f"hf:{judge}", data=reviews, batch_sizes=(2,))
    assert beside["rows"][1]["accuracy"] == figures(found, "base")["accuracy"]


def test_checkpoints_that_order_their_classes_differently_are_compared_class_by_class(
    judge: Path, reviews: str, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(judge, other)
    turned = transformers.BertForSequenceClassification.from_pretrained(judge)
    with torch.no_grad():
        for value in turned.classifier.parameters():
            value.copy_(value[[1, 0]].clone())
    turned.config.id2label, turned.config.label2id = {0: "neg", 1: "pos"}, {"neg": 0, "pos": 1}
    turned.save_pretrained(other)
    a, b = f"hf:{judge}", f"hf:{other}"
    found = compare(a, b, data=reviews, batch_sizes=(2,), task="text-classification")
    assert found["agreement"] == 1.0
    assert found["rows"][0]["accuracy"] == found["rows"][1]["accuracy"]
    assert "stand for" not in found["note"]
    turned.config.id2label, turned.config.label2id = (
        {0: "LABEL_0", 1: "LABEL_1"},
        {"LABEL_0": 0, "LABEL_1": 1},
    )
    turned.save_pretrained(other)
    found = compare(a, b, data=reviews, batch_sizes=(2,), task="text-classification")
    assert f"Nothing tells what the outputs of {b} stand for" in found["note"]
    turned.config.id2label, turned.config.label2id = {0: "no", 1: "yes"}, {"no": 0, "yes": 1}
    turned.save_pretrained(other)
    with pytest.raises(UsageError, match="knows the classes no, yes, the data has neg, pos"):
        compare(a, b, data=reviews, batch_sizes=(2,), task="text-classification")


def test_a_run_that_goes_on_has_the_same_head(judge: Path, reviews: str, tmp_path: Path) -> None:
    steps = STILL | {"transfer": STILL["transfer"] | {"epochs": 3}}
    values = {"task": "text-classification", "model": f"hf:{judge}", "data": reviews, "budget": "macs<=0.6x"}
    recipe, epochs = Recipe.of(values | {"steps": steps}), []

    def stop(event: Event) -> None:
        if event.kind == "progress" and "selection_loss" in event.figures:
            epochs.append(event.stage)
            if len(epochs) == 2:
                raise KeyboardInterrupt
        if event.kind == "start" and event.step == "prune":
            raise KeyboardInterrupt

    for resume in (False, True):
        with pytest.raises(KeyboardInterrupt):
            shape(recipe, tmp_path / "run", resume=resume, listen=stop)
    assert epochs == ["transfer"] * 4
    kept = read_state(Inputs(recipe=recipe).fresh(), state_file(tmp_path / "run", "transfer"))
    own = transformers.BertForSequenceClassification.from_pretrained(judge)
    assert torch.equal(kept.get_submodule("classifier").weight, own.classifier.weight[[1, 0]])


def test_a_speech_network_spells_with_the_alphabet_it_was_trained_with(
    listener: Path, clips: Path, tmp_path: Path
) -> None:
    values = {"task": "speech-recognition", "model": f"hf:{listener}", "data": str(clips)}
    found, notes = ran(tmp_path / "run", **values)
    assert any("own head is kept: it was trained for these symbols" in note for note in notes)
    assert any("upper case" in note for note in notes)
    inputs = Inputs(recipe=Recipe.of({"budget": "macs<=0.6x", "steps": STILL} | values))
    assert inputs.data.labels == ("<pad>", "<s>", "</s>", "<unk>", " ", "C", "B", "A", "Z")
    kept = read_state(inputs.fresh(), state_file(tmp_path / "run", "transfer"))
    own = transformers.Wav2Vec2ForCTC.from_pretrained(listener).eval()
    batch, spoken = next(iter(inputs.data.batches("certification", 4)))
    with torch.no_grad():
        assert torch.equal(kept(**batch).logits, own(**batch).logits)
    assert set(inputs.task().truths((batch, spoken))) <= {"AB", "BA C", "C", "A A"}
    assert figures(found, "base")["wer"] == figures(found, "transferred")["wer"]
    again = compare(str(tmp_path / "run"), str(tmp_path / "run"), data=str(clips), batch_sizes=(2,))
    assert again["data"]["split"] == "certification"
    assert again["rows"][0]["wer"] == figures(found, "slim")["wer"]
    beside = compare(str(tmp_path / "run"), f"hf:{listener}", data=str(clips), batch_sizes=(2,))
    assert beside["rows"][1]["wer"] == figures(found, "base")["wer"]
    table = clips / "metadata.csv"
    table.write_text(table.read_text().replace("ba c", "c").replace("a a", "c c"))
    other = compare(str(tmp_path / "run"), str(tmp_path / "run"), data=str(clips), batch_sizes=(2,))
    assert (other["data"]["split"], other["data"]["n"]) == ("all", 24)
    table.write_text(table.read_text().replace("c c", "d c"))
    with pytest.raises(DataError, match=r"lacks 'D' \(6 times\)"):
        compare(str(tmp_path / "run"), str(tmp_path / "run"), data=str(clips), batch_sizes=(2,))


def test_an_alphabet_that_lacks_a_letter_gives_way_and_the_letter_is_named(
    listener: Path, clips: Path, tmp_path: Path
) -> None:
    table = clips / "metadata.csv"
    table.write_text(table.read_text().replace("ba c", "bad c"))
    values = {
        "task": "speech-recognition",
        "model": f"hf:{listener}",
        "data": str(clips),
        "budget": "macs<=0.6x",
    }
    data = Inputs(recipe=Recipe.of(values)).data
    assert data.labels == ("<blank>", " ", "a", "b", "c", "d")
    assert any("it lacks 'D' (6 times)" in remark for remark in data.remarks)
