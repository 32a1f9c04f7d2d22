"""Clips of different lengths as one tensor, with a mask where the network takes one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from penjing.tasks._sound_features import FeatureMaker, fixed

LEAST = 0.4  # seconds


class SoundInputs(NamedTuple):
    """What the network is called with, and per clip the share of the time axis that is its own, [b] of float32."""

    inputs: Tensor | dict[str, Tensor]
    share: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class SoundBatcher:
    """Puts features of clips together as `maker.reads` says.

    Of any length: padded with silence at the end, to the longest, and to at least 0.4 seconds, since networks that
    shorten time fail on less. Of a fixed length: the middle of what is longer; what
    is shorter stands before silence where the network takes a mask or the task is `speech`, in the middle of it in a
    picture, and is repeated otherwise, as a network without a mask would take the silence for a part of the clip.
    """

    maker: FeatureMaker
    speech: bool = False

    def put(self, clips: Sequence[Tensor]) -> SoundInputs:
        reads, frames = self.maker.reads, self.maker.frames
        at_end = bool(reads.mask) or self.speech or frames is None
        frames = frames or max(self._least(clips[0]), *(len(clip) for clip in clips))
        clips = [_middle(clip, frames) for clip in clips]
        filled = self._filled(clips, frames, at_end)
        share = [len(clip) / frames if at_end else 1.0 for clip in clips]
        values = self._laid_out(filled)
        named: dict[str, Tensor] = {reads.keyword: values}
        if reads.mask:
            ends = torch.tensor([len(clip) for clip in clips])
            named[reads.mask] = (torch.arange(frames) < ends[:, None]).long()
        return SoundInputs(named if reads.keyword else values, torch.tensor(share, dtype=torch.float32))

    def _least(self, clip: Tensor) -> int:
        reads = self.maker.reads
        return math.ceil(LEAST * (reads.sample_rate if clip.ndim == 1 else 1.0 / reads.hop))

    def _filled(self, clips: Sequence[Tensor], frames: int, at_end: bool) -> Tensor:
        repeat = not at_end and self.maker.reads.layout != "picture"
        quiet = self.maker.silence
        return torch.stack([fixed(clip, frames, quiet, repeat=repeat, end=at_end) for clip in clips])

    def _laid_out(self, values: Tensor) -> Tensor:
        """[b, n] or [b, T, bins] normalised, in the layout of the network."""
        reads = self.maker.reads
        if reads.features != "extractor":
            values = (values - reads.mean) / reads.std
        if reads.layout == "picture":
            return values.transpose(1, 2)[:, None].expand(-1, reads.channels, -1, -1).contiguous()
        return values.transpose(1, 2).contiguous() if self.maker.turned else values


def _middle(clip: Tensor, frames: int) -> Tensor:
    start = max(0, (len(clip) - frames) // 2)
    return clip[start : start + frames]


def example_inputs(batcher: SoundBatcher, length: int, batch_size: int) -> Any:
    """Inputs made of noise of `length` samples, always the same; the last clip is shorter where there is a mask."""
    source = torch.Generator().manual_seed(0)
    noise = 0.1 * torch.randn(batch_size, length, generator=source)
    clips = [row.numpy() for row in noise]
    if batch_size > 1 and batcher.maker.reads.mask:
        clips[-1] = clips[-1][: -(-3 * length // 4)]
    return batcher.put([batcher.maker.make(clip) for clip in clips]).inputs
