"""Pictures as uint8 tensors of one size: decoded once and kept, or decoded anew for every batch."""

import hashlib
import io
import math
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from penjing.core import DataError, clean
from penjing.tasks._examples import Example, Picture
from penjing.tasks._require import require

Size = tuple[int, int, int]
CHUNK = 512
SHOWN = 8


class Pixels(Protocol):
    """A store of pictures by number."""

    def take(self, indices: Sequence[int]) -> Tensor:
        """Pictures [n, channels, h, w] of uint8; channels may be 1 where all pictures are grey."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Cached:
    """Everything in memory, decoded and resized."""

    pixels: Tensor

    def take(self, indices: Sequence[int]) -> Tensor:
        return self.pixels[torch.as_tensor(indices, dtype=torch.int64)]


@dataclass(frozen=True, slots=True, eq=False)
class Streamed:
    """Too much for memory: each batch is decoded and resized when it is taken."""

    pictures: Sequence[Picture]
    size: Size
    threads: int

    def take(self, indices: Sequence[int]) -> Tensor:
        with ThreadPoolExecutor(self.threads) as pool:
            return torch.stack(
                list(pool.map(lambda i: decode(_content(self.pictures[i]), self.size), indices))
            )


class Loaded(NamedTuple):
    """The store; per kept picture the sha256 of its content and of its pixels; which were kept; what was wrong with
    others.
    """

    pixels: Pixels
    digests: list[bytes]
    given: list[bytes]
    kept: list[int]
    bad: tuple[str, ...]


def load_pixels(
    examples: Sequence[Example], size: Size, *, skip_bad: bool, cache_bytes: int, threads: int | None = None
) -> Loaded:
    """Read every picture once: check it, hash it and, where all fit into `cache_bytes`, keep its pixels.

    Pictures are cropped around their centre to the aspect of `size` (C, H, W) and resized. Raises DataError
    that names the pictures that cannot be read, unless `skip_bad`, which leaves them out and lists them.
    """
    if all(isinstance(example.content, np.ndarray) for example in examples):
        return _from_arrays(examples, size)
    threads = threads or min(8, os.cpu_count() or 1)
    fits = len(examples) * math.prod(size) <= cache_bytes
    cache = torch.empty((len(examples), *size), dtype=torch.uint8) if fits else None
    results = _read_all(examples, size, cache, threads)
    bad = tuple(clean(f"{e.name}: {r}") for e, r in zip(examples, results, strict=True) if isinstance(r, str))
    if bad and not skip_bad:
        raise DataError(_unreadable(bad))
    kept = [i for i, result in enumerate(results) if isinstance(result, _Read)]
    if not kept:
        raise DataError(
            f"No picture is left of {len(examples)}; {bad[0]}. Fix: give pictures that can be read"
        )
    reads = [result for result in results if isinstance(result, _Read)]
    digests, given = [read.content for read in reads], [read.pixels for read in reads]
    if cache is None:
        return Loaded(Streamed([examples[i].content for i in kept], size, threads), digests, given, kept, bad)
    return Loaded(Cached(cache[torch.tensor(kept)] if bad else cache), digests, given, kept, bad)


def decode(content: bytes, size: Size) -> Tensor:
    """An encoded picture as uint8 [C, H, W] of `size`: turned as its EXIF data say, transparency over white.

    Grey pictures become colour or colour grey as C (1 or 3) wants. Raises whatever PIL raises, which keeps
    its limit against decompression bombs.
    """
    from PIL import Image, ImageOps

    functional: Any = require("torchvision.transforms.v2.functional")
    channels, height, width = size
    with Image.open(io.BytesIO(content)) as image:
        image.draft(None, (2 * width, 2 * height))
        image.load()
        upright = _flat(ImageOps.exif_transpose(image), "L" if channels == 1 else "RGB")
    return functional.pil_to_tensor(_fit(upright, upright.height, upright.width, height, width))


class _Read(NamedTuple):
    """sha256 of a picture's bytes, and of its pixels."""

    content: bytes
    pixels: bytes


def _read_all(
    examples: Sequence[Example], size: Size, cache: Tensor | None, threads: int
) -> list[_Read | str]:
    """Per example what it is known by, or the reason why it cannot be read; pixels go into `cache`."""
    image: Any = require("PIL.Image")

    def read(i: int) -> _Read | str:
        try:
            content = _content(examples[i].content)
            pixels = decode(content, size)
        except FileNotFoundError:
            return "the file does not exist"
        except image.UnidentifiedImageError:
            return "not a picture of a known kind"
        except Exception as error:  # decoders of damaged files raise anything
            return f"{type(error).__name__}: {error}"
        if cache is not None:
            cache[i] = pixels
        return _Read(
            hashlib.sha256(content).digest(), hashlib.sha256(pixels.contiguous().numpy().data).digest()
        )

    with warnings.catch_warnings(), ThreadPoolExecutor(threads) as pool:
        warnings.simplefilter("error", image.DecompressionBombWarning)
        return list(pool.map(read, range(len(examples))))


def _from_arrays(examples: Sequence[Example], size: Size) -> Loaded:
    """Grey pictures of one size that are decoded already: resized in chunks, kept with one channel."""
    arrays = np.stack([np.asarray(example.content) for example in examples])
    digests = [hashlib.sha256(repr(array.shape).encode() + array.tobytes()).digest() for array in arrays]
    chunks = torch.from_numpy(arrays).unsqueeze(1).split(CHUNK)
    pixels = torch.cat([_fit(chunk, arrays.shape[1], arrays.shape[2], size[1], size[2]) for chunk in chunks])
    return Loaded(Cached(pixels), digests, digests, list(range(len(examples))), ())


def _fit(picture: Any, height: int, width: int, wanted_height: int, wanted_width: int) -> Any:
    """Crop `picture`, a PIL image or a tensor, around its centre to the wanted aspect, then resize it."""
    functional: Any = require("torchvision.transforms.v2.functional")
    scale = min(height / wanted_height, width / wanted_width)
    inner_height = min(height, max(1, round(scale * wanted_height)))
    inner_width = min(width, max(1, round(scale * wanted_width)))
    top, left = (height - inner_height) // 2, (width - inner_width) // 2
    bicubic = require("torchvision.transforms.v2").InterpolationMode.BICUBIC
    return functional.resized_crop(
        picture, top, left, inner_height, inner_width, [wanted_height, wanted_width], bicubic, antialias=True
    )


def _flat(image: Any, mode: str) -> Any:
    """`image` in `mode` ("L" or "RGB"): 16 bits brought down to 8, transparency laid over white."""
    pil: Any = require("PIL.Image")
    if image.mode.startswith("I;16"):
        image = pil.fromarray((np.asarray(image, dtype=np.uint16) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = pil.alpha_composite(pil.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def _content(picture: Picture) -> bytes:
    return picture.read_bytes() if isinstance(picture, Path) else bytes(picture)


def _unreadable(bad: Sequence[str]) -> str:
    more = f"\n  and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
    shown = "\n  ".join(bad[:SHOWN])
    return (
        f"Pictures that cannot be read ({len(bad)}):\n  {shown}{more}\n"
        "Fix: replace or remove them, or leave them out with skip_bad=True (--skip-bad)"
    )
