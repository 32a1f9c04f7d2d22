"""What a network of transformers reads, from the tokenizer, feature extractor or picture processor beside it."""

import functools
import inspect
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from penjing.core import Pictures, Reads, Sounds, SourceError, Texts, cut
from penjing.sources._hf_config import quiet, read_json, transformers
from penjing.sources._registry import JSON, channel_values

LONGEST = 512
TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model")
TOKENIZERS += ("tokenizer.model", "spm.model", "vocab.bpe", "tokenizer_config.json")
PROCESSOR = "preprocessor_config.json"
COMBINED = "processor_config.json"
SILENT = "Wav2Vec2FeatureExtractor"  # reads samples as they are
SIDE = 224


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """What is asked of a tokenizer: one more than its largest id, its pad token and limit, what it gives."""

    size: int
    pad: int | None
    longest: int
    gives: tuple[str, ...]


def vocabulary_of(folder: Path, name: str) -> Vocabulary | None:
    """The tokenizer in `folder`, None where there is none; SourceError where it cannot be opened or make batches."""
    stamps = tuple((folder / f).stat().st_mtime_ns if (folder / f).is_file() else 0 for f in TOKENIZERS)
    return _vocabulary(folder, name, stamps) if any(stamps) else None


def reads_of(model: nn.Module, config: Any, task: str, folder: Path | None, tokenizer: str) -> Reads:
    """What `model` reads; without a folder, what its type is made for. Texts without a tokenizer there name none."""
    if task in ("text-classification", "token-classification"):
        return _texts(model, config, folder, tokenizer)
    if task == "image-classification":
        return _pictures(config, folder)
    return _sounds(model, config, folder)


def position_limit(model: nn.Module, config: Any) -> int:
    """The most positions: places before the first one counts, as RoBERTa has them, are taken off."""
    places = getattr(config, "max_position_embeddings", None)
    if not isinstance(places, int) or places < 1:
        return LONGEST
    return max(1, min(LONGEST, places - first_position(model, config)))


def first_position(model: nn.Module, config: Any) -> int:
    """The number of a text's first position: padding_idx + 1 where the table of positions has a padding_idx."""
    places = getattr(config, "max_position_embeddings", None)
    for name, module in model.named_modules():
        table = isinstance(module, nn.Embedding) and module.num_embeddings == places
        if table and "position" in name and module.padding_idx is not None:
            return int(module.padding_idx) + 1  # pyright: ignore[reportArgumentType]
    return 0


def _texts(model: nn.Module, config: Any, folder: Path | None, tokenizer: str) -> Texts:
    rows = _rows(model, config)
    limit = position_limit(model, config)
    known = _parameters(model)
    vocabulary = None if folder is None else vocabulary_of(folder, tokenizer)
    if vocabulary is None:
        types = "token_type_ids" in known and int(getattr(config, "type_vocab_size", 0) or 0) > 1
        keywords = ("input_ids", "attention_mask", *(("token_type_ids",) if types else ()))
        return Texts(
            tokenizer="", max_length=limit, vocabulary=rows or 1, keywords=keywords, pad=_own_pad(config)
        )
    if rows is not None and vocabulary.size > rows:
        raise SourceError(
            f"The tokenizer of {tokenizer} does not fit the network: its ids go up to {vocabulary.size - 1}, the "
            f"network has embeddings for {rows} (0 to {rows - 1}). Fix: give the tokenizer that belongs to the weights"
        )
    _check_padding(model, config, vocabulary, tokenizer)
    wanted = ("input_ids", "attention_mask", *(k for k in ("token_type_ids",) if k in vocabulary.gives))
    keywords = tuple(key for key in wanted if key in known)
    if "token_type_ids" in keywords and int(getattr(config, "type_vocab_size", 2) or 0) < 2:
        keywords = keywords[:-1]
    return Texts(
        tokenizer=tokenizer,
        max_length=min(limit, vocabulary.longest),
        vocabulary=rows or vocabulary.size,
        keywords=keywords,
        pad=_own_pad(config),
    )


