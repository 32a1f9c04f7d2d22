"""Labels over unbound roots: what the atoms of a dim come down to."""

from collections.abc import Container
from typing import NamedTuple

import numpy as np


class Expanded(NamedTuple):
    """Columns of unbound roots; `free` where any of them may disappear."""

    dim: tuple[np.ndarray, ...]
    free: bool


def distinct(columns: list[np.ndarray], known: Container[int]) -> list[np.ndarray]:
    """Each column once; those whose id is `known` are equal only where they are one object."""
    if len(columns) < 2:
        return columns
    columns = list({id(c): c for c in reversed(columns)}.values())[::-1]
    if all(id(c) in known for c in columns):
        return columns
    return list({c.tobytes(): c for c in reversed(columns)}.values())[::-1]
