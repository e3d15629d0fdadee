"""Charts as inline SVG. Colours are CSS variables of the page, which support light and dark mode."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from kvg.evaluation.figures.estimate import Estimate, in_words
from kvg.report.curves import Curve, smooth
from kvg.report.naming import RunStyle

_Scale = Callable[[float], float]  # maps a value to a coordinate


@dataclass(frozen=True)
class ChartGroup:
    """A group of bars or a row of dots: its name, a second line of the label, and a share per run."""

    name: str
    values: Mapping[str, Estimate]
    below: str = ""


@dataclass(frozen=True)
class ChartLine:
    """One curve of a chart: name in the legend, CSS colour, points, and the interval of each point."""

    name: str
    colour: str
    curve: Curve
    band: Sequence[tuple[float, float]] = ()


def _svg(width: float, height: float, label: str, content: str) -> Markup:
    return Markup(
        f'<svg class="chart" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{label}">{content}</svg>'
    )


def bar_chart(groups: Sequence[ChartGroup], looks: Mapping[str, RunStyle]) -> Markup:
    """Accuracy by group, one bar per run, with whiskers for the interval; '' with fewer than two values.

    Args:
        groups: groups without values are skipped.
        looks: styles of the runs, in order.
    """
    groups = [group for group in groups if group.values]
    if sum(len(group.values) for group in groups) < 2:
        return Markup("")
    width, height, left, bottom, top = 760.0, 300.0, 40.0, 40.0, 16.0
    span = (width - left) / len(groups)
    bar = min(34.0, span * 0.8 / len(looks))

    def y(share: float) -> float:
        return top + (height - top - bottom) * (1 - share)

    parts = [_grid_line(left, width, y(i / 4), f"{25 * i}") for i in range(5)]
    for g, group in enumerate(groups):
        middle = left + span * (g + 0.5)
        for r, (run, look) in enumerate(looks.items()):
            if run in group.values:
                x = middle + bar * (r - len(looks) / 2)
                parts.append(_bar(group, look, x, bar, y))
        parts.append(
            f'<text x="{middle:.1f}" y="{height - 20:.1f}" class="mid strong">{html.escape(group.name)}</text>'
        )
        parts.append(f'<text x="{middle:.1f}" y="{height - 4:.1f}" class="mid soft">{html.escape(group.below)}</text>')
    return _svg(width, height, "Accuracy in percent by group and run, with 95% intervals", "".join(parts))


def _bar(group: ChartGroup, look: RunStyle, x: float, width: float, y: _Scale) -> str:
    value = group.values[look.name]
    low, high, top = y(value["low"]), y(value["high"]), y(value["value"])
    middle, reach = x + width / 2, min(4.0, width / 4)
    shape = f'x="{x + width / 20:.1f}" y="{top:.1f}" width="{width * 0.9:.1f}" height="{max(0.0, y(0) - top):.1f}"'
    whisker = f"M{middle:.1f} {low:.1f}V{high:.1f}" + "".join(
        f"M{middle - reach:.1f} {end:.1f}h{2 * reach:g}" for end in (low, high)
    )
    label = f'<text x="{middle:.1f}" y="{high - 4:.1f}" class="mid tiny">{100 * value["value"]:.0f}</text>'
    return (
        f"<g><title>{_tip(group, look)}</title><rect {shape} rx='2' style='fill:{look.colour}'/>"
        f'<path class="whisker" d="{whisker}"/>{label if width >= 14 else ""}</g>'
    )


def dot_chart(groups: Sequence[ChartGroup], looks: Mapping[str, RunStyle]) -> Markup:
    """Accuracy by group on a horizontal axis, one dot per run, with its interval; '' without values.

    Args:
        groups: one row each; groups without values are skipped.
        looks: styles of the runs, in order.
    """
    groups = [group for group in groups if group.values]
    if not groups:
        return Markup("")
    line = 11.0 if len(looks) > 1 else 18.0
    block = line * len(looks) + 10
    width, left, top, bottom = 760.0, 150.0, 8.0, 22.0
    height = top + block * len(groups) + bottom

    def x(share: float) -> float:
        return left + (width - left - 18) * share

    parts = []
    for i in range(5):
        parts.append(f'<path class="grid" d="M{x(i / 4):.1f} {top:.1f}V{height - bottom:.1f}"/>')
        parts.append(f'<text x="{x(i / 4):.1f}" y="{height - 6:.1f}" class="mid tiny">{25 * i}</text>')
    for g, group in enumerate(groups):
        start = top + block * g
        parts.append(f'<path class="grid" d="M0 {start:.1f}H{width:.1f}"/>' if g else "")
        name, num = html.escape(group.name), max(value["n"] for value in group.values.values())
        middle = start + block / 2 + 4
        parts.append(f'<text x="{left - 46:.1f}" y="{middle:.1f}" class="end strong">{name}</text>')
        parts.append(f'<text x="{left - 10:.1f}" y="{middle:.1f}" class="end tiny">{num}</text>')
        for r, (run, look) in enumerate(looks.items()):
            value = group.values.get(run)
            if value is None:
                continue
            y, ink = start + 5 + line * (r + 0.5), f'style="stroke:{look.colour};fill:{look.colour}"'
            parts.append(
                f'<g {ink}><title>{_tip(group, look)}</title><path d="M{x(value["low"]):.1f} {y:.1f}'
                f'H{x(value["high"]):.1f}" stroke-width="2" opacity=".55"/>'
                f'<circle cx="{x(value["value"]):.1f}" cy="{y:.1f}" r="4" stroke="none"/></g>'
            )
    return _svg(width, height, "Accuracy in percent by category and run, with 95% intervals", "".join(parts))


def _tip(group: ChartGroup, look: RunStyle) -> str:
    value = group.values[look.name]
    name = " ".join(filter(None, (group.name, group.below)))
    return html.escape(f"{look.title}, {name}: {in_words(value)}, n = {value['n']}")


def line_chart(title: str, lines: Sequence[ChartLine], share: bool = False, smoothed: bool = True) -> Markup:
    """Curves: the running mean in full colour, with the single values pale behind it.

    Args:
        title: name of the quantity.
        lines: at least one, each with at least one point.
        share: the values are shares: the axis goes from 0 to 1.
        smoothed: whether to draw running means; otherwise the points are joined.
    """
    width, height, left, bottom, top = 360.0, 220.0, 44.0, 24.0, 12.0
    values = [v for line in lines for _, v in line.curve if math.isfinite(v)]
    if not values:
        return Markup("")
    low, high = (0.0, 1.0) if share else (min([0.0, *values]), max([0.0, *values]))
    ticks = nice_ticks(low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])
    last = max([1, *(line.curve[-1][0] for line in lines if line.curve)])

    def x(step: float) -> float:
        return left + (width - left - 10) * step / last

    def y(value: float) -> float:
        return top + (height - top - bottom) * (1 - (value - low) / ((high - low) or 1))

    parts = [_grid_line(left, width, y(tick), f"{100 * tick:g}%" if share else f"{tick:g}") for tick in ticks]
    steps = nice_ticks(0, last) if smoothed else [float(step) for step in range(last + 1)]
    parts += [f'<text x="{x(s):.1f}" y="{height - 6:.1f}" class="mid tiny">{s:g}</text>' for s in steps]
    for line in lines:
        points = [(step, value) for step, value in line.curve if math.isfinite(value)]
        if not points:
            continue
        parts.append(_band(line, x, y))
        means = smooth(points) if smoothed else points
        if smoothed and len(points) > 40:
            parts.append(_path(points, x, y, line.colour, "raw"))
        parts.append(_path(means, x, y, line.colour, "mean"))
        for step, value in means[-1:] if smoothed else means:
            tip = html.escape(f"{line.name}: {value:.3g} at {'step ' if smoothed else ''}{step}")
            dot = f'<circle cx="{x(step):.1f}" cy="{y(value):.1f}" r="3" style="fill:{line.colour}">'
            parts.append(f"{dot}<title>{tip}</title></circle>")
    key = "".join(f'<span><i style="background:{line.colour}"></i>{html.escape(line.name)}</span>' for line in lines)
    label = html.escape(title)
    chart = _svg(width, height, label, "".join(parts))
    return Markup(
        f"<figure class=curve><figcaption><b>{label}</b><span class=key>{key}</span></figcaption>{chart}</figure>"
    )


def _band(line: ChartLine, x: _Scale, y: _Scale) -> str:
    if not line.band:
        return ""
    there = [(x(step), y(low)) for (step, _), (low, _) in zip(line.curve, line.band, strict=True)]
    back = [(x(step), y(high)) for (step, _), (_, high) in zip(line.curve, line.band, strict=True)]
    points = " ".join(f"{px:.1f},{py:.1f}" for px, py in [*there, *reversed(back)])
    return f'<polygon class="band" points="{points}" style="fill:{line.colour}"/>'


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
