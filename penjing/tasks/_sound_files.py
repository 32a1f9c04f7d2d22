"""One clip from a file, from encoded bytes or from samples: checked, mono, at one rate."""

import hashlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from penjing.tasks._require import require

SOUND_SUFFIXES = frozenset(
    {
        ".wav",
        ".flac",
        ".ogg",
        ".oga",
        ".opus",
        ".mp3",
        ".aif",
        ".aiff",
        ".aifc",
        ".au",
        ".caf",
        ".w64",
        ".rf64",
    }
)
INSTALL = "penjing[audio]"
SHORTEST = 0.02  # seconds
SILENCE = 1e-4  # root mean square around the mean: -80 dB of full scale
FULL_SCALE = 0.999
CLIPPED = 0.01
MOST_HERTZ = 768_000
UNKNOWN_LENGTH = 1 << 62  # what libsndfile says where a file does not tell its length
STREAMED = 0x7FFF0000  # sizes from here on stand in headers of files written before their length was known
SIZES = re.compile(r"(?:data|SSND|Data Size)\s*:\s*(\d+) \(should be (\d+)\)")
BLOCK = 1 << 20  # samples of all channels together


class BadSound(Exception):
    """Why a clip cannot be used, for people."""


class Clip(NamedTuple):
    """`samples` are float32 [n], mono, at the rate asked for; `rate` is the clip's own; `clipped` says that more than
    1 % of its samples are at full scale.
    """

    samples: np.ndarray
    digest: bytes
    rate: int
    clipped: bool


def read_clip(content: Any, rate: int, max_seconds: float, own_rate: int | None = None) -> Clip:
    """The clip in `content`, a file's path, an encoded file's bytes, or samples [n] or [n, channels] at `own_rate`.

    Channels are averaged; floating samples are taken as they are, whole numbers by their full scale. Never more than
    `max_seconds` are decoded, and nothing where the header promises more. Raises BadSound.
    """
    if isinstance(content, np.ndarray):
        mono, own = _from_array(content, own_rate, max_seconds)
    else:
        mono, own = _decoded(content, max_seconds)
    _check(mono, own)
    clipped = float(np.mean(np.abs(mono) >= FULL_SCALE)) > CLIPPED
    return Clip(resampled(mono, own, rate), _digest(content), own, clipped)


def resampled(samples: np.ndarray, own: int, rate: int) -> np.ndarray:
    """`samples` [n] at `own` Hz as float32 at `rate` Hz, band-limited (soxr, high quality)."""
    if own == rate:
        return np.ascontiguousarray(samples, dtype=np.float32)
    return require("soxr", INSTALL).resample(samples.astype(np.float32, copy=False), own, rate)


def seconds_of(content: Any, own_rate: int | None = None) -> float:
    """The length that the header tells; nothing is decoded. Raises BadSound."""
    if isinstance(content, np.ndarray):
        return len(content) / _sane_rate(own_rate)
    with _opened(content) as file:
        return file.frames / _sane_rate(file.samplerate)


def _from_array(samples: np.ndarray, own_rate: int | None, max_seconds: float) -> tuple[np.ndarray, int]:
    own = _sane_rate(own_rate)
    if samples.ndim not in (1, 2) or samples.dtype.kind not in "fiu":
        raise BadSound(
            f"samples of shape {samples.shape} and type {samples.dtype} are not [n] or [n, channels]"
        )
    _not_too_long(len(samples), own, max_seconds)
    full = 1.0
    if samples.dtype.kind in "iu":
        full = float(1 << (8 * samples.dtype.itemsize - 1))
    mono = samples.astype(np.float32) / np.float32(full)
    if samples.dtype.kind == "u":
        mono = mono - np.float32(1.0)
    return (mono.mean(axis=1) if mono.ndim == 2 else mono), own


def _decoded(content: Path | bytes, max_seconds: float) -> tuple[np.ndarray, int]:
    with _opened(content) as file:
        own, promised = _sane_rate(file.samplerate), file.frames
        told = 0 <= promised < UNKNOWN_LENGTH
        if told:
            _not_too_long(promised, own, max_seconds)
        _not_torn(file.extra_info)
        most = int(max_seconds * own) + 1
        try:
            blocks = list(_blocks(file, most))
        except Exception as error:  # decoders of damaged files raise anything
            raise BadSound(f"corrupt ({_said(error)})") from error
    mono = np.concatenate(blocks) if blocks else np.zeros(0, dtype=np.float32)
    _not_too_long(len(mono), own, max_seconds)
    if told and len(mono) < promised:
        raise BadSound(f"corrupt (it promises {promised:,} frames and ends after {len(mono):,})")
    return mono, own


def _blocks(file: Any, most: int) -> Iterator[np.ndarray]:
    """Up to `most` frames, a block at a time, each mixed down."""
    size = max(1, BLOCK // max(1, file.channels))
    while most > 0:
        block = file.read(min(size, most), dtype="float32", always_2d=True)
        if not len(block):
            return
        most -= len(block)
        yield block[:, 0] if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float32)


def _opened(content: Path | bytes) -> Any:
    soundfile = require("soundfile", INSTALL)
    if isinstance(content, Path):
        if not content.is_file():
            raise BadSound("the file does not exist")
        if not content.stat().st_size:
            raise BadSound("the file is empty (0 bytes)")
    elif not content:
        raise BadSound("it is empty (0 bytes)")
    try:
        return soundfile.SoundFile(content if isinstance(content, Path) else io.BytesIO(content))
    except Exception as error:  # libsndfile reports damage in many ways
        raise BadSound(f"corrupt or not a sound file of a known kind ({_said(error)})") from error


def _not_torn(told: str) -> None:
    """libsndfile reads what is there of a file without compression whose header promises more."""
    found = SIZES.search(told)
    if found and 1.01 * int(found[2]) + 16 < int(found[1]) < STREAMED:
        raise BadSound(
            f"corrupt (it promises {int(found[1]):,} bytes of samples and holds {int(found[2]):,})"
        )


def _sane_rate(rate: int | None) -> int:
    if rate is None or not 0 < rate <= MOST_HERTZ:
        told = "no sample rate" if rate is None else f"a sample rate of {rate:,} Hz"
        raise BadSound(f"{told}; it is a whole number from 1 to {MOST_HERTZ:,}")
    return int(rate)


def _not_too_long(frames: int, rate: int, max_seconds: float) -> None:
    if frames > max_seconds * rate:
        raise BadSound(f"{_length(frames / rate)} long; the limit is {_length(max_seconds)} (max_seconds)")


def _check(mono: np.ndarray, rate: int) -> None:
    if not len(mono):
        raise BadSound("of zero length: it holds no samples")
    if len(mono) < SHORTEST * rate:
        raise BadSound(
            f"only {len(mono)} samples ({1e3 * len(mono) / rate:.1f} ms) long; 20 ms are the least"
        )
    if not np.isfinite(mono).all():
        raise BadSound("some samples are not finite numbers")
    if float(mono.std(dtype=np.float64)) < SILENCE:
        raise BadSound("silent: it never leaves -80 dB of full scale")


def _digest(content: Path | bytes | np.ndarray) -> bytes:
    if isinstance(content, Path):
        with content.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    return hashlib.sha256(
        content if isinstance(content, bytes) else np.ascontiguousarray(content).data
    ).digest()


def _length(seconds: float) -> str:
    if seconds >= 120.0:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    return f"{seconds:.4g} s"


def _said(error: Exception) -> str:
    said = re.sub(r"^Error opening .*?: ", "", " ".join(str(error).split()))
    return said[:160] or type(error).__name__
