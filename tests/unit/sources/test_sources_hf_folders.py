"""Folders of transformers as people have them: old, torn, in other types, without a tokenizer, or with code."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import penjing as pj
from penjing.core import SourceError, Texts
from penjing.sources import build_source, load_source
from penjing.sources._load import LoadedSource

transformers = pytest.importorskip("transformers")
torch.set_num_threads(1)

Bert = Callable[..., Path]
WEIGHTS = "model.safetensors"
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 60,
}


def opened(folder: Path | str, **options: Any) -> LoadedSource:
    asked = {"weights": "pretrained", "num_classes": 5, "task": "text-classification", **options}
    return load_source(f"hf:{folder}", **asked)


def edit(folder: Path, **values: Any) -> Path:
    content = json.loads((folder / "config.json").read_text())
    content.update(values)
    (folder / "config.json").write_text(json.dumps({k: v for k, v in content.items() if v != "gone"}))
    return folder


def embeddings(model: torch.nn.Module) -> torch.Tensor:
    return model.get_submodule("bert.embeddings.word_embeddings").weight


def test_half_precision_becomes_float32_and_it_is_said(bert: Bert) -> None:
    folder = edit(bert(), dtype="float16")
    state = {key: value.half() for key, value in load_file(folder / WEIGHTS).items()}
    save_file(state, folder / WEIGHTS)  # without metadata, as other programs write it
    loaded = opened(folder)
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}
    assert torch.equal(embeddings(loaded.model), state["bert.embeddings.word_embeddings.weight"].float())
    assert "converted from float16" in loaded.weights
    assert {p.dtype for p in opened(folder, weights="none").model.parameters()} == {torch.float32}


def test_what_is_new_and_what_is_unused_is_said(bert: Bert) -> None:
    said = opened(bert()).weights
    assert "new: bert.pooler.dense, classifier" in said
    assert "not used: cls.predictions" in said


def test_a_head_in_the_folder_is_kept_unless_a_new_one_is_asked(bert: Bert) -> None:
    folder = bert("BertForSequenceClassification", num_labels=3)
    own = load_file(folder / WEIGHTS)["classifier.weight"]
    kept, new = opened(folder, num_classes=None), opened(folder, num_classes=3)
    assert torch.equal(kept.model.classifier.weight, own)
    assert kept.args["num_classes"] == 3
    assert not torch.equal(new.model.classifier.weight, own)
    assert "new: classifier" in new.weights
    assert type(opened(folder, num_classes=None, task=None).model) is type(kept.model)


def test_labels_that_contradict_the_weights_are_an_error(bert: Bert) -> None:
    folder = bert("BertForSequenceClassification", num_labels=3)
    edit(folder, id2label={str(n): f"x{n}" for n in range(7)})
    with pytest.raises(SourceError, match=r"classifier.bias: \(3,\) in the file, \(7,\) in the network"):
        opened(folder, num_classes=None)


def test_odd_labels_and_private_keys_do_no_harm(bert: Bert) -> None:
    folder = edit(
        bert("BertForSequenceClassification", num_labels=2),
        id2label={"0": "_a", "1": "dtype"},
        label2id={"_a": 0, "dtype": 1},
        _num_labels=2,
        _attn_implementation="somebody/kernels",
        transformers_weights="other.bin",
        fusion_config={"patch_embeddings": True},
    )
    loaded = opened(folder, num_classes=None)
    assert loaded.args["config"]["id2label"] == {"0": "_a", "1": "dtype"}
    assert loaded.model.config.label2id == {"_a": 0, "dtype": 1}
    assert not {"transformers_weights", "fusion_config", "_num_labels"} & set(loaded.args["config"])


def test_weights_of_pytorch_are_read_and_code_in_them_is_not_run(bert: Bert) -> None:
    folder = bert()
    state = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    torch.save({f"module.{key}": value for key, value in state.items()}, folder / "pytorch_model.bin")
    assert torch.equal(embeddings(opened(folder).model), state["bert.embeddings.word_embeddings.weight"])

    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.mkdir, (str(folder / "ran"),)

    torch.save({"a": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(SourceError, match="would run code"):
        opened(folder)
    assert not (folder / "ran").exists()


def test_shards_are_read_together(bert: Bert) -> None:
    folder = bert()
    state = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    places = {key: f"part{number % 2}.safetensors" for number, key in enumerate(sorted(state))}
    for file in set(places.values()):
        save_file({key: state[key] for key in state if places[key] == file}, folder / file)
    index = folder / f"{WEIGHTS}.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    assert torch.equal(embeddings(opened(folder).model), state["bert.embeddings.word_embeddings.weight"])
    index.write_text(json.dumps({"weight_map": {**places, "more": "part0.safetensors"}}))
    with pytest.raises(SourceError, match="lack more"):
        opened(folder)
    (folder / "part1.safetensors").unlink()
    with pytest.raises(SourceError, match="part1"):
        opened(folder)
    index.write_text(json.dumps({"weight_map": {"a": "../outside.safetensors"}}))
    with pytest.raises(SourceError, match="not a file beside it"):
        opened(folder)


def test_old_names_of_layer_norms_are_understood(bert: Bert) -> None:
    folder = bert()
    state = load_file(folder / WEIGHTS)
    state["bert.embeddings.LayerNorm.weight"].fill_(3.0)
    old = {k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v
           for k, v in state.items()}  # fmt: skip
    save_file(old, folder / WEIGHTS)
    assert opened(folder).model.bert.embeddings.LayerNorm.weight.mean() == 3.0


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"num_hidden_layers": 3}, r"missing in the file \(16\): bert.encoder.layer.2"),
        ({"num_hidden_layers": 1}, r"unexpected in the file \(16\): bert.encoder.layer.1"),
        ({"intermediate_size": 40}, r"wrong shape \(6\): .*\(48,\) in the file, \(40,\)"),
        ({"model_type": "gone"}, 'does not say its type. Fix: add "model_type"'),
        ({"model_type": "brt"}, "Nearest types: .*bert"),
        (
            {"model_type": "own", "auto_map": {"AutoModel": "modeling.Net"}},
            "code of its own, which is never run",
        ),
        ({"quantization_config": {"quant_method": "gptq"}}, "is quantized"),
        ({"hidden_size": "large"}, "expected int"),
    ],
)
def test_configurations_that_do_not_fit_are_refused(bert: Bert, values: dict[str, Any], says: str) -> None:
    folder = edit(bert(), **values)
    (folder / "modeling.py").write_text("raise SystemExit('run')")
    with pytest.raises(SourceError, match=says):
        opened(folder)


def test_code_beside_a_known_type_is_left_alone(bert: Bert) -> None:
    folder = edit(bert(), auto_map={"AutoModelForSequenceClassification": "modeling.Net"})
    (folder / "modeling.py").write_text("raise SystemExit('run')")
    assert type(opened(folder).model).__name__ == "BertForSequenceClassification"


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        (WEIGHTS, None, "holds no weights .*model.safetensors"),
        (WEIGHTS, b"torn", "cannot be read"),
        ("config.json", b"[1]", "not a mapping"),
        ("config.json", b"{", "cannot be read"),
        ("config.json", None, "holds no config.json"),
        ("tokenizer.json", b"{", "tokenizer of .* cannot be opened"),
        ("tokenizer.json", None, "sentencepiece"),
        ("adapter_config.json", b"{}", "holds an adapter, which would be left out"),
    ],
)
def test_torn_and_missing_files_are_named(bert: Bert, file: str, content: bytes | None, says: str) -> None:
    folder = bert()
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content)
    with pytest.raises(SourceError, match=says):
        opened(folder)


def test_a_folder_without_a_tokenizer_leaves_that_to_the_data(bert: Bert) -> None:
    folder = bert()
    for file in folder.glob("tokenizer*"):
        file.unlink()
    reads = opened(folder).reads
    assert isinstance(reads, Texts)
    assert (reads.tokenizer, reads.vocabulary, reads.max_length) == ("", 60, 40)


def test_a_tokenizer_that_knows_more_words_does_not_fit(
    bert: Bert, write_tokenizer: Callable[..., None]
) -> None:
    folder = bert()
    write_tokenizer(folder, words=90)
    with pytest.raises(SourceError, match=r"ids go up to 89, the network has embeddings for 60"):
        opened(folder)


def test_padding_must_be_the_networks_where_positions_are_counted_from_it(
    tmp_path: Path, write_tokenizer: Callable[..., None]
) -> None:
    sizes = {**SMALL, "max_position_embeddings": 34, "pad_token_id": 1}
    transformers.RobertaModel(transformers.RobertaConfig(**sizes)).save_pretrained(tmp_path)
    write_tokenizer(tmp_path, pad=1)
    reads = opened(tmp_path).reads
    assert isinstance(reads, Texts)
    assert reads.max_length == 32
    write_tokenizer(tmp_path, pad=0)
    with pytest.raises(SourceError, match=r"pads with id 0, .* pad_token_id 1"):
        opened(tmp_path)


def test_the_end_of_a_text_pads_where_nothing_else_does(
    tmp_path: Path, write_tokenizer: Callable[..., None]
) -> None:
    config = transformers.GPT2Config(
        n_embd=32, n_layer=1, n_head=4, vocab_size=60, n_positions=40, bos_token_id=2, eos_token_id=2
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path)
    write_tokenizer(tmp_path, pad=None)
    with pytest.raises(SourceError, match="no pad token and no end-of-text token"):
        opened(tmp_path)
    write_tokenizer(tmp_path, pad=None, eos_token="[CLS]")
    loaded = opened(tmp_path)
    assert loaded.args["config"]["pad_token_id"] == 2
    assert loaded.model(torch.tensor([[5, 6], [7, 2]])).logits.shape == (2, 5)


def test_networks_that_find_the_end_by_padding_pad_as_the_tokenizer(
    tmp_path: Path, write_tokenizer: Callable[..., None]
) -> None:
    sizes = {**SMALL, "num_key_value_heads": 4, "max_position_embeddings": 40, "pad_token_id": 7}
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes)).save_pretrained(tmp_path)
    write_tokenizer(tmp_path, pad=0)
    loaded = opened(tmp_path)
    assert (loaded.model.config.pad_token_id, loaded.args["config"]["pad_token_id"]) == (0, 0)
    with torch.no_grad():
        alone = loaded.model(torch.tensor([[5, 6]])).logits
        padded = loaded.model(torch.tensor([[5, 6, 0, 0]]), torch.tensor([[1, 1, 0, 0]])).logits
    torch.testing.assert_close(alone, padded)


def test_of_an_encoder_with_a_decoder_the_encoder_is_taken(tmp_path: Path) -> None:
    config = transformers.T5Config(
        vocab_size=60, d_model=32, d_kv=8, d_ff=48, num_layers=1, num_heads=4, decoder_start_token_id=0
    )
    transformers.T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    loaded = opened(tmp_path)
    assert type(loaded.model).__name__ == "SentenceClassifier"
    assert loaded.weights.count("decoder") == 0
    again = build_source("hf:x", loaded.args)
    assert again.state_dict().keys() == loaded.model.state_dict().keys()
    texts = {
        "input_ids": torch.tensor([[5, 6, 7], [8, 9, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]]),
    }
    slim, plan = pj.prune(loaded.model, texts, ratio=0.5)  # the embedding is tied under two names
    proof = pj.verify(loaded.model, slim, plan, texts)
    assert proof.passed, proof.cause
    pj.save(tmp_path / "slim", slim, plan, source=loaded.source, source_args=dict(loaded.args))
    with torch.no_grad():
        assert torch.equal(pj.load(tmp_path / "slim")(**texts), slim(**texts))


@pytest.mark.parametrize(
    ("maker", "config", "task"),
    [
        ("DeiTForImageClassification", {"image_size": 16, "patch_size": 8, **SMALL}, "image-classification"),
        ("WhisperForConditionalGeneration", "whisper", "audio-classification"),
        ("SiglipVisionModel", {"image_size": 16, "patch_size": 8, **SMALL}, None),
    ],
)
def test_bodies_without_a_name_of_their_own(
    maker: str, config: Any, task: str | None, tmp_path: Path
) -> None:
    if config == "whisper":
        config = {
            "num_mel_bins": 16, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4,
            "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_source_positions": 50,
            "vocab_size": 60, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3,
            "classifier_proj_size": 24,
        }  # fmt: skip
    made = getattr(transformers, maker)
    made(made.config_class(**config)).save_pretrained(tmp_path)
    if task is None:  # a part of a larger network, which no task has a class for
        with pytest.raises(SourceError, match="transformers has no class"):
            opened(tmp_path, task="text-classification")
        return
    loaded = opened(tmp_path, task=task)
    assert "new: " in loaded.weights
    with pytest.raises(SourceError, match=r"missing in the file|unexpected in the file"):
        opened(edit(tmp_path, num_hidden_layers=3, encoder_layers=3), task=task)


@pytest.mark.parametrize(
    ("asked", "pooling"),
    [({"pooling_mode_cls_token": True}, "cls"), ({"pooling_mode": "max"}, "max"), ({}, None)],
)
def test_the_pooling_of_a_sentence_encoder_is_its_folders(
    bert: Bert, asked: dict[str, Any], pooling: str | None
) -> None:
    folder = bert("BertModel")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(asked))
    if pooling is None:
        with pytest.raises(SourceError, match="asks for no pooling"):
            opened(folder)
        assert opened(folder, args={"pooling": "last"}).args["pooling"] == "last"
        return
    loaded = opened(folder)
    assert (loaded.model.pooling, loaded.args["pooling"]) == (pooling, pooling)
    assert build_source("hf:x", loaded.args).pooling == pooling


def test_values_of_the_configuration_are_arguments(bert: Bert) -> None:
    folder = bert()
    loaded = opened(folder, args={"hidden_dropout_prob": 0.25, "attn_implementation": "eager"})
    assert loaded.args["config"]["hidden_dropout_prob"] == 0.25
    assert loaded.model.config._attn_implementation == "eager"
    assert (
        opened("bert", weights="none", args={**SMALL, "num_labels": 4}, num_classes=None).args["num_classes"]
        == 4
    )
    for args, says in (
        ({"hiden_size": 32}, "Did you mean 'hidden_size'"),
        ({"attn_implementation": "somebody/kernels"}, "one of eager, sdpa"),
        ({"auto_map": {"AutoModel": "x.Y"}}, "names code"),
        ({"_name_or_path": "x"}, "names code, files or weights"),
        ({"model_type": "gpt2"}, "may not change 'model_type'"),
        ({"pooling": "median"}, "pooling is one of mean, cls"),
        ({"dropout": 0.1}, "has a head of its own"),
    ):
        with pytest.raises(SourceError, match=says):
            opened(folder, args=args)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({"architecture": "os.system", "config": {}}, "is rebuilt from architecture"),
        ({"architecture": "ctc", "config": {}, "num_classes": 2, "path": "x"}, "path are not known"),
        ({"architecture": "ctc", "config": {"model_type": "bert"}, "num_classes": "2"}, "whole number"),
        ({"architecture": "ctc", "config": {"model_type": "nn.Linear"}, "num_classes": 2}, "nn.Linear"),
        (
            {"architecture": "sequence-classification", "num_classes": 2,
             "config": {"model_type": "bert", "auto_map": {"AutoModel": "a--b.C"}}},
            "names code",
        ),
        (
            {"architecture": "sequence-classification", "num_classes": 2,
             "config": {"model_type": "bert", "nested": {"_commit": "x"}}},
            "names code",
        ),
        (
            {"architecture": "sequence-classification", "num_classes": 2,
             "config": {"model_type": "timm_wrapper", "architecture": "hf-hub:somebody/net"}},
            "would fetch",
        ),
        (
            {"architecture": "pooled-text", "num_classes": 2, "pooling": "__import__",
             "config": {"model_type": "bert", **SMALL}},
            "pooling is '__import__'",
        ),
    ],
)  # fmt: skip
def test_an_artifact_may_hold_plain_data_only(args: dict[str, Any], says: str) -> None:
    with pytest.raises(SourceError, match=says):
        build_source("hf:somebody/net", args)


def test_names_that_lead_nowhere_say_what_else_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name, weights, says in (
        ("brt", "none", "Nearest types, .*bert"),
        ("bert", "pretrained", "hf:bert is also a type"),
        ("somebody/net", "pretrained", "HF_HUB_OFFLINE is set"),
        ("./nowhere", "none", "is no folder"),
        ("a/b/c", "none", "is no folder"),
    ):
        with pytest.raises(SourceError, match=says):
            opened(name, weights=weights)


def test_a_copy_in_the_hubs_cache_needs_no_hub(
    bert: Bert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    place = tmp_path / "cache" / "models--somebody--net"
    (place / "snapshots").mkdir(parents=True)
    bert().rename(place / "snapshots" / "0123abcd")
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("0123abcd")
    loaded = opened("somebody/net")
    assert loaded.weights.startswith("hub 0123abcd")
    assert isinstance(loaded.reads, Texts)
    assert (loaded.source, loaded.reads.tokenizer) == ("hf:somebody/net", "somebody/net")
    (place / "snapshots" / "0123abcd" / WEIGHTS).unlink()
    with pytest.raises(SourceError, match="cannot be fetched"):
        opened("somebody/net")
    assert opened("somebody/net", weights="none").weights == "none"


def test_a_task_without_a_class_names_the_others(bert: Bert) -> None:
    with pytest.raises(SourceError, match="It has one for text-classification, token-classification"):
        opened(bert(), task="audio-classification")
    with pytest.raises(SourceError, match="Did you mean 'audio-classification'"):
        opened(bert(), task="audio-clasification")


def test_a_folder_without_its_kind_is_recognised(bert: Bert) -> None:
    with pytest.raises(SourceError, match="is named hf:"):
        load_source(str(bert()))


def test_a_folder_under_home_is_named_in_full_for_its_tokenizer(
    bert: Bert, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = bert()
    monkeypatch.setenv("HOME", str(folder.parent))
    reads = opened(f"~/{folder.name}").reads
    assert isinstance(reads, Texts)
    assert reads.tokenizer == str(folder)
