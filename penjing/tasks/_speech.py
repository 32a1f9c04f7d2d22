"""Speech recognition by connectionist temporal classification (CTC) as a task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from penjing.core import UsageError
from penjing.tasks._clock import Clock
from penjing.tasks._ctc import Spoken, greedy, prefix_beam
from penjing.tasks._protocols import Metrics
from penjing.tasks._require import require
from penjing.tasks._speech_alphabet import Alphabet


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechRecognition:
    """Batches are (inputs, Spoken); outputs are logits [clips, frames, symbols], or hold them.

    Answers are read greedily, or by a prefix beam search of width `beam` where that is above 0. `clock` tells how many
    frames are a clip's own, whatever it is padded to; without one it is the clip's share of them, rounded up.
    """

    alphabet: Alphabet
    beam: int = 0
    clock: Clock | None = None
    name: str = "speech-recognition"
    headline: tuple[str, bool] = ("wer", False)

    def inputs(self, batch: Any) -> Any:
        return batch[0]

    def targets(self, batch: Any) -> Spoken:
        return batch[1]

    def logits(self, outputs: Any) -> Tensor:
        """The tensor called logits, or the first that is there."""
        found = outputs
        if isinstance(outputs, Mapping):
            found = outputs.get("logits")
        elif isinstance(outputs, tuple | list):
            found = next((value for value in outputs if isinstance(value, Tensor)), None)
        elif not isinstance(outputs, Tensor):
            found = getattr(outputs, "logits", None)
        if not isinstance(found, Tensor) or found.ndim != 3 or found.shape[-1] != len(self.alphabet.symbols):
            shape = list(found.shape) if isinstance(found, Tensor) else type(outputs).__name__
            raise UsageError(
                f"Speech recognition needs logits [clips, frames, {len(self.alphabet.symbols)} symbols]; got {shape}. "
                "Fix: give a network with one output per symbol of the alphabet, frame by frame"
            )
        return found

    def loss(self, outputs: Any, batch: Any) -> Tensor:
        """CTC (Graves et al., ICML 2006, equation 14): -log p(labels), divided by the number of labels, the mean over
        clips. A clip whose labels need more frames than it has counts as 0 and teaches nothing.
        """
        logits, spoken = self.logits(outputs), self.targets(batch)
        steps = F.log_softmax(logits.float(), dim=-1).transpose(0, 1)
        labels = spoken.labels.clamp(min=0)
        frames = self._frames(logits, batch)
        return F.ctc_loss(
            steps, labels, frames, spoken.lengths, blank=self.alphabet.blank, zero_infinity=True
        )

    def positions(self, logits: Tensor, batch: Any) -> Tensor:
        """The frames of each clip itself, bool [clips, frames]."""
        frames = self._frames(logits, batch)
        return torch.arange(logits.shape[1], device=logits.device) < frames[:, None]

    def answers(self, logits: Tensor, batch: Any) -> Sequence[str]:
        """What each clip is heard to say."""
        frames = self._frames(logits, batch).tolist()
        likely = F.log_softmax(logits.float(), dim=-1).cpu()
        return [self._heard(row[:count]) for row, count in zip(likely, frames, strict=True)]

    def truths(self, batch: Any) -> Sequence[str]:
        """The transcripts."""
        spoken = self.targets(batch)
        rows = zip(spoken.labels.tolist(), spoken.lengths.tolist(), strict=True)
        return [self.alphabet.spelt(row[:length]) for row, length in rows]

    def metric(self, answers: Sequence[str], truths: Sequence[str]) -> Metrics:
        """ "wer" and "cer", word and character error rate by jiwer, and "accuracy", the share of clips with every word
        right.

        An error rate is the fewest words (characters) replaced, added and left out, over those of the transcripts, all
        clips together. It is no share: with many words added it passes 1. It is not understanding: "not" weighs as much
        as "the". Short clips weigh less than long ones; in "accuracy" they weigh the same.
        """
        if len(answers) != len(truths) or not truths:
            raise UsageError(
                f"{len(answers)} answers for {len(truths)} transcripts. Fix: give one each, of a filled split"
            )
        jiwer = require("jiwer", "penjing[audio]")
        said, true = list(answers), list(truths)
        right = sum(a == b for a, b in zip(said, true, strict=True))
        return {
            "wer": float(jiwer.wer(true, said)),
            "cer": float(jiwer.cer(true, said)),
            "accuracy": right / len(true),
        }

    def tallies(self, answers: Sequence[str], truths: Sequence[str]) -> list[tuple[float, float]]:
        """Per clip what it adds to the two sums whose ratio is the word error rate: (errors, words)."""
        jiwer = require("jiwer", "penjing[audio]")
        found = [jiwer.process_words([true], [said]) for said, true in zip(answers, truths, strict=True)]
        errors = [one.substitutions + one.deletions + one.insertions for one in found]
        words = [one.hits + one.substitutions + one.deletions for one in found]
        return [(float(wrong), float(of)) for wrong, of in zip(errors, words, strict=True)]

    def _frames(self, logits: Tensor, batch: Any) -> Tensor:
        """How many of the network's frames are each clip's own, [clips] of int64."""
        total, share = logits.shape[1], self.targets(batch).share.to(logits.device).double()
        if self.clock is None:
            frames = torch.ceil(share * total - 1e-3).long()
        else:
            inputs = self.inputs(batch)
            values = next(iter(inputs.values())) if isinstance(inputs, Mapping) else inputs
            frames = self.clock.frames(torch.round(share * values.shape[self.clock.axis]).long())
        return frames.clamp(min=1, max=total)

    def _heard(self, frames: Tensor) -> str:
        blank = self.alphabet.blank
        found = prefix_beam(frames, blank, self.beam) if self.beam else greedy(frames, blank)
        return self.alphabet.spelt(found)


def speech_recognition(alphabet: Alphabet, beam: int = 0, clock: Clock | None = None) -> SpeechRecognition:
    """The task of spelling what is said with the symbols of `alphabet`; `beam` 0 reads greedily; `clock_of` learns the
    network's `clock`. Raises UsageError.
    """
    if beam < 0:
        raise UsageError(f"beam is {beam}; it is at least 0. Fix: 0 is greedy, 10 a usual width")
    return SpeechRecognition(alphabet=alphabet, beam=beam, clock=clock)
