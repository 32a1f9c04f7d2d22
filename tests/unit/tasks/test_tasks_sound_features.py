"""Mel frames against slow twins, shapes, fixed lengths and feature extractors."""

import cmath
import math

import numpy as np
import pytest
import torch

from penjing.core import Pictures, Sounds, UsageError
from penjing.tasks._sound_features import feature_maker, fixed, mel_bank, mels, sounds_for

RATE = 16_000


def noise(n, seed=0):
    return torch.randn(n, generator=torch.Generator().manual_seed(seed)) * 0.1


def speaker(**changes):
    """40 power mels at 16 kHz, 25 ms every 10 ms."""
    given = {
        "sample_rate": RATE,
        "features": "mels",
        "layout": "frames",
        "bins": 40,
        "scale": "power",
    } | changes
    return Sounds(**given)


def to_mel(hertz):
    return 3 * hertz / 200 if hertz < 1000 else 15 + math.log(hertz / 1000) / (math.log(6.4) / 27)


def to_hertz(mel):
    return 200 * mel / 3 if mel < 15 else 1000 * math.exp((mel - 15) * math.log(6.4) / 27)


def slow_mels(wave, bins, window, hop, rate):
    """By the formulas: every sum written out."""
    edges = [to_hertz(i * to_mel(rate / 2) / (bins + 1)) for i in range(bins + 2)]
    silent = [0.0] * (window // 2)
    wave = silent + wave + silent
    frames = []
    for start in range(0, len(wave) - window + 1, hop):
        piece = [wave[start + n] * (0.5 - 0.5 * math.cos(2 * math.pi * n / window)) for n in range(window)]
        power = []
        for k in range(window // 2 + 1):
            power.append(
                abs(sum(v * cmath.exp(-2j * math.pi * k * n / window) for n, v in enumerate(piece))) ** 2
            )
        frame = []
        for low, peak, high in zip(edges, edges[1:], edges[2:], strict=False):
            total = 0.0
            for k, p in enumerate(power):
                f = k * rate / window
                total += (
                    p * max(0.0, min((f - low) / (peak - low), (high - f) / (high - peak))) * 2 / (high - low)
                )
            frame.append(total)
        frames.append(frame)
    return torch.tensor(frames)


def test_power_mels_are_what_the_formulas_say():
    wave = noise(1_000)
    fast = mels(wave, speaker())
    slow = slow_mels(wave.tolist(), 40, 400, 160, RATE)
    assert fast.shape == slow.shape == (1 + 1_000 // 160, 40)
    assert torch.allclose(fast, slow, rtol=1e-4, atol=1e-9)  # float32 against float64


def test_log_mels_are_the_logarithm_above_the_floor():
    wave = torch.cat([noise(800), torch.zeros(2_000)])
    power, logs = mels(wave, speaker()), mels(wave, speaker(scale="log"))
    assert torch.equal(logs, power.clamp(min=1e-6).log())
    assert logs[-1].eq(math.log(1e-6)).all()


@pytest.mark.parametrize(("bins", "window", "size"), [(40, 400, 400), (128, 400, 400), (224, 400, 800)])
def test_no_filter_is_empty(bins, window, size):
    found, bank = mel_bank(RATE, window, bins)
    assert found == size
    assert bank.shape == (bins, size // 2 + 1)
    assert (bank.sum(1) > 0).all()


def test_the_filters_are_those_of_transformers():
    audio = pytest.importorskip("transformers.audio_utils", reason="needs transformers")
    theirs = audio.mel_filter_bank(201, 40, 0.0, 8000.0, RATE, norm="slaney", mel_scale="slaney")
    assert np.allclose(mel_bank(RATE, 400, 40)[1].T, theirs, atol=1e-7)  # float32


def test_a_tone_lights_up_its_band():
    wave = 0.5 * torch.sin(2 * math.pi * 1000 * torch.arange(RATE) / RATE)
    centres = [to_hertz((i + 1) * to_mel(8000) / 41) for i in range(40)]
    nearest = min(range(40), key=lambda i: abs(centres[i] - 1000))
    assert mels(wave, speaker())[50].argmax() == nearest


def test_waveforms_per_clip_have_mean_0_and_variance_1():
    reads = Sounds(sample_rate=RATE, features="waveform", layout="samples", per_clip=True)
    wave = feature_maker(reads).make(noise(4_000).numpy() * 3 + 0.5)
    assert abs(wave.mean().item()) < 1e-5
    assert abs(wave.var(unbiased=False).item() - 1) < 1e-4  # float32, and the 1e-7 in the root


def test_what_does_not_fit_is_refused():
    with pytest.raises(UsageError, match="frames or picture"):
        feature_maker(speaker(layout="samples"))
    with pytest.raises(UsageError, match="bins"):
        feature_maker(speaker(bins=0))
    with pytest.raises(UsageError, match="keyword"):
        feature_maker(speaker(mask="attention_mask"))


def test_fixed_lengths():
    x = torch.arange(5.0)
    assert fixed(x, 3, -1.0, repeat=False, end=False).tolist() == [1, 2, 3]
    assert fixed(x, 8, -1.0, repeat=False, end=False).tolist() == [-1, 0, 1, 2, 3, 4, -1, -1]
    assert fixed(x, 8, -1.0, repeat=False, end=True).tolist() == [0, 1, 2, 3, 4, -1, -1, -1]
    assert fixed(x, 8, -1.0, repeat=True, end=False).tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    assert fixed(x[:, None], 6, -1.0, repeat=False, end=True)[-1].tolist() == [-1]


@pytest.mark.parametrize(("mean", "std", "low", "high"), [(0.5, 0.5, -1.0, 1.0), (0.0, 1.0, 0.0, 1.0)])
def test_pictures_of_sounds_lie_where_pictures_do(mean, std, low, high):
    reads = sounds_for(Pictures(size=(3, 64, 96), mean=(mean,) * 3, std=(std,) * 3), seconds=0.6)
    assert (reads.bins, reads.frames, reads.channels, reads.layout) == (64, 96, 3, "picture")
    wave = noise(9_600) * torch.linspace(0, 5, 9_600)
    found = (feature_maker(reads).make(wave.numpy()) - reads.mean) / reads.std
    assert abs(len(found) - 96) <= 1
    assert found.min() >= low - 1e-5
    assert found.max() <= high
    assert found.max() > low + 0.6 * (high - low)


def test_gain_moves_each_scale_alike():
    for reads in (
        speaker(),
        speaker(scale="log"),
        Sounds(sample_rate=RATE, features="waveform", layout="samples"),
    ):
        maker, wave = feature_maker(reads), noise(2_000).numpy()
        louder = maker.make(wave * np.float32(10 ** (6 / 20)))
        assert torch.allclose(maker.gained(maker.make(wave), 6.0), louder, rtol=1e-4, atol=1e-5)  # float32


WAV2VEC2 = {
    "feature_extractor_type": "Wav2Vec2FeatureExtractor",
    "feature_size": 1,
    "sampling_rate": RATE,
    "padding_value": 0.0,
    "do_normalize": True,
    "return_attention_mask": True,
}


def extracting(config, layout):
    return Sounds(sample_rate=RATE, features="extractor", layout=layout, extractor=config)


def test_extractors_of_transformers():
    pytest.importorskip("transformers", reason="needs transformers")
    wave = noise(4_000).numpy()
    made = feature_maker(extracting(WAV2VEC2, "samples")).make(wave)
    assert torch.allclose(made, torch.from_numpy((wave - wave.mean()) / wave.std()), atol=1e-4)  # float32
    whisper = {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 20, "chunk_length": 1}
    maker = feature_maker(extracting(whisper, "frames"))
    assert maker.turned
    assert maker.make(wave).shape == (100, 20)


@pytest.mark.parametrize("name", ["", "AutoModel", "os.system", "PretrainedConfig"])
def test_only_feature_extractors_are_made(name):
    pytest.importorskip("transformers", reason="needs transformers")
    with pytest.raises(UsageError, match="has no feature extractor"):
        feature_maker(extracting({"feature_extractor_type": name}, "samples"))


def test_another_rate_than_the_extractors():
    pytest.importorskip("transformers", reason="needs transformers")
    with pytest.raises(UsageError, match="sample rate"):
        feature_maker(extracting(WAV2VEC2 | {"sampling_rate": 8_000}, "samples"))
