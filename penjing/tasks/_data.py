"""From the words that name data to pictures in splits."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from penjing.core import DataError, UsageError, cut
from penjing.tasks._augment import policy_named
from penjing.tasks._builtin import BUILTIN, builtin
from penjing.tasks._examples import Examples
from penjing.tasks._folder import folder
from penjing.tasks._hub import hub
from penjing.tasks._images import ImageData
from penjing.tasks._pixels import load_pixels
from penjing.tasks._splits import Labelled, contradictions, make_splits
from penjing.tasks._table import SUFFIXES, table

GIB = 1 << 30
HUB_NAME = re.compile(r"[\w-]+/[\w.-]+(:[\w.-]+)?")
FORMS = (
    f"a folder of class folders, a table ({', '.join(SUFFIXES)}), "
    f"{', '.join('builtin:' + name for name in BUILTIN)}, "
    "or OWNER/NAME of a Hugging Face data set (hf:NAME for one without owner)"
)


def image_data(
    data: str | Path,
    *,
    size: tuple[int, int, int],
    mean: Sequence[float],
    std: Sequence[float],
    seed: int = 0,
    splits: Sequence[float] | None = None,
    skip_bad: bool = False,
    per_class_min: int = 1,
    path_column: str | None = None,
    label_column: str | None = None,
    augmentation: str | None = None,
    cache_bytes: int = 4 * GIB,
    threads: int | None = None,
) -> ImageData:
    """Labelled pictures for classification from `data`: FORMS above, in splits as `make_splits` says.

    `size` (C, H, W), `mean` and `std` are what the network expects of pictures in [0, 1]. `splits` are counts
    or fractions of (train, selection, certification). `skip_bad` leaves out pictures that cannot be read and
    lists them. `augmentation` names the policy for training: by default "light" for the built-in digits,
    "standard" otherwise. More than `cache_bytes` of pixels are decoded anew for each batch. Raises DataError,
    UsageError.
    """
    _check(size, mean, std, per_class_min)
    found = _examples(str(data), path_column, label_column)
    policy_named(augmentation or found.augmentation)
    loaded = load_pixels(found.examples, size, skip_bad=skip_bad, cache_bytes=cache_bytes, threads=threads)
    kept = [found.examples[i] for i in loaded.kept]
    number = {label: n for n, label in enumerate(found.labels)}
    targets = np.array([number[example.label] for example in kept], dtype=np.int64)
    labelled = Labelled(
        digests=loaded.digests, targets=targets, labels=found.labels, parts=[example.part for example in kept]
    )
    shares = splits if splits is not None else found.splits
    train, selection, certification = make_splits(labelled, seed=seed, shares=shares, minimum=per_class_min)
    return ImageData(
        name=found.name,
        source=found.source,
        licence=found.licence,
        labels=found.labels,
        train=train,
        selection=selection,
        certification=certification,
        size=size,
        mean=tuple(mean),
        std=tuple(std),
        augmentation=augmentation or found.augmentation,
        names=tuple(example.name for example in kept),
        bad=loaded.bad,
        duplicates=len(loaded.digests) - len(set(loaded.digests)),
        contradictions=contradictions(loaded.digests, targets),
        classes=torch.from_numpy(targets),
        pixels=loaded.pixels,
    )


def _examples(data: str, path_column: str | None, label_column: str | None) -> Examples:
    if not data.strip():
        raise DataError(f"Data without a name. Fix: give {FORMS}")
    kind, _, rest = data.partition(":")
    if kind == "builtin":
        return builtin(rest)
    if kind == "hf":
        return hub(rest, path_column, label_column)
    path = Path(data)
    if os.path.isdir(path):
        return folder(path)
    if path.suffix.lower() in SUFFIXES:
        return table(path, path_column, label_column)
    if not os.path.exists(path) and HUB_NAME.fullmatch(data):
        return hub(data, path_column, label_column)
    why = "is a file of another kind" if os.path.exists(path) else "does not exist"
    raise DataError(f"Data {cut(data)!r} {why}. Fix: give {FORMS}")


def _check(size: Sequence[int], mean: Sequence[float], std: Sequence[float], per_class_min: int) -> None:
    if len(size) != 3 or size[0] not in (1, 3) or min(size) < 1:
        raise UsageError(
            f"size {tuple(size)} is not (1 or 3, height, width). Fix: give what the network takes"
        )
    if len(mean) != size[0] or len(std) != size[0] or min(std) <= 0.0:
        raise UsageError(
            f"mean {tuple(mean)} and std {tuple(std)} need {size[0]} numbers each, those of std above 0. "
            "Fix: give one per channel"
        )
    if per_class_min < 1:
        raise UsageError(f"per_class_min is {per_class_min}; it is at least 1. Fix: give 1 or more")