def _own_pad(config: Any) -> int | None:
    own = getattr(config, "pad_token_id", None)
    return own if isinstance(own, int) and own >= 0 else None


def _check_padding(model: nn.Module, config: Any, vocabulary: Vocabulary, tokenizer: str) -> None:
    """Where positions are counted from the pad token, network and tokenizer must mean the same one."""
    own = getattr(config, "pad_token_id", None)
    if (
        first_position(model, config)
        and own is not None
        and vocabulary.pad is not None
        and own != vocabulary.pad
    ):
        raise SourceError(
            f"The tokenizer of {tokenizer} does not fit the network: it pads with id {vocabulary.pad}, and the network "
            f"counts positions from pad_token_id {own}. Fix: give the tokenizer that belongs to the weights"
        )


@functools.lru_cache(maxsize=8)
def _vocabulary(folder: Path, name: str, stamps: tuple[int, ...]) -> Vocabulary:
    try:
        with quiet():
            found: Any = transformers().AutoTokenizer.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False
            )
        ids = found.get_vocab()
    except NotImplementedError:  # tokenizers of characters or bytes list no words
        ids = {}
    except Exception as error:
        first = cut(" ".join(str(error).split()), 300)
        raise SourceError(
            f"The tokenizer of {name} cannot be opened: {type(error).__name__}: {first}. Fix: install what it needs "
            "(often pip install sentencepiece), or save it as tokenizer.json with a recent transformers"
        ) from error
    size = max(len(found), 1 + max(ids.values(), default=-1))
    if size <= len(found.all_special_ids):
        raise SourceError(
            f"The tokenizer of {name} is empty: it knows {size} tokens, all of them special. Fix: its vocabulary is "
            "missing from the folder; save the whole tokenizer there (tokenizer.save_pretrained)"
        )
    pad = found.pad_token_id if found.pad_token_id is not None else found.eos_token_id
    if pad is None:
        raise SourceError(
            f"The tokenizer of {name} has no pad token and no end-of-text token, so texts of different length make no "
            "batch. Fix: add one (tokenizer.add_special_tokens({'pad_token': '[PAD]'})) and save it"
        )
    longest = int(min(found.model_max_length, LONGEST))
    return Vocabulary(size=size, pad=pad, longest=longest, gives=tuple(found.model_input_names))


def _rows(model: nn.Module, config: Any) -> int | None:
    """How many ids the network has embeddings for; None where it has no such table."""
    inner: Any = getattr(model, "encoder", model) if not hasattr(model, "get_input_embeddings") else model
    try:
        table = inner.get_input_embeddings()
    except (NotImplementedError, AttributeError):
        table = None
    if isinstance(table, nn.Embedding):
        return table.num_embeddings
    size = getattr(config, "vocab_size", None)
    return size if isinstance(size, int) else None


def _parameters(model: nn.Module) -> frozenset[str]:
    """Names of the arguments that the forward takes: of an encoder with our head, those that both take."""
    own = frozenset(inspect.signature(model.forward).parameters)
    if hasattr(model, "get_input_embeddings"):
        return own
    return own & frozenset(inspect.signature(model.get_submodule("encoder").forward).parameters)


def _pictures(config: Any, folder: Path | None) -> Pictures:
    processor = _processor(folder, "image_processor")
    channels = int(getattr(config, "num_channels", None) or 3)
    own = getattr(config, "image_size", None)
    height, width = (
        _sides(own) or _sides(processor.get("crop_size")) or _sides(processor.get("size")) or (SIDE,) * 2
    )
    if processor.get("do_normalize", True):
        mean, std = processor.get("image_mean") or (0.5,) * 3, processor.get("image_std") or (0.5,) * 3
    else:
        mean, std = (0.0,) * 3, (1.0,) * 3
    if processor.get("do_rescale", True) is False:
        scale = 1 / 255.0
        mean, std = [m * scale for m in mean], [s * scale for s in std]
    return Pictures(
        size=(channels, height, width), mean=channel_values(mean, channels), std=channel_values(std, channels)
    )


