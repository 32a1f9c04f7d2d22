"""Disturbed examples: the same for every network, worse with every strength, and with the answers of the originals."""

from pathlib import Path

import numpy as np
import pytest
import torch

from penjing.core import Sounds, Texts
from penjing.tasks import STRENGTHS, Disturbed, disturbances, image_data, shown, tokens_shown
from penjing.tasks._disturb_pictures import PICTURES
from penjing.tasks._disturb_sounds import SOUNDS
from penjing.tasks._disturb_texts import TEXTS
from penjing.tasks._examples import Example, Examples, ordered_labels
from penjing.tasks._prepare import Options
from penjing.tasks._sounds import sound_data_of
from penjing.tasks._texts import text_data_of
from penjing.tasks._tokens import tag_labels, token_data_of

RATE = 8000
TEXT = "a quick brown fox jumps over the lazy dog and runs into the dark forest behind seven hills " * 4


def pictures():
    return image_data("builtin:digits", size=(1, 16, 16), mean=(0.5,), std=(0.5,))


def tone(i: int) -> np.ndarray:
    n = 2400 + 80 * (i % 10)
    return (0.3 * np.sin(2 * np.pi * (300 + 200 * (i % 2)) * np.arange(n) / RATE + i)).astype(np.float32)


def sounds():
    pytest.importorskip("soundfile")
    rows = [
        Example(content=tone(i), label=str(i % 2), name=f"clip {i}", group=f"v{i // 4}", rate=RATE)
        for i in range(40)
    ]
    found = Examples(
        name="t", source="here", licence="none", examples=rows, labels=("0", "1"), augmentation="light"
    )
    reads = Sounds(sample_rate=RATE, features="mels", layout="frames", bins=20)
    return sound_data_of(found, reads, Options())


def texts(folder: Path):
    rows = [(f"{'cat' if i % 2 else 'dog'} sat a new york {'a ' * i}.", f"c{i % 2}") for i in range(40)]
    named = [Example(content=text, label=label, name=f"row {i}") for i, (text, label) in enumerate(rows)]
    labels = ordered_labels(label for _, label in rows)
    found = Examples(name="x", source="x.csv", licence="none", examples=named, labels=labels)
    return text_data_of(found, Texts(tokenizer=str(folder), max_length=32, vocabulary=15), Options())


