"""Charts of figures with intervals as SVG files that stand alone, in light and dark mode."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Final

from kvg.report.charts import nice_ticks

Interval = tuple[float, float, float]  # value, low, high
COLOURS: Final = ("#0f766e", "#b45309", "#6d28d9", "#be123c", "#1d4ed8", "#4d7c0f", "#475569")
_STYLE: Final = (
    "text{font:12px system-ui,sans-serif;fill:#334155}.soft{fill:#64748b;font-size:11px}.grid{stroke:#cbd5e1}"
    ".zero{stroke:#64748b}.end{text-anchor:end}.mid{text-anchor:middle}"
    "@media(prefers-color-scheme:dark){text{fill:#e2e8f0}.soft{fill:#94a3b8}.grid{stroke:#475569}.zero{stroke:#94a3b8}}"
)
_LINE, _LEFT, _WIDTH, _TOP, _BOTTOM = 15.0, 210.0, 760.0, 30.0, 30.0


def dots(rows: Mapping[str, Mapping[str, Interval]], label: str) -> str:
    """Returns a chart with a block of dots for each row, one dot with its interval for each series.

    Args:
        rows: intervals by row and series; all in the unit of the axis.
        label: description of the chart, and title of the axis.
    """
    series = list(dict.fromkeys(name for own in rows.values() for name in own))
    low, high = _range([interval for own in rows.values() for interval in own.values()])
    ticks = nice_ticks(low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])
    block = _LINE * len(series) + 8
    height = _TOP + block * len(rows) + _BOTTOM

    def x(value: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - 20) * (value - low) / (high - low)

    parts = [_legend(series)]
    for tick in ticks:
        kind = "zero" if tick == 0 else "grid"
        parts.append(f'<path class="{kind}" d="M{x(tick):.1f} {_TOP:.1f}V{height - _BOTTOM:.1f}"/>')
        parts.append(f'<text class="soft mid" x="{x(tick):.1f}" y="{height - 14:.1f}">{tick:g}</text>')
    for number, (name, own) in enumerate(rows.items()):
        top = _TOP + block * number
        middle = top + block / 2
        parts.append(f'<text class="end" x="{_LEFT - 12:.1f}" y="{middle + 4:.1f}">{html.escape(name)}</text>')
        for place, one in enumerate(series):
            if one in own:
                value, start, end = own[one]
                y, colour = top + 4 + _LINE * (place + 0.5), COLOURS[place % len(COLOURS)]
                tip = html.escape(f"{name}, {one}: {value:.1f} ({start:.1f} to {end:.1f})")
                parts.append(
                    f'<g stroke="{colour}" fill="{colour}"><title>{tip}</title><path stroke-width="2" opacity=".6" '
                    f'd="M{x(start):.1f} {y:.1f}H{x(end):.1f}"/><circle cx="{x(value):.1f}" cy="{y:.1f}" r="4"/></g>'
                )
    return _svg(height, label, parts)


def curves(lines: Mapping[str, Sequence[tuple[float, Interval]]], label: str, axis: str) -> str:
    """Returns a chart of lines with intervals.

    Args:
        lines: points by line: position, and value with its interval.
        label: description of the chart.
        axis: title of the horizontal axis.
    """
    places = sorted({place for points in lines.values() for place, _ in points})
    low, high = _range([interval for points in lines.values() for _, interval in points])
    ticks = nice_ticks(low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])
    height, left = 320.0, 60.0

    def x(place: float) -> float:  # evenly spaced: doses and levels are no measures of length
        return left + 20 + (_WIDTH - left - 60) * places.index(place) / max(1, len(places) - 1)

    def y(value: float) -> float:
        return _TOP + (height - _TOP - 48) * (1 - (value - low) / (high - low))

    parts = [_legend(list(lines), left)]
    for tick in ticks:
        parts.append(f'<path class="grid" d="M{left:.1f} {y(tick):.1f}H{_WIDTH - 20:.1f}"/>')
        parts.append(f'<text class="soft end" x="{left - 6:.1f}" y="{y(tick) + 4:.1f}">{tick:g}</text>')
    for place in places:
        parts.append(f'<text class="soft mid" x="{x(place):.1f}" y="{height - 28:.1f}">{place:g}</text>')
    parts.append(f'<text class="mid" x="{(left + _WIDTH) / 2:.1f}" y="{height - 8:.1f}">{html.escape(axis)}</text>')
    for number, (name, points) in enumerate(lines.items()):
        colour, joined = COLOURS[number % len(COLOURS)], sorted(points)
        path = " ".join(f"{x(place):.1f},{y(value):.1f}" for place, (value, _, _) in joined)
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{path}"/>')
        for place, (value, start, end) in joined:
            tip = html.escape(f"{name}, {place:g}: {value:.1f} ({start:.1f} to {end:.1f})")
            parts.append(
                f'<g stroke="{colour}" fill="{colour}"><title>{tip}</title><path opacity=".6" '
                f'd="M{x(place):.1f} {y(start):.1f}V{y(end):.1f}"/>'
                f'<circle cx="{x(place):.1f}" cy="{y(value):.1f}" r="4"/></g>'
            )
    return _svg(height, label, parts)


def _range(intervals: Sequence[Interval]) -> tuple[float, float]:
    low, high = min(low for _, low, _ in intervals), max(high for _, _, high in intervals)
    return (low, high) if high > low else (low - 1, high + 1)


def _legend(series: Sequence[str], left: float = _LEFT) -> str:
    parts, x = [], left
    for number, name in enumerate(series):
        parts.append(f'<circle cx="{x + 5:.1f}" cy="14" r="4" fill="{COLOURS[number % len(COLOURS)]}"/>')
        parts.append(f'<text class="soft" x="{x + 14:.1f}" y="18">{html.escape(name)}</text>')
        x += 30 + 6.2 * len(name)
    return "".join(parts)


def _svg(height: float, label: str, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH:g} {height:g}" role="img" '
        f'aria-label="{html.escape(label)}"><style>{_STYLE}</style>{"".join(parts)}</svg>\n'
    )
