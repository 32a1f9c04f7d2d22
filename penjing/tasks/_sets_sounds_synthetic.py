"""Synthetic speech: keywords and strings of digits in dozens of voices of eSpeak NG. Nobody ever said them."""

from collections.abc import Sequence

import numpy as np

from penjing.packages import package_named
from penjing.tasks._augment import uniform
from penjing.tasks._examples import Example, Examples, ordered_labels
from penjing.tasks._sound_synthesis import PACKAGE, RATE, Progress, Saying, speech

_KEYWORDS = (
    "backward bed bird cat dog down eight five follow forward four go happy house learn left marvin nine no off on one "
    "right seven sheila six stop three tree two up visual wow yes zero"
)
_VOICES = (
    "Alex Alicia Andrea Andy Annie Denis Diogo Gene Henrique Hugo Lee Marco Mario Michael Mike Nguyen Reed adam "
    "announcer aunty belinda benjamin boris caleb david ed edward f1 f2 f3 f4 f5 gustave ian john linda m1 m2 m3 "
    "m4 m5 m6 m7 m8 marcelo max michel miguel norbert pablo paul pedro quincy rob robert sandro steph travis "
    "victor zac"
)
KEYWORDS = tuple(_KEYWORDS.split())
VOICES = tuple(_VOICES.split())
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ACCENTS = ("en", "en-us", "en-gb-scotland")
LONGEST, EACH = 6, 3  # digits in a string; strings of each length for a voice in an accent
SPEEDS, PITCHES = (130, 210), (35, 65)  # words per minute; espeak's scale from 0 to 99
SYNTHETIC = "The speech is synthetic (eSpeak NG): figures say nothing about people"
SPLIT_BY_VOICE = "Examples of one voice, whatever its accent, stay in one split"


def keywords(progress: Progress | None = None) -> Examples:
    """6,300 synthetic clips of 35 English words: 60 voices of eSpeak NG in 3 accents, each word once.

    Made on first use by the library in PyPI's espeakng-loader 0.2.4 (eSpeak NG 1.52.0, GPL-3.0-or-later; its output is
    not covered), which is run for it, and kept in the cache; 16 kHz, 0.15 to 1.1 s; speed and pitch vary. Traps: it is
    synthetic, nobody speaks; a voice, all its accents together, stays in one split.
    """
    sayings = [(word, voice, accent) for voice in VOICES for accent in ACCENTS for word in KEYWORDS]
    return _said("keywords", "audio-classification", sayings, progress)


def digit_strings(progress: Progress | None = None) -> Examples:
    """3,240 synthetic clips of 1 to 6 English digits with transcripts in words ("three one four"): 60 voices of
    eSpeak NG in 3 accents, 3 strings of each length.

    Made, licensed and kept as `keywords`; 16 kHz, 0.2 to 3 s. Traps: it is synthetic, nobody speaks; a voice stays in
    one split, though a short string may be said by voices of two.
    """
    places = [(voice, accent) for voice in VOICES for accent in ACCENTS]
    draws = uniform(1, 0, range(len(places) * EACH * LONGEST), LONGEST)
    strings = [
        " ".join(DIGITS[int(10 * draw)] for draw in row[: 1 + i % LONGEST]) for i, row in enumerate(draws)
    ]
    sayings = [
        (strings[i * EACH * LONGEST + k], voice, accent)
        for i, (voice, accent) in enumerate(places)
        for k in range(EACH * LONGEST)
    ]
    return _said("digit-strings", "speech-recognition", sayings, progress)


def _said(
    name: str, task: str, sayings: Sequence[tuple[str, str, str]], progress: Progress | None
) -> Examples:
    draws = uniform(2, 0, range(len(sayings)), 2)
    speeds, pitches = (
        np.floor(low + (high - low) * column).astype(int).tolist()
        for (low, high), column in zip((SPEEDS, PITCHES), draws.T, strict=True)
    )
    job: list[Saying] = [
        (text, f"{accent}+{voice}", speed, pitch)
        for (text, voice, accent), speed, pitch in zip(sayings, speeds, pitches, strict=True)
    ]
    clips = speech(name, job, progress).clips
    examples = tuple(
        Example(
            content=clip, label=text, name=f"builtin:{name}[{i}: {voice}, {accent}]", group=voice, rate=RATE
        )
        for i, (clip, (text, voice, accent)) in enumerate(zip(clips, sayings, strict=True))
    )
    classes = task == "audio-classification"
    return Examples(
        name=name,
        source=f"builtin:{name} (synthetic speech)",
        licence=f"synthetic, free of rights; made by {package_named(PACKAGE).licence}",
        examples=examples,
        labels=ordered_labels(text for text, _, _ in sayings) if classes else (),
        augmentation="standard",
        tasks=(task,),
        remarks=(SYNTHETIC, SPLIT_BY_VOICE),
    )
