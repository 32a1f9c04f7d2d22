"""Random views of pictures. A view is a pure function of (seed, epoch, index of the example).

Every policy is one affine map per picture, so a batch is warped in one go.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from penjing.core import UsageError

Affine = tuple[float, float, float, float, float, float]
Policy = Callable[[Sequence[float], float], Affine]
DRAWS = 5
MASK = 0xFFFFFFFFFFFFFFFF
GOLDEN = 0x9E3779B97F4A7C15


def light(draws: Sequence[float], aspect: float) -> Affine:
    """Turn by up to 10 degrees, shift by up to 8 %, scale by 0.9 to 1.1: right for digits and signs."""
    angle = math.radians(20.0 * draws[0] - 10.0)
    zoom = 0.9 + 0.2 * draws[1]
    cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
    shift_x, shift_y = 0.16 * (2.0 * draws[2] - 1.0), 0.16 * (2.0 * draws[3] - 1.0)
    return cos, -sin / aspect, shift_x, sin * aspect, cos, shift_y


def standard(draws: Sequence[float], aspect: float) -> Affine:
    """A crop of 35 to 100 % of the area, aspect 3/4 to 4/3, at full size; mirrored half the time."""
    area, stretch = 0.35 + 0.65 * draws[0], math.exp((2.0 * draws[1] - 1.0) * math.log(4.0 / 3.0))
    width, height = min(1.0, math.sqrt(area * stretch)), min(1.0, math.sqrt(area / stretch))
    centre_x, centre_y = (1.0 - width) * (2.0 * draws[2] - 1.0), (1.0 - height) * (2.0 * draws[3] - 1.0)
    return (width if draws[4] < 0.5 else -width), 0.0, centre_x, 0.0, height, centre_y


POLICIES: Mapping[str, Policy | None] = {"none": None, "light": light, "standard": standard}


def policy_named(name: str) -> Policy | None:
    """The augmentation called `name`; raises UsageError that lists the known ones."""
    if name not in POLICIES:
        raise UsageError(f"Unknown augmentation {name!r}. Fix: choose one of {', '.join(POLICIES)}")
    return POLICIES[name]


def augment(images: Tensor, policy: Policy, *, seed: int, epoch: int, indices: Sequence[int]) -> Tensor:
    """Random views of float `images` [n, c, h, w], whose examples are `indices`; edges continue outwards.

    Bit for bit the same for an example whatever else is in the batch: the maps are computed one by one, and
    only operations that IEEE 754 rounds exactly come before the resampling.
    """
    height, width = images.shape[-2:]
    draws = uniform(seed, epoch, indices, DRAWS).tolist()
    maps = torch.tensor([policy(row, width / height) for row in draws], dtype=torch.float32)
    ax, bx, cx, ay, by, cy = (column.view(-1, 1, 1) for column in maps.unbind(1))
    x = ((2 * torch.arange(width) + 1) / width - 1).view(1, 1, -1)
    y = ((2 * torch.arange(height) + 1) / height - 1).view(1, -1, 1)
    grid = torch.stack((ax * x + bx * y + cx, ay * x + by * y + cy), dim=-1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def uniform(seed: int, epoch: int, indices: Sequence[int], draws: int) -> np.ndarray:
    """Numbers in [0, 1), [len(indices), draws] of float64, each a hash of (seed, epoch, index, draw).

    SplitMix64 as a counter-based generator (Steele, Lea and Flood, OOPSLA 2014, figure 17).
    """
    state = _mix(np.array([seed & MASK], dtype=np.uint64))
    state = _mix(state ^ np.array([epoch & MASK], dtype=np.uint64))
    state = _mix(state ^ np.asarray(indices, dtype=np.int64).astype(np.uint64))
    counters = np.arange(1, draws + 1, dtype=np.uint64) * np.uint64(GOLDEN)
    return (_mix(state[:, None] + counters) >> np.uint64(11)) * 2.0**-53


def _mix(z: np.ndarray) -> np.ndarray:
    z = z + np.uint64(GOLDEN)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