def tagged(folder: Path):
    rows = [
        (("dogs", "sat", "new", "york", *("a",) * (i // 3)), ("B-PET", "O", "B-LOC", "I-LOC"))
        for i in range(48)
    ]
    named = tuple(
        Example(words, (*tags, *("O",) * (len(words) - 4)), f"row {i}")
        for i, (words, tags) in enumerate(rows)
    )
    found = Examples(name="x", source="x.csv", licence="none", examples=named, labels=tag_labels(named))
    return token_data_of(found, Texts(tokenizer=str(folder), max_length=32, vocabulary=15), Options())


def first(batch):
    inputs, targets = batch
    values = inputs["input_ids"] if isinstance(inputs, dict) else inputs
    return values, targets


@pytest.mark.parametrize("kind", PICTURES)
def test_pictures_lose_more_with_every_strength_and_keep_their_classes(kind: str) -> None:
    data = pictures()
    plain, truth = first(
        next(Disturbed(data=data, kind=kind, strength=0, count=40).batches("certification", 40))
    )
    apart = []
    for strength in STRENGTHS:
        found = Disturbed(data=data, kind=kind, strength=strength, count=40)
        values, targets = first(next(found.batches("certification", 40)))
        assert torch.equal(targets, truth)
        assert values.shape == plain.shape
        assert values.min() >= -1
        assert values.max() <= 1
        again = Disturbed(data=data, kind=kind, strength=strength, count=40)
        assert torch.equal(values, first(next(again.batches("certification", 40)))[0])
        smaller = torch.cat([first(batch)[0] for batch in found.batches("certification", 7)])
        assert torch.allclose(
            values, smaller, atol=1e-6
        )  # an example's disturbance does not depend on its batch
        apart.append(float((values - plain).square().mean()))
    assert apart == sorted(apart)
    assert apart[0] > 0


@pytest.mark.parametrize("kind", TEXTS)
def test_texts_change_word_by_word(kind: str) -> None:
    changed = []
    for strength in STRENGTHS:
        found = TEXTS[kind](TEXT, np.random.default_rng(0), strength=strength)
        assert found == TEXTS[kind](TEXT, np.random.default_rng(0), strength=strength)
        left = set(TEXT.split(" "))
        if kind == "dropped words":
            changed.append(len(TEXT.split(" ")) - len(found.split(" ")))
        else:
            assert len(found.split(" ")) == len(TEXT.split(" "))
            changed.append(sum(word not in left for word in found.split(" ")))
    assert changed == sorted(changed)
    assert changed[-1] > changed[0] > 0
    assert TEXTS[kind]("a", np.random.default_rng(1), strength=3).strip()


@pytest.mark.parametrize("kind", SOUNDS)
def test_clips_change_more_with_every_strength(kind: str) -> None:
    clip, apart = tone(0), []
    for strength in STRENGTHS:
        found = SOUNDS[kind](clip, strength, np.random.default_rng(0))
        assert found.dtype == np.float32
        assert np.isfinite(found).all()
        apart.append(len(clip) - len(found) if kind == "speed" else float(np.square(found - clip).mean()))
    assert apart == sorted(apart)
    assert apart[0] > 0
    assert np.isfinite(SOUNDS[kind](np.zeros(100, dtype=np.float32), 3, np.random.default_rng(0))).all()


def test_noise_has_the_power_that_was_asked() -> None:
    clip = np.random.default_rng(1).standard_normal(40_000).astype(np.float32)
    noise = SOUNDS["noise"](clip, 2, np.random.default_rng(0)) - clip
    assert 10 * np.log10(np.mean(clip**2) / np.mean(noise**2)) == pytest.approx(20, abs=0.2)


def test_texts_tags_and_clips_keep_their_answers(tiny_tokenizer: Path) -> None:
    for data in (texts(tiny_tokenizer), tagged(tiny_tokenizer), sounds()):
        kinds = disturbances(data)
        assert kinds
        plain = Disturbed(data=data, kind="as they are", strength=0, count=8)
        truth = first(next(plain.batches("certification", 8)))[1]
        for kind in kinds:
            found = Disturbed(data=data, kind=kind, strength=3, count=8)
            values, targets = first(next(found.batches("certification", 8)))
            assert found.n("certification") == len(values) == 8
            counted = targets[targets != -100] if targets.dim() > 1 else targets
            wanted = truth[truth != -100] if truth.dim() > 1 else truth
            assert torch.equal(counted, wanted)


def test_words_with_tags_are_never_dropped(tiny_tokenizer: Path) -> None:
    assert "dropped words" not in disturbances(tagged(tiny_tokenizer))
    assert "dropped words" in disturbances(texts(tiny_tokenizer))


def test_examples_are_shown_as_people_know_them(tiny_tokenizer: Path) -> None:
    seen = shown(pictures(), 3)
    assert seen.picture is not None
    assert seen.picture.shape == (1, 16, 16)
    assert 0 <= float(seen.picture.min()) < float(seen.picture.max()) <= 1
    data = texts(tiny_tokenizer)
    assert shown(data, 1).text.startswith("cat sat a new york")
    assert tokens_shown(data, 1)[:3] == ["[CLS]", "cat", "sat"]
    assert shown(tagged(tiny_tokenizer), 0).text.startswith("dogs sat new york")
    clip = shown(sounds(), 2)
    assert clip.samples is not None
    assert (clip.rate, len(clip.samples)) == (RATE, len(tone(2)))
