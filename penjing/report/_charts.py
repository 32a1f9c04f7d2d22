"""Charts as SVG, coloured by the page's style sheet, so that they follow light, dark and print."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

LABEL = 90  # units that a name is wide
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A plane of `width` x `height` units with room for labels, for x and y between these ends."""

    width: int
    height: int
    x: tuple[float, float]
    y: tuple[float, float]
    left: int = 38
    bottom: int = 22
    top: int = 8
    right: int = 8

    def at(self, x: float, y: float) -> tuple[float, float]:
        wide, high = self.width - self.left - self.right, self.height - self.top - self.bottom
        spans = [(high_end - low) or 1.0 for low, high_end in (self.x, self.y)]
        return (
            round(self.left + (x - self.x[0]) / spans[0] * wide, 2),
            round(self.top + (1 - (y - self.y[0]) / spans[1]) * high, 2),
        )


def ends(values: Sequence[float], *, room: float = 0.08, least: float = 1e-9) -> tuple[float, float]:
    """The least and the greatest, with some room around."""
    low, high = min(values), max(values)
    around = max((high - low) * room, least)
    return low - around, high + around


def ticks(low: float, high: float, most: int = 4) -> list[float]:
    """Round numbers between.

    >>> ticks(0.0, 1.0)
    [0.0, 0.5, 1.0]
    """
    if not math.isfinite(high - low) or high <= low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough)
    first = math.ceil(low / step - 1e-9)
    return [round(step * i, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def scatter(
    points: Sequence[tuple[str, float, float, str]], *, x_name: str, y_name: str, told: str
) -> Markup:
    """Named points (name, x, y, class of the dot) with axes."""
    frame = Frame(
        width=440,
        height=250,
        x=ends([0.0, *(x for _, x, _, _ in points)], room=0.06),
        y=ends([y for _, _, y, _ in points], room=0.18, least=0.005),
        left=52,
        bottom=40,
        right=24,
    )
    parts = [_axes(frame, "{:g}", "{:.1%}"), _names(frame, x_name, y_name)]
    taken: list[tuple[float, float]] = []
    for name, x, y, kind in sorted(points, key=lambda point: point[1]):
        cx, cy = frame.at(x, y)
        parts.append(f'<circle cx="{cx}" cy="{cy}" r="5.5" class="{kind}"/>')
        over = _free(cx, cy - 11, taken)
        strong = ' class="strong"' if kind == "dot-after" else ""
        label = f'<text x="{cx}" y="{over}" text-anchor="middle"{strong}>{_safe(name)}</text>'
        parts.append(label)
    return _svg(frame, parts, told)


def lines(
    before: Points, after: Points, *, told: str, y: tuple[float, float], x_labels: Sequence[str] = ()
) -> Markup:
    """Two lines over the same places."""
    xs = [x for x, _ in (*before, *after)]
    frame = Frame(width=230, height=120, x=(min(xs), max(xs)), y=y, left=34)
    parts = [_axes(frame, None, "{:.0%}")]
    for name, points in (("before", before), ("after", after)):
        parts.append(f'<polyline points="{_path(frame, points)}" class="{name}"/>')
        for at in points:
            cx, cy = frame.at(*at)
            parts.append(f'<circle cx="{cx}" cy="{cy}" r="2.6" class="dot-{name}"/>')
    for (x, _), label in zip(after, x_labels, strict=False):
        cx, _ = frame.at(x, y[0])
        parts.append(f'<text x="{cx}" y="{frame.height - 6}" text-anchor="middle">{_safe(label)}</text>')
    return _svg(frame, parts, told)


def curve(points: Points, cut: float | None, *, told: str, top: float) -> Markup:
    """A rising curve with the place where it was cut."""
    frame = Frame(
        width=230, height=96, x=(0.0, max(x for x, _ in points) or 1.0), y=(0.0, top or 1.0), left=36
    )
    within = _up_to(points, frame.y[1])
    first, last = frame.at(within[0][0], 0.0), frame.at(within[-1][0], 0.0)
    path = _path(frame, within)
    parts = [
        _axes(frame, "{:g}", "{:.2g}", most=2),
        f'<polygon points="{first[0]},{first[1]} {path} {last[0]},{last[1]}" class="area"/>',
        f'<polyline points="{path}" class="after"/>',
    ]
    if cut is not None:
        (x, low), (_, high) = frame.at(cut, 0.0), frame.at(cut, frame.y[1])
        parts.append(f'<line x1="{x}" x2="{x}" y1="{low}" y2="{high}" class="cut"/>')
    return _svg(frame, parts, told)


def _up_to(points: Points, top: float) -> Points:
    """The points of a rising curve up to where it leaves the frame."""
    found = [points[0]]
    for (x, y), (further, above) in pairwise(points):
        if above > top:
            share = (top - y) / (above - y) if above > y else 0.0
            return [*found, (x + share * (further - x), top)]
        found.append((further, above))
    return found


def depth(values: Sequence[float], *, told: str) -> Markup:
    """A value in [0, 1] by depth."""
    frame = Frame(
        width=440, height=160, x=(0.0, max(1.0, len(values) - 1.0)), y=(0.0, 1.0), left=44, bottom=30
    )
    points = [(float(i), value) for i, value in enumerate(values)]
    parts = [_axes(frame, None, "{:.1f}"), f'<polyline points="{_path(frame, points)}" class="after"/>']
    for at in points:
        cx, cy = frame.at(*at)
        parts.append(f'<circle cx="{cx}" cy="{cy}" r="3" class="dot-after"/>')
    for x, label, anchor in ((0.0, "input", "start"), (frame.x[1], "output", "end")):
        cx, _ = frame.at(x, 0.0)
        parts.append(f'<text x="{cx}" y="{frame.height - 8}" text-anchor="{anchor}">{label}</text>')
    return _svg(frame, parts, told)


def _free(x: float, y: float, taken: list[tuple[float, float]]) -> float:
    """A height near y at which no label stands yet: above the dot, else below it, else further down."""
    y, further = y, iter((30, *([13] * 20)))
    while any(abs(x - other) < LABEL and abs(y - there) < 13 for other, there in taken):
        y += next(further)
    taken.append((x, y))
    return y


def _axes(frame: Frame, x_form: str | None, y_form: str, most: int = 4) -> str:
    left, bottom = frame.at(frame.x[0], frame.y[0])
    right, _ = frame.at(frame.x[1], frame.y[1])
    found = [f'<line x1="{left}" x2="{right}" y1="{bottom}" y2="{bottom}" class="axis"/>']
    for value in ticks(*frame.y, most):
        _, y = frame.at(0.0, value)
        found.append(f'<line x1="{left}" x2="{right}" y1="{y}" y2="{y}" class="grid"/>')
        found.append(f'<text x="{left - 5}" y="{y + 3.5}" text-anchor="end">{y_form.format(value)}</text>')
    for value in ticks(*frame.x, most + 2) if x_form is not None else ():
        assert x_form is not None
        x, _ = frame.at(value, frame.y[0])
        found.append(f'<text x="{x}" y="{bottom + 14}" text-anchor="middle">{x_form.format(value)}</text>')
    return "".join(found)


def _names(frame: Frame, x_name: str, y_name: str) -> str:
    middle = frame.left + (frame.width - frame.left) / 2
    return (
        f'<text x="{middle}" y="{frame.height - 6}" text-anchor="middle">{_safe(x_name)}</text>'
        f'<text x="{frame.left}" y="{frame.top - 1}" text-anchor="start">{_safe(y_name)}</text>'
    )


def _path(frame: Frame, points: Points) -> str:
    return " ".join(f"{x},{y}" for x, y in (frame.at(*point) for point in points))


def _svg(frame: Frame, parts: Sequence[str], told: str) -> Markup:
    size = f"0 0 {frame.width} {frame.height}"
    return Markup(f'<svg viewBox="{size}" role="img" aria-label="{_safe(told)}">{"".join(parts)}</svg>')


def _safe(text: str) -> str:
    return html.escape(text, quote=True)
