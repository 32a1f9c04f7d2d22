"""From samples to what a network reads: samples, mel frames, or what a feature extractor of transformers makes."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from penjing.core import Pictures, Sounds, UsageError
from penjing.tasks._require import require

FLOOR = 1e-6  # mel power below this counts as silence
LOUD = 5.0  # the natural logarithm of mel power that speech hardly exceeds, samples in [-1, 1]
KEYWORDS = ("input_values", "input_features")
EXTRACTOR_BASE = "FeatureExtractionMixin"


@dataclass(frozen=True, slots=True, eq=False)
class FeatureMaker:
    """Turns one clip's samples into features, time first: [n] samples or [T, bins].

    `extractor` is there where `reads.features` is "extractor"; `turned` says that it puts time last, `even` that it
    brings every clip to one length itself. `frames` is the fixed length there is, if any.
    """

    reads: Sounds
    frames: int | None = None
    extractor: Any = None
    turned: bool = False
    even: bool = False

    def make(self, samples: np.ndarray) -> Tensor:
        if self.extractor is not None:
            found = _extracted(self.extractor, samples, self.reads)
            return found.T.contiguous() if self.turned else found
        wave = torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))
        if self.reads.per_clip:
            wave = (wave - wave.mean()) / torch.sqrt(wave.var(unbiased=False) + 1e-7)
        return wave if self.reads.features == "waveform" else mels(wave, self.reads)

    @property
    def hop(self) -> int:
        """Samples from one step of the features to the next, of an extractor as far as it tells."""
        told = getattr(self.extractor, "hop_length", None)
        if isinstance(told, int):
            return told
        samples = self.reads.features == "waveform" or self.reads.layout == "samples"
        return 1 if samples else _samples(self.reads.hop, self.reads)

    @property
    def silence(self) -> float:
        """What stands where a clip says nothing, before normalisation."""
        log_mels = self.reads.features == "mels" and self.reads.scale == "log"
        return math.log(FLOOR) if log_mels else 0.0

    def gained(self, features: Tensor, decibels: float) -> Tensor:
        """`features` of a louder or softer clip; the same where the clip's loudness has been taken out or is not
        known.
        """
        if self.extractor is not None or self.reads.per_clip:
            return features
        if self.reads.features == "waveform":
            return features * 10.0 ** (decibels / 20.0)
        if self.reads.scale == "power":
            return features * 10.0 ** (decibels / 10.0)
        return (features + decibels * math.log(10.0) / 10.0).clamp_(min=self.silence)


def feature_maker(reads: Sounds) -> FeatureMaker:
    """The maker for a network that reads `reads`; raises UsageError where they do not fit together."""
    _check(reads)
    if reads.features != "extractor":
        return FeatureMaker(reads, reads.frames)
    extractor = _extractor(reads)
    noise = np.random.default_rng(0).standard_normal(reads.sample_rate).astype(np.float32) * 0.1
    half, whole = (_extracted(extractor, noise[:n], reads).shape for n in (len(noise) // 2, len(noise)))
    bins = getattr(extractor, "num_mel_bins", None) or getattr(extractor, "feature_size", None)
    turned = len(whole) == 2 and whole[0] == bins != whole[1]
    frames = whole[-1 if turned else 0] if half == whole else reads.frames
    return FeatureMaker(reads, frames, extractor, turned=turned, even=half == whole)


def mels(wave: Tensor, reads: Sounds) -> Tensor:
    """Mel power [T, bins] of `wave` [n], or its natural logarithm, T = 1 + n // hop; the first frame is centred on the
    first sample, and beyond the ends there is silence.

    |STFT|² under a periodic Hann window, through triangles even in Slaney's mel scale and of unit area (M. Slaney,
    Auditory Toolbox, 1998), as librosa.feature.melspectrogram has it. Power below 1e-6 counts as 1e-6 in the logarithm.
    """
    window, hop = _samples(reads.window, reads), _samples(reads.hop, reads)
    size, bank = mel_bank(reads.sample_rate, window, reads.bins)
    shape = torch.hann_window(window, periodic=True)
    spectrum = torch.stft(
        wave, size, hop, window, shape, center=True, pad_mode="constant", return_complex=True
    )
    power = (bank @ spectrum.abs().square_()).T
    return power.contiguous() if reads.scale == "power" else power.clamp(min=FLOOR).log_()


@lru_cache(maxsize=16)
def mel_bank(rate: int, window: int, bins: int) -> tuple[int, Tensor]:
    """The size of the Fourier transform and the filters [bins, size // 2 + 1].

    The size is that of the window, doubled until no filter is empty.
    """
    edges = _mel_to_hertz(torch.linspace(0.0, _hertz_to_mel(rate / 2.0), bins + 2, dtype=torch.float64))
    size = window
    while True:
        grid = torch.linspace(0.0, rate / 2.0, size // 2 + 1, dtype=torch.float64)
        if size % 2:
            grid = torch.arange(size // 2 + 1, dtype=torch.float64) * rate / size
        rising = (grid - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
        falling = (edges[2:, None] - grid) / (edges[2:] - edges[1:-1])[:, None]
        bank = torch.minimum(rising, falling).clamp_(min=0.0) * (2.0 / (edges[2:] - edges[:-2]))[:, None]
        if bool((bank.sum(1) > 0).all()) or size >= rate:
            return size, bank.float()
        size *= 2


def _hertz_to_mel(hertz: float) -> float:
    return 3.0 * hertz / 200.0 if hertz < 1000.0 else 15.0 + 27.0 * math.log(hertz / 1000.0) / math.log(6.4)


def _mel_to_hertz(mel: Tensor) -> Tensor:
    return torch.where(mel < 15.0, 200.0 * mel / 3.0, 1000.0 * torch.exp((mel - 15.0) * math.log(6.4) / 27.0))


def fixed(features: Tensor, frames: int, silence: float, *, repeat: bool, end: bool) -> Tensor:
    """`features` [T, ...] at exactly `frames`: the middle of what is longer; what is shorter is repeated, or stands
    before silence (`end`), or in the middle of it.
    """
    length = len(features)
    if length >= frames:
        start = (length - frames) // 2
        return features[start : start + frames]
    if repeat:
        return features[torch.arange(frames) % length]
    before = 0 if end else (frames - length) // 2
    return padded(features, before, frames - length - before, silence)


def padded(features: Tensor, before: int, after: int, silence: float) -> Tensor:
    rest = (0, 0) * (features.ndim - 1)
    return F.pad(features, (*rest, before, after), value=silence)


def sounds_for(pictures: Pictures, *, seconds: float = 1.0, sample_rate: int = 16_000) -> Sounds:
    """How a network made for pictures reads clips of about `seconds`: log-mel bands upwards its height, time along its
    width, the same in every channel.

    From silence to loud speech the logarithm is stretched over [0, 1] and normalised as pictures are, by the mean over
    channels of `mean` and `std`.
    """
    channels, height, width = pictures.size
    hop = max(1, round(seconds * sample_rate / width)) / sample_rate
    low, high = math.log(FLOOR), LOUD
    mean, std = sum(pictures.mean) / len(pictures.mean), sum(pictures.std) / len(pictures.std)
    return Sounds(
        sample_rate=sample_rate,
        features="mels",
        layout="picture",
        bins=height,
        window=max(0.025, 2.0 * hop),
        hop=hop,
        channels=channels,
        frames=width,
        mean=low + mean * (high - low),
        std=std * (high - low),
    )


def _samples(seconds: float, reads: Sounds) -> int:
    return max(1, round(seconds * reads.sample_rate))


def _extractor(reads: Sounds) -> Any:
    """The feature extractor that the configuration names among transformers' own; no code is fetched or trusted."""
    transformers = require("transformers", "penjing[text]")
    config = dict(reads.extractor or {})
    name = str(config.get("feature_extractor_type", ""))
    kind = getattr(transformers, name, None) if name.isidentifier() else None
    base = getattr(require("transformers.feature_extraction_utils", "penjing[text]"), EXTRACTOR_BASE)
    if not (isinstance(kind, type) and issubclass(kind, base)):
        raise UsageError(
            f"transformers has no feature extractor {name!r} (feature_extractor_type in preprocessor_config.json). "
            "Fix: name one of its own, such as Wav2Vec2FeatureExtractor"
        )
    try:
        return kind.from_dict(config)
    except (TypeError, ValueError, KeyError) as error:
        raise UsageError(
            f"The feature extractor {name} cannot be made: {error}. Fix: correct its configuration"
        ) from error


def _extracted(extractor: Any, samples: np.ndarray, reads: Sounds) -> Tensor:
    try:
        found = extractor(samples, sampling_rate=reads.sample_rate, return_tensors="np")
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"{type(extractor).__name__} cannot read {len(samples)} samples at {reads.sample_rate:,} Hz: {error}. "
            "Fix: give the sample rate it was made for"
        ) from error
    keyword = next((key for key in (reads.keyword, *KEYWORDS) if key and key in found), next(iter(found)))
    values = np.asarray(found[keyword])[0]
    if values.ndim not in (1, 2):
        raise UsageError(
            f"{type(extractor).__name__} makes {values.ndim}-dimensional {keyword}; samples or frames are understood. "
            "Fix: choose another network"
        )
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def _check(reads: Sounds) -> None:
    layouts = {"waveform": ("samples",), "mels": ("frames", "picture")}.get(reads.features)
    if layouts is not None and reads.layout not in layouts:
        raise UsageError(
            f"The network reads {reads.features} as {reads.layout}. Fix: give {' or '.join(layouts)} as layout"
        )
    if reads.features == "mels" and (reads.bins < 1 or not reads.hop > 0.0 or not reads.window > 0.0):
        raise UsageError(
            f"Mels need bins, window and hop above 0; got {reads.bins}, {reads.window} and {reads.hop}. "
            "Fix: 80, 0.025 and 0.01 are usual"
        )
    if reads.std <= 0.0 or reads.sample_rate < 1:
        raise UsageError(
            f"std {reads.std} and sample_rate {reads.sample_rate} must be above 0. Fix: give larger numbers"
        )
    if reads.mask and not reads.keyword:
        raise UsageError(
            "A network with a mask needs the keyword of its inputs. Fix: give keyword, such as 'input_values'"
        )
