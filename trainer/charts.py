"""Charts for the report as inline SVG: no script, no font, colours from the page's CSS classes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_MARGIN_LEFT, _MARGIN_RIGHT, _MARGIN_TOP, _MARGIN_BOTTOM = 62.0, 22.0, 18.0, 46.0


@dataclass(frozen=True)
class Interval:
    """A measured mean with its interval, drawn as a dot with a bar.

    Attributes:
        x: where it stands on the horizontal axis.
        mean, low, high: the value and the ends of its interval.
        label: what the tooltip calls it.
    """

    x: float
    mean: float
    low: float
    high: float
    label: str


@dataclass(frozen=True)
class Mark:
    """A vertical line through a chart, where something happened.

    Attributes:
        x: where it stands on the horizontal axis.
        label: what happened; written beside the line.
    """

    x: float
    label: str


@dataclass(frozen=True)
class _Frame:
    """Maps data coordinates to the drawing area of a chart."""

    width: float
    height: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def x(self, value: float) -> float:
        low, high = self.x_range
        span = self.width - _MARGIN_LEFT - _MARGIN_RIGHT
        return _MARGIN_LEFT + span * (value - low) / (high - low)

    def y(self, value: float) -> float:
        low, high = self.y_range
        span = self.height - _MARGIN_TOP - _MARGIN_BOTTOM
        return self.height - _MARGIN_BOTTOM - span * (value - low) / (high - low)

    def path(self, xs: Sequence[float], ys: Sequence[float]) -> str:
        points = (f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in zip(xs, ys, strict=True))
        return "M" + " L".join(points)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten apart) within [low, high]."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(m * magnitude for m in (1, 2, 5, 10) if m * magnitude >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def curve_chart(
    xs: Sequence[float],
    means: Sequence[float],
    spreads: Sequence[float],
    evaluations: Sequence[Interval],
    marks: Sequence[Mark] = (),
    *,
    x_label: str,
    y_label: str,
) -> str:
    """The reward curve: the mean of every epoch, its standard deviation as a band, evaluations.

    Args:
        xs: reward queries after each epoch, shape (E,).
        means: mean reward of each epoch, shape (E,).
        spreads: standard deviation of the rewards of each epoch, shape (E,).
        evaluations: evaluations on fixed seeds, drawn with their intervals.
        marks: what happened at some of these places.
        x_label, y_label: the axes.

    Returns:
        An `<svg>` element.
    """
    lows = [m - s for m, s in zip(means, spreads, strict=True)]
    highs = [m + s for m, s in zip(means, spreads, strict=True)]
    values = [*lows, *highs, *(e.low for e in evaluations), *(e.high for e in evaluations)]
    right = max([*xs, *(e.x for e in evaluations), 1.0])
    frame = _Frame(900, 380, (0.0, right * 1.02), _padded(values))
    parts = [_axes(frame, x_label, y_label)]
    if len(xs) > 1:
        band = frame.path([*xs, *reversed(xs)], [*highs, *reversed(lows)])
        parts.append(f'<path class="band" d="{band}Z"/>')
    if xs:
        parts.append(f'<path class="line" d="{frame.path(xs, means)}"/>')
    parts += [
        f'<circle class="dot" cx="{frame.x(x):.1f}" cy="{frame.y(m):.1f}" r="3.2">'
        f"<title>epoch {i}: {number(m)} after {x:g} queries</title></circle>"
        for i, (x, m) in enumerate(zip(xs, means, strict=True), start=1)
    ]
    parts += [_interval(frame, evaluation) for evaluation in evaluations]
    parts += [_mark(frame, mark, place) for place, mark in enumerate(marks)]
    return _svg(frame, parts)


def small_chart(xs: Sequence[float], ys: Sequence[float], title: str) -> str:
    """One diagnostic over the epochs, small enough to stand beside others."""
    frame = _Frame(420, 210, (min(xs), max(max(xs), min(xs) + 1)), _padded(ys))
    parts = [_axes(frame, "epoch", ""), f'<path class="line" d="{frame.path(xs, ys)}"/>']
    parts += [
        f'<circle class="hit" cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="7">'
        f"<title>{escape(title)}, epoch {x:g}: {number(y)}</title></circle>"
        for x, y in zip(xs, ys, strict=True)
    ]
    return _svg(frame, parts)


def number(value: float) -> str:
    """Four significant digits, with a true minus sign."""
    return f"{value:.4g}".replace("-", "−")


def short(value: float) -> str:
    """Three significant digits, with a true minus sign."""
    return f"{value:.3g}".replace("-", "−")


def _padded(values: Sequence[float]) -> tuple[float, float]:
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    pad = 0.06 * (high - low) or max(abs(high) * 0.1, 1e-9)
    return low - pad, high + pad


def _interval(frame: _Frame, evaluation: Interval) -> str:
    x, y = frame.x(evaluation.x), frame.y(evaluation.mean)
    top, bottom = frame.y(evaluation.high), frame.y(evaluation.low)
    text = (
        f"{evaluation.label}: {number(evaluation.mean)} "
        f"(95 % interval {number(evaluation.low)} to {number(evaluation.high)})"
    )
    return (
        f'<g class="evaluation"><path d="M{x:.1f},{top:.1f}V{bottom:.1f}'
        f'M{x - 6:.1f},{top:.1f}h12M{x - 6:.1f},{bottom:.1f}h12"/>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6"/><title>{escape(text)}</title></g>'
    )


def _mark(frame: _Frame, mark: Mark, place: int) -> str:
    x, top, bottom = frame.x(mark.x), _MARGIN_TOP, frame.height - _MARGIN_BOTTOM
    # To the side with room, and below the one before: two may stand close together.
    left = x > frame.width / 2
    return (
        f'<path class="mark" d="M{x:.1f},{top}V{bottom}"/>'
        f'<text class="tick" text-anchor="{"end" if left else "start"}" '
        f'x="{x + (-6 if left else 6):.1f}" y="{top + 12 + 16 * place:.1f}">'
        f"{escape(mark.label)}</text>"
    )


def _axes(frame: _Frame, x_label: str, y_label: str) -> str:
    bottom = frame.height - _MARGIN_BOTTOM
    parts = []
    for value in ticks(*frame.y_range):
        y = frame.y(value)
        parts.append(
            f'<path class="grid" d="M{_MARGIN_LEFT},{y:.1f}H{frame.width - _MARGIN_RIGHT}"/>'
            f'<text class="tick" text-anchor="end" x="{_MARGIN_LEFT - 9}" y="{y + 4:.1f}">'
            f"{number(value)}</text>"
        )
    parts += [
        f'<text class="tick" text-anchor="middle" x="{frame.x(value):.1f}" y="{bottom + 19}">'
        f"{number(value)}</text>"
        for value in ticks(*frame.x_range)
    ]
    middle = (_MARGIN_TOP + bottom) / 2
    parts.append(
        f'<path class="axis" d="M{_MARGIN_LEFT},{bottom}H{frame.width - _MARGIN_RIGHT}"/>'
        f'<text class="label" text-anchor="middle" x="{frame.width / 2}" y="{frame.height - 8}">'
        f"{escape(x_label)}</text>"
        f'<text class="label" text-anchor="middle" '
        f'transform="translate(15 {middle}) rotate(-90)">{escape(y_label)}</text>'
    )
    return "".join(parts)


def _svg(frame: _Frame, parts: Sequence[str]) -> str:
    body = "".join(parts)
    return f'<svg viewBox="0 0 {frame.width:g} {frame.height:g}" role="img">{body}</svg>'
