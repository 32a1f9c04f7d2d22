"""Disturbances of clips, samples [n] of float32, at strengths 1 to 3."""

from collections.abc import Callable, Mapping

import numpy as np

RATIO = (30.0, 20.0, 10.0)  # decibels of the clip over the noise
SOFTER = (6.0, 12.0, 24.0)  # decibels
CLIPPED = (0.5, 0.25, 0.1)  # of the peak
FASTER = (1.05, 1.10, 1.20)


def noise(samples: np.ndarray, strength: int, random: np.random.Generator) -> np.ndarray:
    """White."""
    power = float(np.mean(samples.astype(np.float64) ** 2))
    loud = np.sqrt(power / 10 ** (RATIO[strength - 1] / 10))
    return samples + (loud * random.standard_normal(len(samples))).astype(np.float32)


def gain(samples: np.ndarray, strength: int, random: np.random.Generator) -> np.ndarray:
    """Softer."""
    return samples * np.float32(10 ** (-SOFTER[strength - 1] / 20))


def clipping(samples: np.ndarray, strength: int, random: np.random.Generator) -> np.ndarray:
    """Cut at a share of the peak, and as loud at the peak as before."""
    peak = float(np.abs(samples).max())
    most = CLIPPED[strength - 1] * peak
    return (np.clip(samples, -most, most) / CLIPPED[strength - 1]).astype(np.float32) if peak else samples


def speed(samples: np.ndarray, strength: int, random: np.random.Generator) -> np.ndarray:
    """Faster, and so higher, by linear interpolation."""
    count = max(2, round(len(samples) / FASTER[strength - 1]))
    places = np.linspace(0, len(samples) - 1, count)
    return np.interp(places, np.arange(len(samples)), samples).astype(np.float32)


SOUNDS: Mapping[str, Callable[[np.ndarray, int, np.random.Generator], np.ndarray]] = {
    "noise": noise,
    "gain": gain,
    "clipping": clipping,
    "speed": speed,
}
