"""Every task by its name: what its networks read, how its data is loaded, and what it is scored by."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from penjing.core import Pictures, Reads, Sounds, Texts, UsageError, nearest
from penjing.tasks._classification import audio_classification, image_classification, text_classification
from penjing.tasks._clock import Clock, clock_of
from penjing.tasks._columns import Columns, Kind
from penjing.tasks._data import image_data_of
from penjing.tasks._examples import Examples
from penjing.tasks._origin import find_examples
from penjing.tasks._prepare import Options
from penjing.tasks._protocols import LabelledData, Task
from penjing.tasks._sound_batches import SoundBatcher, example_inputs
from penjing.tasks._sound_features import feature_maker, sounds_for
from penjing.tasks._sound_speech import alphabet_for, speech_data_of
from penjing.tasks._sounds import Clips, sound_data_of
from penjing.tasks._speech import speech_recognition
from penjing.tasks._texts import text_data_of
from penjing.tasks._token_classification import token_classification
from penjing.tasks._tokens import token_data_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One task.

    `content` is the kind of examples it looks for in folders, tables and hubs; `reads` what a network must read;
    `load` makes data of examples for such a network; `task` makes the task for that data and a label smoothing.
    """

    content: Kind
    reads: type
    load: Callable[[Examples, Any, Options], LabelledData]
    task: Callable[[Any, "Judging"], Task]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judging:
    """How a task judges: its loss's label smoothing; for speech the beam (0: greedy) and the network's clock."""

    label_smoothing: float = 0.0
    beam: int = 0
    clock: Clock | None = None


MIN_POSITIONS = 64  # below which a network may not give a frame

FIELDS: Mapping[str, Field] = {
    "image-classification": Field(
        content="pictures",
        reads=Pictures,
        load=image_data_of,
        task=lambda data, how: image_classification(how.label_smoothing),
    ),
    "audio-classification": Field(
        content="sounds",
        reads=Sounds,
        load=sound_data_of,
        task=lambda data, how: audio_classification(how.label_smoothing),
    ),
    "speech-recognition": Field(
        content="speech",
        reads=Sounds,
        load=speech_data_of,
        task=lambda data, how: speech_recognition(alphabet_for(data), how.beam, how.clock),
    ),
    "token-classification": Field(
        content="words",
        reads=Texts,
        load=token_data_of,
        task=lambda data, how: token_classification(data.labels, how.label_smoothing),
    ),
    "text-classification": Field(
        content="texts",
        reads=Texts,
        load=text_data_of,
        task=lambda data, how: text_classification(how.label_smoothing),
    ),
}


def field_of(task: str) -> Field:
    """The field called `task`; raises UsageError with the nearest names."""
    if task not in FIELDS:
        near = nearest(task, FIELDS)
        meant = f" Did you mean {near[0]}?" if near else ""
        raise UsageError(f"Unknown task {task!r}.{meant} Fix: choose one of {', '.join(FIELDS)}")
    return FIELDS[task]


def load_data(task: str, data: str, reads: Reads, columns: Columns, options: Options) -> LabelledData:
    """The labelled examples that `data` names, for `task` and a network that reads `reads`, in splits.

    Raises DataError, UsageError.
    """
    field = field_of(task)
    return field.load(find_examples(data, field.content, columns), reads, options)


def task_for(
    task: str,
    data: LabelledData,
    *,
    label_smoothing: float = 0.0,
    beam: int = 0,
    clock: Clock | None = None,
) -> Task:
    """The task called `task` for the labels of `data`."""
    return field_of(task).task(data, Judging(label_smoothing=label_smoothing, beam=beam, clock=clock))


def clock_for(task: str, data: LabelledData, model: nn.Module) -> Clock | None:
    """The clock of `model` where `task` listens to it frame by frame; else None."""
    clips = getattr(data, "contents", None)
    if task != "speech-recognition" or not isinstance(clips, Clips):
        return None
    reads = clips.reads
    return clock_of(model, reads, max(clips.size[-1 if reads.layout == "picture" else 0], MIN_POSITIONS))


def reads_for(task: str, reads: Reads, source: str, seconds: float | None = None) -> Reads:
    """What a network that reads `reads` is given in `task`; raises UsageError where it cannot do that task.

    Sounds are given to a network made for pictures as spectrograms, of `seconds` (1) in its width.
    """
    wanted = field_of(task).reads
    if wanted is Sounds and isinstance(reads, Pictures):
        return sounds_for(reads, seconds=seconds or 1.0)
    if seconds is not None:
        raise UsageError(
            f"{source} reads no spectrograms as pictures, and data.seconds was given. Fix: leave it out"
        )
    if not isinstance(reads, wanted):
        raise UsageError(
            f"{source} reads {_word(type(reads))}, and {task} is about {_word(wanted)}. Fix: choose a network that "
            f"reads {_word(wanted)}, or another --task" + _own_word(source, wanted)
        )
    return reads


def _own_word(source: str, wanted: type) -> str:
    """How the user's own network says what it reads."""
    if not source.startswith(("file:", "hub:")):
        return ""
    return f"; a network of your own says what it reads by an attribute: model.reads = penjing.{wanted.__name__}(...)"


def example_of(reads: Reads, batch_size: int) -> Any:
    """Inputs for a network that reads `reads`, where there is no data to tell their typical size; always the same."""
    if isinstance(reads, Pictures):
        return noise(batch_size, *reads.size)
    if isinstance(reads, Texts):
        return tokens_like(reads, batch_size)
    return example_inputs(SoundBatcher(feature_maker(reads)), reads.sample_rate, batch_size)


def tokens_like(reads: Texts, batch_size: int) -> dict[str, Tensor]:
    """Random ids of at most 32 tokens, nothing padded."""
    length = min(32, reads.max_length)
    ids = torch.randint(reads.vocabulary, (batch_size, length), generator=torch.Generator().manual_seed(0))
    made = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    return {keyword: made[keyword] for keyword in reads.keywords}


def noise(*shape: int) -> Tensor:
    """Gaussian float32 of that shape, always the same."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def _word(kind: type) -> str:
    return kind.__name__.lower()
