"""Clips in splits and batches: shapes, masks, views, buckets, remarks, and what is left out."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from penjing.core import DataError, Sounds, UsageError
from penjing.tasks._examples import Example, Examples
from penjing.tasks._prepare import Options
from penjing.tasks._sound_augment import SOUND_POLICIES
from penjing.tasks._sound_store import StreamedSounds
from penjing.tasks._sounds import sound_data_of

pytest.importorskip("soundfile", reason="needs penjing[audio]")
pytest.importorskip("soxr", reason="needs penjing[audio]")

RATE = 8_000
WAVES = Sounds(sample_rate=RATE, features="waveform", layout="samples")
FRAMES = Sounds(sample_rate=RATE, features="mels", layout="frames", bins=20)
PICTURE = dataclasses.replace(FRAMES, layout="picture", channels=3, frames=32, mean=-6.0, std=4.0)
MASKED = dataclasses.replace(WAVES, keyword="input_values", mask="attention_mask", per_clip=True)
READS = {"waves": WAVES, "frames": FRAMES, "picture": PICTURE, "masked": MASKED}


def clip(i, label):
    """A tone whose pitch is its label, 0.1 to 0.5 s long."""
    n = 800 + 160 * (i * 7 % 20)
    phase = np.random.default_rng(i).uniform(0, 6)
    return (0.3 * np.sin(2 * np.pi * (300 + 400 * label) * np.arange(n) / RATE + phase)).astype(np.float32)


def examples(n=40, extra=()):
    made = [
        Example(
            content=clip(i, i % 2), label=str(i % 2), name=f"clip {i}", group=f"voice {i // 4}", rate=RATE
        )
        for i in range(n)
    ]
    return Examples(
        name="tones",
        source="here",
        licence="none",
        examples=(*made, *extra),
        labels=("0", "1"),
        augmentation="light",
    )


def data(reads, n=40, extra=(), **options):
    return sound_data_of(examples(n, extra), reads, Options(threads=1, **options))


def values(inputs):
    return inputs["input_values"] if isinstance(inputs, dict) else inputs


@pytest.mark.parametrize("kind", READS)
def test_batches_hold_what_the_network_reads(kind):
    found = data(READS[kind])
    longest = 0
    for inputs, targets in found.batches("train", 8):
        x = values(inputs)
        assert x.dtype == torch.float32
        assert len(x) == len(targets)
        assert torch.isfinite(x).all()
        longest = max(longest, x.shape[1])
        if kind == "picture":
            assert x.shape[1:] == (3, 20, 32)
            assert torch.equal(x[:, 0], x[:, 2])
        if kind == "frames":
            assert x.shape[2] == 20
        if kind == "masked":
            mask = inputs["attention_mask"]
            assert mask.shape == x.shape
            assert (x[mask == 0] == 0).all()
            assert x.shape[1] == max(mask.sum(1).max(), 0.4 * RATE)
    assert sum(len(t) for _, t in found.batches("train", 8)) == found.n("train")


def test_masks_end_where_clips_end():
    found = data(MASKED)
    for (inputs, _), start in zip(found.batches("selection", 4), range(0, 100, 4), strict=False):
        places = found.split("selection").indices[start : start + len(inputs["input_values"])]
        assert inputs["attention_mask"].sum(1).tolist() == found.contents.lengths[list(places)].tolist()


def test_voices_never_straddle_splits():
    found = data(WAVES)
    kept = examples().examples
    parts = [{kept[i].group for i in found.split(s).indices} for s in ("train", "selection", "certification")]
    assert all(parts)
    assert not (parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2])


@pytest.mark.parametrize("kind", READS)
@pytest.mark.parametrize("policy", ["light", "standard"])
def test_a_view_is_the_same_whatever_else_is_in_the_batch(kind, policy):
    found = data(READS[kind])

    def views(size):
        """Each clip's view, cut to the clip."""
        rows = {}
        order = found.split("train").indices
        served = 0
        for inputs, _ in found.batches("train", size, augment=policy, seed=3, epoch=5):
            x = values(inputs)
            for row in x:
                rows[order[served]] = row
                served += 1
        return rows

    together, apart = views(1000), views(2)
    for i, row in apart.items():
        other = together[i]
        if kind != "picture":
            other = other[: len(row)]
        assert torch.equal(row, other)
    again = next(iter(found.batches("train", 4, augment=policy, seed=3, epoch=6)))
    before = next(iter(found.batches("train", 4, augment=policy, seed=3, epoch=5)))
    assert values(again[0]).shape != values(before[0]).shape or not torch.equal(
        values(again[0]), values(before[0])
    )


def test_a_light_view_loses_nothing():
    found = data(WAVES)
    maker = found.contents.batcher.maker
    x = torch.arange(1.0, 101.0)
    seen = SOUND_POLICIES["light"](x, [0.3, 0.5, *[0.0] * 14], maker)
    assert len(seen) == 120
    assert torch.equal(seen[seen != 0], x)


@pytest.mark.parametrize("policy", ["light", "standard"])
def test_a_view_that_fits_whole_stays_whole(policy):
    maker = data(PICTURE).contents.batcher.maker
    for length in (5, 30, 32):
        x = torch.rand(length, 20)
        for draw in (0.0, 0.5, 0.999):
            assert len(SOUND_POLICIES[policy](x, [draw] * 16, maker)) <= 32
    assert len(SOUND_POLICIES["light"](torch.rand(40, 20), [0.5] * 16, maker)) == 48


