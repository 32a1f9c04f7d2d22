"""Clips from files, bytes and samples: what is right, what is refused, and why."""

import io
import struct

import numpy as np
import pytest

from penjing.tasks._sound_files import BadSound, read_clip, resampled, seconds_of

soundfile = pytest.importorskip("soundfile", reason="needs penjing[audio]")
pytest.importorskip("soxr", reason="needs penjing[audio]")

RATE = 16_000


def tone(seconds=0.5, rate=RATE, hertz=440.0, gain=0.5):
    return (gain * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def encoded(samples, rate=RATE, kind="WAV", subtype="PCM_16"):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


@pytest.mark.parametrize(("kind", "subtype"), [("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("WAV", "FLOAT")])
def test_bytes_files_and_samples_are_one_clip(tmp_path, kind, subtype):
    content = encoded(tone(), kind=kind, subtype=subtype)
    path = tmp_path / "clip.bin"
    path.write_bytes(content)
    from_bytes, from_file = read_clip(content, RATE, 30.0), read_clip(path, RATE, 30.0)
    from_samples = read_clip(tone(), RATE, 30.0, own_rate=RATE)
    assert (from_bytes.samples == from_file.samples).all()
    assert from_bytes.digest == from_file.digest != from_samples.digest
    assert np.abs(from_bytes.samples - from_samples.samples).max() <= 2**-15  # 16 bits
    assert from_bytes.samples.dtype == np.float32


def test_channels_are_averaged():
    left, right = tone(), tone(hertz=880.0)
    clip = read_clip(encoded(np.stack([left, right], 1), subtype="FLOAT"), RATE, 30.0)
    assert np.abs(clip.samples - (left + right) / 2).max() < 1e-6  # float32


@pytest.mark.parametrize("own", [8_000, 22_050, 44_100])
def test_a_tone_stays_a_tone_at_another_rate(own):
    clip = read_clip(encoded(tone(1.0, own), own), RATE, 30.0)
    assert clip.rate == own
    assert abs(len(clip.samples) - RATE) <= 1
    inner = slice(RATE // 4, 3 * RATE // 4)  # away from the filter's ends
    assert np.abs(clip.samples[inner] - tone(1.0)[: len(clip.samples)][inner]).max() < 2e-3


def test_what_lies_above_the_new_band_goes():
    high = tone(1.0, 44_100, hertz=12_000.0)
    assert np.abs(resampled(high, 44_100, RATE)[2000:-2000]).max() < 1e-3


@pytest.mark.parametrize("kind", [np.int16, np.int32, np.uint8])
def test_whole_numbers_are_taken_by_their_full_scale(kind):
    wave = tone()
    full = float(1 << (8 * np.dtype(kind).itemsize - 1))
    whole = (wave * full * 0.99 + (full if kind == np.uint8 else 0)).astype(kind)
    clip = read_clip(whole, RATE, 30.0, own_rate=RATE)
    assert np.abs(clip.samples - 0.99 * wave).max() < 1.01 / full


def hour_long():
    """A WAV header that promises an hour, and nothing behind it but a little."""
    head = bytearray(encoded(np.zeros(RATE * 2, dtype=np.float32) + 0.5))
    head[40:44] = struct.pack("<I", 3600 * RATE * 2)
    head[4:8] = struct.pack("<I", 3600 * RATE * 2 + 36)
    return bytes(head)


BAD = {
    "empty": (b"", "empty"),
    "text": (b"hello, I am a text and no sound at all", "not a sound file"),
    "no samples": (encoded(np.zeros(0, dtype=np.float32)), "zero length"),
    "constant": (encoded(np.full(RATE, 0.5, dtype=np.float32)), "silent"),
    "hiss below -80 dB": (encoded(tone(gain=1e-4), subtype="FLOAT"), "silent"),
    "not finite": (encoded(np.full(RATE, np.nan, dtype=np.float32), subtype="FLOAT"), "not finite"),
    "a click": (encoded(tone(0.01)), "10.0 ms"),
    "long": (encoded(tone(3.0)), "3 s long; the limit is 2 s"),
    "torn wav": (encoded(tone())[:8_000], "promises 16,000 bytes of samples and holds 7,956"),
    "torn aiff": (encoded(tone(), kind="AIFF")[:8_000], "corrupt"),
    "torn flac": (encoded(tone(), kind="FLAC")[:-2000], "corrupt"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_clip_is_refused_with_its_reason(case):
    content, why = BAD[case]
    with pytest.raises(BadSound, match=why):
        read_clip(content, RATE, 2.0)


def test_an_hour_is_refused_before_anything_is_decoded(tmp_path, monkeypatch):
    path = tmp_path / "hour.flac"
    soundfile.write(path, np.zeros(3600 * 100, dtype=np.int16), 100)
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(BadSound, match="60 min 0 s long; the limit is 30 s"):
        read_clip(path, RATE, 30.0)
    assert seconds_of(path) == 3600.0


def test_a_header_that_promises_too_much_is_no_bomb():
    with pytest.raises(BadSound, match=r"long; the limit|corrupt"):
        read_clip(hour_long(), RATE, 1.0)


def test_a_header_written_before_the_length_was_known_is_right():
    streamed = bytearray(encoded(tone()))
    streamed[40:44] = struct.pack("<I", 0xFFFFFFFF)
    assert len(read_clip(bytes(streamed), RATE, 30.0).samples) == len(tone())


def test_missing_files_and_missing_rates(tmp_path):
    with pytest.raises(BadSound, match="does not exist"):
        read_clip(tmp_path / "none.wav", RATE, 30.0)
    with pytest.raises(BadSound, match="no sample rate"):
        read_clip(tone(), RATE, 30.0)
    with pytest.raises(BadSound, match="not \\[n\\]"):
        read_clip(np.zeros((2, 2, 2), dtype=np.float32), RATE, 30.0, own_rate=RATE)


def test_clipping_is_told_and_no_error():
    assert read_clip(encoded(np.clip(tone(gain=3.0), -1, 1)), RATE, 30.0).clipped
    assert not read_clip(encoded(tone(gain=0.9)), RATE, 30.0).clipped
