"""Figures in units that people read, with three significant digits."""

import math


def size(number: float) -> str:
    """Bytes in decimal units.

    >>> size(812), size(43_210), size(13_600_000), size(2.5e9)
    ('812 B', '43.2 kB', '13.6 MB', '2.50 GB')
    """
    for scale, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= 0.9995 * scale:
            return f"{number / scale:.{_places(number / scale)}f} {unit}"
    return f"{number:.0f} B"


def spread(milliseconds: float, around: float) -> str:
    """A time and what it varies by, both in the unit that suits the time.

    >>> spread(20.04, 0.41), spread(0.0731, 0.002), spread(1520, 12)
    ('20.0 ±0.4 ms', '73.1 ±2.0 µs', '1.52 ±0.01 s')
    """
    scale, unit = next(
        ((scale, unit) for scale, unit in ((1e3, "s"), (1.0, "ms")) if milliseconds >= 0.9995 * scale),
        (1e-3, "µs"),
    )
    places = _places(milliseconds / scale)
    return f"{milliseconds / scale:.{places}f} ±{around / scale:.{places}f} {unit}"


def _places(number: float) -> int:
    """Decimal places that show three significant digits.

    >>> [_places(number) for number in (0.5, 9.999, 99.96, 123.4)]
    [2, 1, 0, 0]
    """
    if number <= 0:
        return 0
    return min(2, max(0, 2 - math.floor(math.log10(float(f"{number:.3g}")))))