def test_the_shortest_batch_is_long_enough_for_networks_that_shorten_time():
    short = examples()
    cut = [e._replace(content=e.content[:400]) for e in short.examples]
    found = sound_data_of(dataclasses.replace(short, examples=cut), WAVES, Options(threads=1))
    inputs, _ = next(iter(found.batches("train", 4)))
    assert inputs.shape == (4, 0.4 * RATE)
    assert (inputs[:, 400:] == 0).all()


def test_shuffling_is_a_function_of_seed_and_epoch():
    found = data(WAVES)

    def order(**given):
        return [t.tolist() for _, t in found.batches("train", 4, shuffle=True, **given)]

    assert order(seed=1, epoch=2) == order(seed=1, epoch=2)
    assert order(seed=1, epoch=2) != order(seed=1, epoch=3)


def test_buckets_serve_every_clip_once_and_say_where_it_belongs():
    found = data(WAVES)
    order, batches = found.bucketed("certification", 3)
    assert sorted(order.tolist()) == list(range(found.n("certification")))
    served = torch.cat([targets for _, targets in batches])
    assert torch.equal(served, found.targets("certification")[order])
    lengths = found.contents.lengths[list(found.split("certification").indices)][order]
    assert (np.diff(lengths) >= 0).all()


def test_the_example_is_always_the_same_and_of_typical_size():
    found = data(MASKED)
    one, other = found.example(3), found.example(3)
    assert torch.equal(one["input_values"], other["input_values"])
    assert one["attention_mask"].sum(1).tolist()[:2] == [one["input_values"].shape[1]] * 2
    assert one["attention_mask"][2].sum() < one["input_values"].shape[1]
    assert found.size == (one["input_values"].shape[1],)
    assert (found.contents.lengths <= found.size[0]).mean() >= 0.75
    assert data(PICTURE).size == (3, 20, 32)
    assert data(FRAMES).size[1] == 20


def test_a_network_without_a_mask_hears_short_clips_again():
    found = data(dataclasses.replace(FRAMES, frames=64, scale="power"))
    inputs, _ = next(iter(found.batches("train", 4)))
    own = found.contents.store.take(found.split("train").indices[:1])[0]
    assert torch.equal(inputs[0, len(own) : 2 * len(own)][: 64 - len(own)], own[: 64 - len(own)])


def test_a_picture_has_short_clips_in_its_middle():
    found = data(PICTURE)
    inputs, _ = next(iter(found.batches("train", 4)))
    own = found.contents.store.take(found.split("train").indices[:1])[0]
    quiet = (math.log(1e-6) + 6.0) / 4.0
    silent = (inputs[0, 0] - quiet).abs().amax(0) < 1e-6
    before = (32 - len(own)) // 2
    assert silent[:before].all()
    assert silent[before + len(own) :].all()
    assert not silent[before : before + len(own)].all()


def test_too_much_for_memory_is_made_anew_and_alike():
    kept, streamed = data(FRAMES), data(FRAMES, cache_bytes=1_000)
    assert isinstance(streamed.contents.store, StreamedSounds)
    for (a, _), (b, _) in zip(kept.batches("train", 8), streamed.batches("train", 8), strict=True):
        assert torch.equal(a, b)


SILENT = Example(content=np.zeros(4000, np.float32), label="0", name="a silent one", rate=RATE)
LONG = Example(content=np.zeros(RATE * 40, np.float32), label="0", name="a long one", rate=RATE)


def test_bad_clips_are_named_or_left_out():
    with pytest.raises(
        DataError, match=r"(?s)cannot be used \(2\).*a silent one: silent.*a long one: 40 s long"
    ):
        data(WAVES, extra=(SILENT, LONG))
    found = data(WAVES, extra=(SILENT, LONG), skip_bad=True)
    assert len(found.bad) == 2
    assert len(found.names) == 40
    assert any("2 clips are left out" in remark for remark in found.remarks)


def test_remarks_count_what_is_odd():
    loud = np.clip(clip(0, 0) * 20, -1, 1)
    odd = (
        Example(content=loud, label="0", name="loud", rate=RATE),
        Example(content=clip(2, 0), label="0", name="slow", rate=RATE // 2),
    )
    said = " ".join(data(PICTURE, extra=odd).remarks)
    assert "1 of 42 clips are clipped" in said
    assert "1 of 42 clips have a lower sample rate than the network's 8,000 Hz" in said
    assert "clips are longer than what the network reads" in said
    assert "no mask" in " ".join(data(WAVES).remarks)


def test_wrong_options_are_told():
    with pytest.raises(UsageError, match="Unknown augmentation"):
        data(WAVES, augmentation="wild")
    with pytest.raises(UsageError, match="max_seconds"):
        data(WAVES, max_seconds=0.0)
    with pytest.raises(UsageError, match="Unknown split"):
        data(WAVES).split("rest")


def test_limits_take_the_first_of_a_split():
    found = data(WAVES)
    some = torch.cat([t for _, t in found.batches("train", 4, limit=6)])
    assert torch.equal(some, found.targets("train")[:6])
    with pytest.raises(UsageError, match="at least 1"):
        found.batches("train", 0)
