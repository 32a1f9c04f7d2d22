"""Pictures and sounds as data URIs, which a page can hold in itself."""

import base64
import io
import wave

import numpy as np
from torch import Tensor

from penjing.core import UsageError

SIDE = 96  # pixels of a thumbnail
BARS, STEPS = 48, 160  # of a spectrogram
RATE, SECONDS = 8000, 4.0  # of a clip
WARM = (214, 60, 20)


def picture_uri(picture: Tensor) -> str:
    """[c, h, w] in [0, 1] as a PNG of about 96 pixels a side."""
    pixels = (picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    pixels = pixels[..., :3] if pixels.shape[-1] >= 3 else pixels[..., 0]
    return _png(pixels, SIDE)


def heat_uri(values: Tensor) -> str:
    """[h, w] as a PNG to be laid over a picture: the larger, the less transparent."""
    peak = float(values.abs().max()) or 1.0
    strong = (values.clamp(min=0) / peak).numpy()
    pixels = np.zeros((*strong.shape, 4), dtype=np.uint8)
    pixels[..., :3] = WARM
    pixels[..., 3] = (230 * strong).round()
    return _png(pixels, SIDE, smooth=True)


def sound_uri(samples: np.ndarray, rate: int) -> str:
    """The first seconds of a clip as a WAV of 16 bits at 8 kHz."""
    own = samples[: int(SECONDS * rate)].astype(np.float64)
    count = max(1, round(len(own) * min(RATE, rate) / rate))
    heard = np.interp(np.linspace(0, len(own) - 1, count), np.arange(len(own)), own)
    peak = float(np.abs(heard).max()) or 1.0
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(min(RATE, rate))
        file.writeframes((heard / peak * 30_000).astype("<i2").tobytes())
    return "data:audio/wav;base64," + base64.b64encode(buffer.getvalue()).decode()


def spectrogram_uri(samples: np.ndarray, rate: int) -> str:
    """The clip's spectrogram in decibels, low notes at the bottom, as a grey PNG."""
    width = max(64, len(samples) // STEPS)
    hops = max(1, (len(samples) - width) // STEPS or 1)
    starts = range(0, max(1, len(samples) - width), hops)
    padded = np.pad(samples, (0, max(0, width - len(samples))))
    frames = np.stack([padded[start : start + width] * np.hanning(width) for start in starts][:STEPS])
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    bands = np.stack([part.mean(1) for part in np.array_split(power, min(BARS, power.shape[1]), axis=1)], 1)
    loud = 10 * np.log10(bands + 1e-10)
    low, high = np.percentile(loud, 5), loud.max()
    grey = (255 * np.clip((loud - low) / max(high - low, 1e-9), 0, 1)).astype(np.uint8)
    return _png(grey.T[::-1].copy(), None)


def _png(pixels: np.ndarray, side: int | None, *, smooth: bool = False) -> str:
    try:
        from PIL import Image
    except ImportError:
        raise UsageError("pictures in a report need Pillow: pip install 'penjing[vision]'") from None
    image = Image.fromarray(pixels)
    if side is not None:
        scale = side / max(image.size)
        near = Image.Resampling.NEAREST if scale > 1 and not smooth else Image.Resampling.BILINEAR
        image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), near)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
