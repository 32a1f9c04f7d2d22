"""Disturbances of texts, word by word, at strengths 1 to 3."""

from collections.abc import Callable, Mapping

import numpy as np

SHARES = (0.05, 0.10, 0.20)  # of the words
SHOUTED = (0.1, 0.3, 1.0)
SHORT = 3  # letters: shorter words are left alone


def typos(text: str, random: np.random.Generator, *, strength: int) -> str:
    """In a share of the words two neighbouring letters inside change places (Belinkov & Bisk, "Synthetic and natural
    noise both break neural machine translation", ICLR 2018), or one is missing or doubled.
    """
    return _each(text, random, SHARES[strength - 1], _misspelt)


def case(text: str, random: np.random.Generator, *, strength: int) -> str:
    """A share of the words in capitals; those that are so already in small letters."""
    return _each(
        text, random, SHOUTED[strength - 1], lambda word, _: word.lower() if word.isupper() else word.upper()
    )


def dropped(text: str, random: np.random.Generator, *, strength: int) -> str:
    """A share of the words left out, never all."""
    words = text.split(" ")
    kept = [
        word
        for word, chance in zip(words, random.random(len(words)), strict=True)
        if chance >= SHARES[strength - 1]
    ]
    return " ".join(kept) if any(word.strip() for word in kept) else text


def _each(
    text: str,
    random: np.random.Generator,
    share: float,
    change: Callable[[str, np.random.Generator], str],
) -> str:
    words = text.split(" ")
    chances = random.random(len(words))
    return " ".join(
        change(word, random) if chance < share else word for word, chance in zip(words, chances, strict=True)
    )


def _misspelt(word: str, random: np.random.Generator) -> str:
    if len(word) <= SHORT:
        return word
    place = int(random.integers(1, len(word) - 2))
    swapped = word[:place] + word[place + 1] + word[place] + word[place + 2 :]
    missing = word[:place] + word[place + 1 :]
    doubled = word[:place] + word[place] + word[place:]
    return (swapped, missing, doubled)[int(random.integers(3))]


TEXTS: Mapping[str, Callable[..., str]] = {"typos": typos, "case": case, "dropped words": dropped}
