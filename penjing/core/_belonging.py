"""Which tasks an option is for, of those that not every task has a use for."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TEXTS = ("text-classification", "token-classification")
SOUNDS = ("audio-classification", "speech-recognition")
FILES = ("image-classification", *SOUNDS)
ONE_SHAPE = ("image-classification", "audio-classification")
CLASSES = ("image-classification", *TEXTS, "audio-classification")


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What an option is for, in which tasks; the values of `idle` ask for nothing and go with any."""

    tasks: Sequence[str]
    what: str
    idle: Sequence[Any] = (None,)


BELONGING: Mapping[str, Use] = {
    "image_size": Use(
        tasks=FILES, what="the size of pictures, or of the spectrograms that a network made for pictures sees"
    ),
    "beam": Use(tasks=("speech-recognition",), what="the width of the search for a transcript", idle=(0,)),
    "data.augment": Use(tasks=FILES, what="how training examples are varied", idle=(None, "none")),
    "data.path_column": Use(tasks=FILES, what="a table's column of files"),
    "data.text_column": Use(tasks=TEXTS, what="a table's column of texts or words"),
    "data.pair_column": Use(tasks=("text-classification",), what="a table's column of second texts"),
    "data.tokenizer": Use(tasks=TEXTS, what="what turns texts into tokens"),
    "data.max_length": Use(tasks=TEXTS, what="the tokens that longer texts are cut to"),
    "data.seconds": Use(tasks=SOUNDS, what="what a network made for pictures sees of a clip"),
    "data.max_seconds": Use(tasks=SOUNDS, what="how long a clip may last"),
    "data.alphabet": Use(tasks=("speech-recognition",), what="the characters of transcripts"),
    "steps.transfer.label_smoothing": Use(
        tasks=CLASSES, what="how far the loss of classes is smoothed", idle=(0.0,)
    ),
    **{
        f"steps.{step}.mixup": Use(tasks=ONE_SHAPE, what="how examples are laid over each other", idle=(0.0,))
        for step in ("transfer", "distil", "recover", "sparsify")
    },
}


def strangers(task: str, values: Any) -> Iterator[tuple[str, str]]:
    """(key, why) of the options in `values`, a recipe, that mean nothing in `task`."""
    for key, use in BELONGING.items():
        found = values
        for part in key.split("."):
            found = getattr(found, part)
        if task not in use.tasks and found not in use.idle:
            yield (
                key,
                f"is {use.what}, for {' or '.join(use.tasks)}; the task is {task}. "
                "Fix: leave it out, or choose another task (--task)",
            )
