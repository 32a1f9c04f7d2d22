"""Examples as they come in the wild: noisy, blurred, misspelt, too loud; the same disturbance for every network."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from penjing.tasks._buckets import in_batches
from penjing.tasks._ctc import Transcripts
from penjing.tasks._disturb_pictures import PICTURES
from penjing.tasks._disturb_sounds import SOUNDS
from penjing.tasks._disturb_texts import TEXTS
from penjing.tasks._images import Images
from penjing.tasks._labelled import Labelled
from penjing.tasks._ragged import Ragged
from penjing.tasks._sound_files import read_clip
from penjing.tasks._sounds import Clips
from penjing.tasks._texts import TokenRows
from penjing.tasks._tokenizer import encoded, load_tokenizer, tokens_of
from penjing.tasks._tokens import align, tag_labels, word_numbers

SPLIT = "certification"
STRENGTHS = (1, 2, 3)
SECONDS = 3600.0  # no clip that was read is longer


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Disturbed:
    """The first `count` examples of the certification split, disturbed alike whenever they are asked for (strength 0:
    as they are): `Data` of one split.
    """

    data: Labelled[Any]
    kind: str
    strength: int
    count: int
    seed: int = 0
    _made: dict[int, list[Any]] = field(default_factory=dict)

    def n(self, split: str) -> int:
        return len(self._indices)

    def batches(self, split: str, batch_size: int, **_: Any) -> Iterator[Any]:
        if batch_size not in self._made:
            chunks = in_batches(self._indices, batch_size)
            self._made[batch_size] = [self._batch(chunk) for chunk in chunks]
        return iter(self._made[batch_size])

    @property
    def _indices(self) -> tuple[int, ...]:
        return self.data.certification.indices[: self.count]

    def _batch(self, chunk: Sequence[int]) -> Any:
        if not self.strength:
            return self.data.contents.batch(chunk, None, 0, 0)
        return _WAYS[type(self.data.contents)](self.data, chunk, self.kind, self.strength, self.seed)


def disturbances(data: Labelled[Any]) -> tuple[str, ...]:
    """The kinds of disturbance that suit these examples."""
    if isinstance(data.contents, Images):
        return tuple(PICTURES)
    if isinstance(data.contents, Clips):
        return tuple(SOUNDS)
    kept = isinstance(data.contents.answers, Ragged)  # of tagged words none may go
    return tuple(kind for kind in TEXTS if not (kept and kind == "dropped words"))


def _pictures(data: Labelled[Images], chunk: Sequence[int], kind: str, strength: int, seed: int) -> Any:

    images, targets = data.contents.batch(chunk, None, 0, 0)
    mean, std = (
        torch.tensor(v).view(1, -1, 1, 1) for v in (data.contents.reads.mean, data.contents.reads.std)
    )
    pixels = (images * std + mean).clamp(0, 1)
    random = [np.random.default_rng((seed, strength, index)) for index in chunk]
    changed = PICTURES[kind](pixels, strength, random).clamp(0, 1)
    return (changed - mean) / std, targets


def _texts(data: Labelled[TokenRows], chunk: Sequence[int], kind: str, strength: int, seed: int) -> Any:
    contents = data.contents
    change = partial(TEXTS[kind], strength=strength)
    tagged = isinstance(contents.answers, Ragged)
    told = [
        _changed(data.examples[i].content, change, np.random.default_rng((seed, strength, i)), words=tagged)
        for i in chunk
    ]
    tokenizer = load_tokenizer(contents.reads, words=tagged)
    chunks, _ = encoded(tokenizer, told, contents.reads, words=tagged)
    tokens = tokens_of(tokenizer, chunks, contents.reads).batch(range(len(chunk)))
    if not tagged:
        return tokens, contents.targets(chunk)
    tags = [data.examples[i].label for i in chunk]
    aligned = align(tags, word_numbers(chunks), tag_labels(data.examples)).tags  # type: ignore[arg-type]
    return tokens, aligned.padded(range(len(chunk)), -100, contents.tokens.left)


def _changed(content: Any, change: Callable[..., str], random: np.random.Generator, *, words: bool) -> Any:
    """A text, both texts of a pair, or each word of a sentence."""
    if isinstance(content, str):
        return change(content, random)
    if not words:
        return tuple(change(text, random) for text in content)
    return [change(word, random) or word for word in content]


def _sounds(data: Labelled[Clips], chunk: Sequence[int], kind: str, strength: int, seed: int) -> Any:
    contents = data.contents
    maker, rate = contents.batcher.maker, contents.reads.sample_rate
    made = []
    for i in chunk:
        example = data.examples[i]
        samples = read_clip(example.content, rate, SECONDS, example.rate).samples
        made.append(maker.make(SOUNDS[kind](samples, strength, np.random.default_rng((seed, strength, i)))))
    inputs, share = contents.batcher.put(made)
    if isinstance(contents.answers, Transcripts):
        return inputs, contents.answers.spoken(chunk, share)
    return inputs, contents.targets(chunk)


_WAYS: Mapping[type, Callable[..., Any]] = {Images: _pictures, TokenRows: _texts, Clips: _sounds}