def _sides(size: Any) -> tuple[int, int] | None:
    if isinstance(size, int) and size > 0:
        return size, size
    if isinstance(size, list | tuple) and len(size) == 2:
        return int(size[0]), int(size[1])
    if isinstance(size, Mapping):
        side = size.get("shortest_edge") or size.get("longest_edge")
        found = (size.get("height", side), size.get("width", side))
        return (int(found[0]), int(found[1])) if all(found) else None
    return None


def _processor(folder: Path | None, part: str) -> dict[str, JSON]:
    """What the folder says of its feature extractor or picture processor; empty where it says nothing."""
    if folder is None:
        return {}
    for file in (PROCESSOR, COMBINED):
        if (folder / file).is_file():
            content = read_json(folder / file)
            inner = content.get(part, content)
            return {k: v for k, v in inner.items() if k not in ("auto_map", "processor_class")}
    return {}


def _sounds(model: nn.Module, config: Any, folder: Path | None) -> Sounds:
    extractor = _processor(folder, "feature_extractor") or _usual_extractor(config)
    kind = extractor.get("feature_extractor_type")
    rate = int(extractor.get("sampling_rate") or 16_000)
    known = _parameters(model)
    masked = bool(extractor.get("return_attention_mask")) and "attention_mask" in known
    mask = "attention_mask" if masked else ""
    keyword = "input_values" if "input_values" in known else "input_features"
    if keyword == "input_values" and (kind == SILENT or (kind is None and _reads_samples(config))):
        return Sounds(
            sample_rate=rate,
            features="waveform",
            layout="samples",
            per_clip=bool(extractor.get("do_normalize", True)),
            keyword=keyword,
            mask=mask,
        )
    if kind in (None, SILENT):
        raise SourceError(
            f"Nothing says what sound a network of type {config.model_type!r} reads. Fix: save its feature extractor "
            f"in the folder ({PROCESSOR})"
        )
    return Sounds(
        sample_rate=rate,
        features="extractor",
        layout="frames",
        bins=int(extractor.get("num_mel_bins") or extractor.get("feature_size") or 0),
        frames=_frames(extractor),
        keyword=keyword,
        mask=mask if _frames(extractor) is None else "",
        extractor=extractor,
    )


def _frames(extractor: Mapping[str, JSON]) -> int | None:
    """The number of frames that an extractor always gives; None where it follows the clip."""
    for key in ("max_length", "nb_max_frames"):
        value = extractor.get(key)
        if isinstance(value, int) and value > 0:
            return value
    return None


def _reads_samples(config: Any) -> bool:
    """Whether the network begins with convolutions over the samples."""
    return hasattr(config, "conv_kernel") and hasattr(config, "feat_extract_norm")


def _usual_extractor(config: Any) -> dict[str, JSON]:
    """The feature extractor that goes with this type, fitted to the sizes of the configuration."""
    if _reads_samples(config):
        layered = config.feat_extract_norm == "layer"
        return {"feature_extractor_type": SILENT, "do_normalize": True, "return_attention_mask": layered}
    try:
        with quiet(), warnings.catch_warnings(action="ignore"):
            maker: Any = transformers().FEATURE_EXTRACTOR_MAPPING[type(config)]
            content = json.loads(maker(**_sizes(config)).to_json_string())
    except Exception:  # no extractor goes with this type
        return {}
    return {
        key: value
        for key, value in content.items()
        if key not in ("mel_filters", "window", "processor_class")
    }


def _sizes(config: Any) -> dict[str, int]:
    bins = getattr(config, "num_mel_bins", None)
    found = {"num_mel_bins": bins, "max_length": getattr(config, "max_length", None)}
    places = getattr(config, "max_source_positions", None)
    if isinstance(places, int) and isinstance(
        bins, int
    ):  # two frames make one position; 100 frames are a second
        found = {"feature_size": bins, "chunk_length": max(1, 2 * places // 100)}
    return {key: value for key, value in found.items() if isinstance(value, int)}
