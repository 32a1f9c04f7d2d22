"""Random views of clips. A view is a pure function of (seed, epoch, index of the example).

They act on features, time first: samples [n] or frames [T, bins].
"""

from collections.abc import Callable, Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor

from penjing.core import UsageError
from penjing.tasks._augment import uniform
from penjing.tasks._sound_features import FeatureMaker, padded

SoundPolicy = Callable[[Tensor, Sequence[float], FeatureMaker], Tensor]
DRAWS = 16
ROOM = 0.2  # silence put around a clip, as a share of its length
DECIBELS = 6.0
SPEED = 0.1
BLANKS, TIME_SHARE, BAND_SHARE = 2, 0.1, 0.125


def light(features: Tensor, draws: Sequence[float], maker: FeatureMaker) -> Tensor:
    """Earlier or later by up to 10 % of the clip, between silence so that nothing is lost; louder or softer by up
    to 6 dB, where the network can hear that. What an extractor has brought to one length stays where it is.
    """
    if maker.even:
        return features
    room = _at_most(len(features), int((1.0 + ROOM) * len(features)), maker) - len(features)
    before = int(draws[0] * (room + 1))
    louder = maker.gained(features, DECIBELS * (2.0 * draws[1] - 1.0))
    return padded(louder, before, room - before, maker.silence)


def standard(features: Tensor, draws: Sequence[float], maker: FeatureMaker) -> Tensor:
    """`light`, faster or slower by up to 10 % at the same pitch for frames (Ko et al., Interspeech 2015, with the
    pitch, for samples), and two spans of time and two bands, each up to a tenth and an eighth, at the clip's mean
    (SpecAugment: Park et al., Interspeech 2019). Of samples only the spans are blanked.
    """
    faster = features
    if not maker.even:
        length = max(2, round(len(features) / (1.0 - SPEED + 2.0 * SPEED * draws[2])))
        faster = _paced(features, _at_most(len(features), length, maker))
    viewed = light(faster, draws, maker).clone()
    fill = 0.0 if viewed.ndim == 1 else float(viewed.mean())
    for k in range(BLANKS):
        _blank(viewed, 0, TIME_SHARE, draws[3 + 2 * k], draws[4 + 2 * k], fill)
        if viewed.ndim == 2:
            _blank(viewed, 1, BAND_SHARE, draws[7 + 2 * k], draws[8 + 2 * k], fill)
    return viewed


SOUND_POLICIES: Mapping[str, SoundPolicy | None] = {"none": None, "light": light, "standard": standard}


def sound_policy(name: str) -> SoundPolicy | None:
    """The augmentation of sounds called `name`; raises UsageError that lists the known ones."""
    if name not in SOUND_POLICIES:
        raise UsageError(f"Unknown augmentation {name!r}. Fix: choose one of {', '.join(SOUND_POLICIES)}")
    return SOUND_POLICIES[name]


def sound_views(
    clips: Sequence[Tensor],
    policy: SoundPolicy,
    maker: FeatureMaker,
    *,
    seed: int,
    epoch: int,
    indices: Sequence[int],
) -> list[Tensor]:
    """A random view of each clip, made one by one: the same whatever else is in the batch."""
    draws = uniform(seed, epoch, indices, DRAWS).tolist()
    return [policy(clip, row, maker) for clip, row in zip(clips, draws, strict=True)]


def _at_most(length: int, wanted: int, maker: FeatureMaker) -> int:
    """`wanted`, but no longer than the network reads where a clip of `length` fits whole."""
    return wanted if maker.frames is None or length > maker.frames else min(wanted, maker.frames)


def _paced(features: Tensor, length: int) -> Tensor:
    """Linear interpolation along time."""
    rows = features[None, None] if features.ndim == 1 else features.T[None]
    paced = F.interpolate(rows, size=length, mode="linear", align_corners=True)[0]
    return paced[0] if features.ndim == 1 else paced.T


def _blank(x: Tensor, dim: int, share: float, width: float, place: float, fill: float) -> None:
    size = x.shape[dim]
    span = int(width * share * size)
    start = int(place * (size - span + 1))
    x.narrow(dim, start, span).fill_(fill)
