"""What a network reads: pictures, texts or sounds, in the form it was made for."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from penjing.core._errors import ArtifactError


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """Pictures in [0, 1] of `size` (C, H, W), normalised as (x - mean) / std per channel."""

    size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """Token ids below `vocabulary`, at most `max_length` of them, made by the tokenizer of that folder or name.

    `keywords` are the arguments of the forward that are given: input_ids, attention_mask, token_type_ids. `pad` is the
    id that the network itself takes for padding; None where it takes none.
    """

    tokenizer: str
    max_length: int
    vocabulary: int
    keywords: tuple[str, ...] = ("input_ids", "attention_mask")
    pad: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sounds:
    """Sound at `sample_rate` (Hz), one channel, as samples or as frames of features.

    `features`: "waveform" (samples; `per_clip` brings each clip to mean 0 and variance 1), "mels" (`bins` mel bands of
    windows of `window` seconds every `hop` seconds, on a `scale` of power or its logarithm), or "extractor" (a feature
    extractor of transformers, built from its configuration). `layout`: "samples" [b, n], "frames" [b, T, bins],
    "picture" [b, channels, bins, T]. Mels are given as (x - mean) / std. `frames` is a fixed T (or n); None is any
    length, padded per batch. `keyword` and `mask` are arguments of the forward; "" is the first one, and none.
    """

    sample_rate: int
    features: Literal["waveform", "mels", "extractor"]
    layout: Literal["samples", "frames", "picture"]
    bins: int = 0
    window: float = 0.025
    hop: float = 0.01
    scale: Literal["log", "power"] = "log"
    channels: int = 1
    frames: int | None = None
    mean: float = 0.0
    std: float = 1.0
    per_clip: bool = False
    keyword: str = ""
    mask: str = ""
    extractor: Mapping[str, Any] | None = None


Reads = Pictures | Texts | Sounds
_KINDS: Mapping[str, type] = {"pictures": Pictures, "texts": Texts, "sounds": Sounds}
_OUT = {"size": "input_size"}
_IN = {"input_size": "size"}


def reads_to_json(reads: Reads) -> dict[str, Any]:
    """Plain values under the fields' names, with "kind".

    >>> reads_to_json(Texts(tokenizer="here", max_length=8, vocabulary=9))["kind"]
    'texts'
    """
    kind = next(name for name, known in _KINDS.items() if isinstance(reads, known))
    values = {_OUT.get(key, key): list(v) if isinstance(v, tuple) else v for key, v in asdict(reads).items()}
    return {"kind": kind} | values


def reads_from_json(found: Any, where: str) -> Reads:
    """What `reads_to_json` wrote; raises ArtifactError that names `where` for anything else."""
    try:
        given: dict[str, Any] = dict(found)
        kind = _KINDS[given.pop("kind", "pictures")]
        values = {_IN.get(key, key): value for key, value in given.items()}
        known = {field.name for field in fields(kind)}
        if values.keys() - known:
            raise KeyError(sorted(values.keys() - known)[0])
        return _checked(kind(**{key: _tuple(value) for key, value in values.items()}))
    except (TypeError, KeyError, ValueError) as error:
        raise ArtifactError(
            f"{where} does not say what inputs the network expects ({type(error).__name__}: {error}). Fix: save it "
            "with preprocessing={'input_size': ..., 'mean': ..., 'std': ...} or what penjing.core.reads_to_json gives"
        ) from None


def _checked(reads: Reads) -> Reads:
    """`reads` with whole numbers where sizes are; ValueError or TypeError where one is not above 0."""
    if isinstance(reads, Pictures):
        channels, height, width = (int(n) for n in reads.size)
        sizes: tuple[int, ...] = (channels, height, width)
        mean, std = tuple(map(float, reads.mean)), tuple(map(float, reads.std))
        reads = Pictures(size=(channels, height, width), mean=mean, std=std)
    elif isinstance(reads, Texts):
        sizes = (reads.max_length, reads.vocabulary)
    else:
        sizes = (reads.sample_rate, reads.channels, 1 if reads.frames is None else reads.frames)
    if min(sizes) < 1:
        raise ValueError(f"sizes {sizes} are not all above 0")
    return reads


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
