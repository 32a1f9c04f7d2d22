"""Labelled pictures from the words that name them."""

from collections.abc import Sequence
from pathlib import Path

import torch

from penjing.core import Pictures, UsageError
from penjing.tasks._augment import policy_named
from penjing.tasks._examples import Examples
from penjing.tasks._images import Images
from penjing.tasks._labelled import Labelled, class_numbers, labelled
from penjing.tasks._origin import Columns, find_examples
from penjing.tasks._pixels import load_pixels
from penjing.tasks._prepare import GIB, Options, one_label, split_up
from penjing.tasks._splits import contradictions


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
) -> Labelled[Images]:
    """Labelled pictures for classification from `data` (forms: see `find_examples`), in splits as `make_splits` says.

    `size` (C, H, W), `mean` and `std` are what the network expects of pictures in [0, 1]. `splits` are counts
    or fractions of (train, selection, certification). `skip_bad` leaves out pictures that cannot be read and
    lists them. `augmentation` names the policy for training: by default "light" for the built-in digits,
    "standard" otherwise. More than `cache_bytes` of pixels are decoded anew for each batch. Raises DataError,
    UsageError.
    """
    examples = find_examples(str(data), "pictures", Columns(path=path_column, label=label_column))
    options = Options(
        seed=seed,
        splits=splits,
        skip_bad=skip_bad,
        per_class_min=per_class_min,
        augmentation=augmentation,
        cache_bytes=cache_bytes,
        threads=threads,
    )
    return image_data_of(examples, Pictures(size=size, mean=tuple(mean), std=tuple(std)), options)


def image_data_of(found: Examples, reads: Pictures, options: Options) -> Labelled[Images]:
    """Labelled pictures for a network that reads `reads`."""
    _check(reads.size, reads.mean, reads.std, options.per_class_min)
    augmentation = options.augmentation or found.augmentation
    policy_named(augmentation)
    loaded = load_pixels(
        found.examples,
        reads.size,
        skip_bad=options.skip_bad,
        cache_bytes=options.cache_bytes,
        threads=options.threads,
    )
    kept = [found.examples[i] for i in loaded.kept]
    targets = class_numbers(found.labels, map(one_label, kept))
    contents = Images(
        reads=reads, augmentation=augmentation, classes=torch.from_numpy(targets), pixels=loaded.pixels
    )
    splits = split_up(found, kept, loaded.digests, targets, options)
    conflicts = contradictions(loaded.digests, targets)
    marks = (loaded.digests, loaded.given)
    return labelled(found, contents, kept, *marks, splits, bad=loaded.bad, contradictions=conflicts)


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
