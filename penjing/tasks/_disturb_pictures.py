"""Disturbances of pictures [n, c, h, w] in [0, 1], at strengths 1 to 3 (after Hendrycks & Dietterich, "Benchmarking
neural network robustness to common corruptions", ICLR 2019; theirs are for 224 pixels, lengths here go by the side).
"""

import io
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from penjing.tasks._require import require

Draws = Sequence[np.random.Generator]
NOISE = (0.04, 0.08, 0.16)  # standard deviation
BLUR, LEAST = (0.01, 0.02, 0.03), (0.4, 0.7, 1.0)  # standard deviation, of the side, and in pixels
CONTRAST = (0.6, 0.4, 0.2)
QUALITY = (50, 25, 10)  # of JPEG
COVERED = (0.25, 0.35, 0.5)  # of the side


def noise(pictures: Tensor, strength: int, random: Draws) -> Tensor:
    """Gaussian, pixel by pixel."""
    drawn = [torch.from_numpy(one.standard_normal(pictures.shape[1:], dtype=np.float32)) for one in random]
    return pictures + NOISE[strength - 1] * torch.stack(drawn)


def blur(pictures: Tensor, strength: int, random: Draws) -> Tensor:
    """Gaussian, edges continued."""
    sigma = max(BLUR[strength - 1] * max(pictures.shape[-2:]), LEAST[strength - 1])
    reach = max(1, round(3 * sigma))
    weights = torch.exp(-(torch.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    weights = weights / weights.sum()
    channels = pictures.shape[1]
    row = weights.expand(channels, 1, 1, -1).contiguous()
    found = F.conv2d(F.pad(pictures, (reach, reach, 0, 0), mode="replicate"), row, groups=channels)
    column = row.transpose(2, 3).contiguous()
    return F.conv2d(F.pad(found, (0, 0, reach, reach), mode="replicate"), column, groups=channels)


def contrast(pictures: Tensor, strength: int, random: Draws) -> Tensor:
    """Nearer to the picture's own mean."""
    mean = pictures.mean((1, 2, 3), keepdim=True)
    return mean + CONTRAST[strength - 1] * (pictures - mean)


def compression(pictures: Tensor, strength: int, random: Draws) -> Tensor:
    """JPEG of low quality."""
    image = require("PIL.Image", "penjing[vision]")
    found = []
    for picture in (pictures * 255).round().byte().permute(0, 2, 3, 1).numpy():
        grey = picture.shape[-1] == 1
        buffer = io.BytesIO()
        image.fromarray(picture[..., 0] if grey else picture).save(
            buffer, "JPEG", quality=QUALITY[strength - 1]
        )
        read = np.asarray(image.open(buffer), dtype=np.float32) / 255
        found.append(torch.from_numpy(read[None] if grey else read.transpose(2, 0, 1).copy()))
    return torch.stack(found)


def occlusion(pictures: Tensor, strength: int, random: Draws) -> Tensor:
    """A grey square at a random place."""
    found, (height, width) = pictures.clone(), pictures.shape[-2:]
    high, wide = (max(1, round(COVERED[strength - 1] * side)) for side in (height, width))
    for picture, one in zip(found, random, strict=True):
        top, left = one.integers(0, height - high + 1), one.integers(0, width - wide + 1)
        picture[:, top : top + high, left : left + wide] = 0.5
    return found


PICTURES: Mapping[str, Callable[[Tensor, int, Draws], Tensor]] = {
    "noise": noise,
    "blur": blur,
    "contrast": contrast,
    "compression": compression,
    "occlusion": occlusion,
}
