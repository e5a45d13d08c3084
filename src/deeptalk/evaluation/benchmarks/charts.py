"""Drawings for pages: pictures in SVG as text, with colours that the page names."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_LABEL, _WIDTH, _ROW, _RIGHT = 300, 860, 22, 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """A figure in per cent with its bounds; ``must`` and ``goal`` are marked where there are any."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    must: float | None = None
    goal: float | None = None


def bar_chart(bars: Sequence[Bar], *, most: float = 100.0) -> str:
    """Bars from 0 to ``most`` with whiskers for bounds, a dashed mark for *must*, a dotted one for *goal*."""
    scale = (_WIDTH - _LABEL - _RIGHT) / most
    parts = []
    for number, bar in enumerate(bars):
        top, middle = number * _ROW, number * _ROW + _ROW / 2
        length = scale * min(bar.value, most)
        parts.append(_text(_LABEL - 8, middle, bar.label, anchor="end"))
        parts.append(
            f'<rect class="bar" x="{_LABEL}" y="{top + 4}" width="{length:.1f}" height="{_ROW - 8}"/>'
        )
        if bar.low is not None and bar.high is not None:
            ends = [_LABEL + scale * min(end, most) for end in (bar.low, bar.high)]
            parts.append(_line("whisker", ends[0], middle, ends[1], middle))
        for name, mark in (("must", bar.must), ("goal", bar.goal)):
            if mark is not None:
                at = _LABEL + scale * mark
                parts.append(_line(name, at, top + 2, at, top + _ROW - 2))
        parts.append(_text(_WIDTH - _RIGHT + 6, middle, f"{bar.value:.1f}"))
    return _picture("".join(parts), height=_ROW * len(bars))


def curve_chart(points: Sequence[Bar]) -> str:
    """Figures in per cent, one after the other, joined by a line, with whiskers for bounds."""
    height, left, bottom = 220.0, 50.0, 180.0
    least = min(point.value if point.low is None else point.low for point in points)
    floor = max(0.0, least - 5)
    step = (_WIDTH - 2 * left) / max(1, len(points) - 1)

    def up(value: float) -> float:
        return bottom - (bottom - 15) * (value - floor) / (100 - floor)

    places = [(left + step * number, up(point.value)) for number, point in enumerate(points)]
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    parts = [f'<polyline class="curve" points="{joined}"/>']
    for value in (floor, 100.0):
        parts.append(_line("axis", left, up(value), _WIDTH - left, up(value)))
        parts.append(_text(left - 8, up(value), f"{value:.0f}", anchor="end"))
    for (x, y), point in zip(places, points, strict=True):
        if point.low is not None and point.high is not None:
            parts.append(_line("whisker", x, up(point.low), x, up(point.high)))
        parts.append(f'<circle class="point" cx="{x:.1f}" cy="{y:.1f}" r="4"/>')
        parts.append(_text(x, bottom + 15, point.label, anchor="middle"))
        parts.append(_text(x, bottom + 32, f"{point.value:.1f}", anchor="middle"))
    return _picture("".join(parts), height=height)


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A curve over common steps, None where it has no part in a step; ``is_marked`` draws it thick."""

    label: str
    values: Sequence[float | None]
    is_marked: bool = False


def line_chart(steps: Sequence[str], lines: Sequence[Line]) -> str:
    """Figures in per cent, a line each, its name at its end; missing steps are passed over."""
    left, right, bottom, top = 50.0, 190.0, 360.0, 15.0
    known = [value for line in lines for value in line.values if value is not None]
    floor, roof = max(0.0, min(known) - 5), min(100.0, max(known) + 5)
    step = (_WIDTH - left - right) / max(1, len(steps) - 1)

    def up(value: float) -> float:
        return bottom - (bottom - top) * (value - floor) / (roof - floor)

    parts = []
    for value in (floor, (floor + roof) / 2, roof):
        parts.append(_line("axis", left, up(value), _WIDTH - right, up(value)))
        parts.append(_text(left - 8, up(value), f"{value:.0f}", anchor="end"))
    for number, name in enumerate(steps):
        parts.append(_text(left + step * number, bottom + 20, name, anchor="middle"))
    ends = []
    for number, line in enumerate(lines):
        places = [(left + step * i, up(v)) for i, v in enumerate(line.values) if v is not None]
        if not places:
            continue
        colour = "var(--ink)" if line.is_marked else f"hsl({number * 360 // len(lines)} 60% 45%)"
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        width = 3 if line.is_marked else 1.4
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="{width}" points="{joined}"/>')
        parts += [f'<circle fill="{colour}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in places]
        ends.append((places[-1], colour, line.label))
    at = 0.0
    for (x, y), colour, label in sorted(ends, key=lambda end: end[0][1]):
        at = max(at + 13, y)  # names never lie on each other
        parts.append(
            f'<line stroke="{colour}" x1="{x:.1f}" y1="{y:.1f}" x2="{_WIDTH - right + 14}" y2="{at:.1f}"/>'
        )
        parts.append(_text(_WIDTH - right + 18, at, label))
    return _picture("".join(parts), height=max(bottom + 30, at + 15))


def _picture(content: str, *, height: float) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {height:g}" role="img">{content}</svg>'


def _line(name: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{name}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, *, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y + 4:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
