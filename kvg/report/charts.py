"""Bars and curves as inline SVG. Colours are CSS variables of the page, so that they follow light and dark."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kvg.report.curves import Curve, smooth
from kvg.report.figures import Row

_Scale = Callable[[float], float]  # from a value to a place in the picture
GROUPS = (("seen", "known"), ("seen", "unknown"), ("unseen", "known"), ("unseen", "unknown"))


@dataclass(frozen=True)
class Line:
    """One curve of a chart: its name in the legend, its CSS colour, its points."""

    name: str
    colour: str
    curve: Curve


def bar_chart(rows: Sequence[Row], names: Mapping[str, str]) -> str:
    """Accuracy by group, a bar a stage, with whiskers for the interval.

    Args:
        rows: see ``kvg.report.figures.rows``.
        names: of the stages, in their order.
    """
    width, height, left, bottom, top = 760.0, 300.0, 40.0, 40.0, 16.0
    found = {(row["split"], row["knowledge"], row["stage"]): row for row in rows}
    stages = [stage for stage in names if any(row["stage"] == stage for row in rows)]
    groups = [g for g in GROUPS if any((*g, stage) in found for stage in stages)]
    if not groups:
        return ""
    span = (width - left) / len(groups)
    bar = min(34.0, span * 0.8 / len(stages))

    def y(share: float) -> float:
        return top + (height - top - bottom) * (1 - share)

    parts = [_grid_line(left, width, y(i / 4), f"{25 * i}") for i in range(5)]
    for g, (split, knowledge) in enumerate(groups):
        middle = left + span * (g + 0.5)
        for s, stage in enumerate(stages):
            if row := found.get((split, knowledge, stage)):
                x = middle + bar * (s - len(stages) / 2)
                parts.append(_bar(row, names[stage], x, bar, y))
        parts.append(f'<text x="{middle:.1f}" y="{height - 20:.1f}" class="mid strong">{split} categories</text>')
        parts.append(f'<text x="{middle:.1f}" y="{height - 4:.1f}" class="mid soft">{knowledge} entities</text>')
    label = "Accuracy in percent by group and stage, with 95% intervals"
    return (
        f'<svg class="chart" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
    )


def _bar(row: Row, name: str, x: float, width: float, y: _Scale) -> str:
    low, high, top = y(row["ci_low"]), y(row["ci_high"]), y(row["acc"])
    middle, ink = x + width / 2, f'style="fill:var(--{row["stage"]})"'
    tip = f"{name}, {row['split']}, {row['knowledge']}: {row['acc']:.1%} [{row['ci_low']:.1%}, {row['ci_high']:.1%}]"
    shape = f'x="{x + 1.5:.1f}" y="{top:.1f}" width="{width - 3:.1f}" height="{max(0.0, y(0) - top):.1f}"'
    whisker = f"M{middle:.1f} {low:.1f}V{high:.1f}M{middle - 4:.1f} {low:.1f}h8M{middle - 4:.1f} {high:.1f}h8"
    return (
        f"<g><title>{html.escape(tip)}, n = {row['n']}</title>"
        f'<rect {shape} rx="2" {ink}/><path class="whisker" d="{whisker}"/>'
        f'<text x="{middle:.1f}" y="{high - 4:.1f}" class="mid tiny">{100 * row["acc"]:.0f}</text></g>'
    )


def line_chart(title: str, lines: Sequence[Line], share: bool = False) -> str:
    """Curves over training steps: the running mean in full colour, the single values pale behind it.

    Args:
        title: what is measured.
        lines: at least one, each with at least one point.
        share: the values are shares, so that the axis goes from 0 to 1.
    """
    width, height, left, bottom, top = 360.0, 220.0, 44.0, 24.0, 12.0
    values = [v for line in lines for _, v in line.curve if math.isfinite(v)]
    if not values:
        return ""
    low, high = (0.0, 1.0) if share else (min([0.0, *values]), max([0.0, *values]))
    ticks = nice_ticks(low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])
    last = max([1, *(line.curve[-1][0] for line in lines)])

    def x(step: float) -> float:
        return left + (width - left - 10) * step / last

    def y(value: float) -> float:
        return top + (height - top - bottom) * (1 - (value - low) / ((high - low) or 1))

    parts = [_grid_line(left, width, y(tick), f"{tick:g}") for tick in ticks]
    parts += [f'<text x="{x(s):.1f}" y="{height - 6:.1f}" class="mid tiny">{s:g}</text>' for s in nice_ticks(0, last)]
    for line in lines:
        points = [(step, value) for step, value in line.curve if math.isfinite(value)]
        means = smooth(points)
        if len(points) > 40:
            parts.append(_path(points, x, y, line.colour, "raw"))
        parts.append(_path(means, x, y, line.colour, "mean"))
        step, value = means[-1]
        tip = html.escape(f"{line.name}: {value:.3g} at step {step}")
        dot = f'<circle cx="{x(step):.1f}" cy="{y(value):.1f}" r="3" style="fill:{line.colour}">'
        parts.append(f"{dot}<title>{tip}</title></circle>")
    key = "".join(f'<span><i style="background:{line.colour}"></i>{html.escape(line.name)}</span>' for line in lines)
    label = html.escape(title)
    frame = f'class="chart" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{label}"'
    return (
        f"<figure class=curve><figcaption><b>{label}</b><span class=key>{key}</span></figcaption>"
        f"<svg {frame}>{''.join(parts)}</svg></figure>"
    )


def _path(curve: Curve, x: _Scale, y: _Scale, colour: str, kind: str) -> str:
    points = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in curve)
    return f'<polyline class="{kind}" points="{points}" style="stroke:{colour}"/>'


def _grid_line(left: float, right: float, y: float, label: str) -> str:
    text = f'<text x="{left - 6:.1f}" y="{y + 3.5:.1f}" class="end tiny">{label}</text>'
    return f'<path class="grid" d="M{left:.1f} {y:.1f}H{right:.1f}"/>{text}'


def nice_ticks(low: float, high: float, num: int = 4) -> list[float]:
    """Round values inside a range.

    >>> nice_ticks(0, 0.93)
    [0.0, 0.25, 0.5, 0.75]
    >>> nice_ticks(0, 870)
    [0.0, 250.0, 500.0, 750.0]
    """
    if not high > low:
        return [low, low + 1]
    rough = (high - low) / num
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]
