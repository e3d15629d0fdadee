"""A self-contained HTML page about the distribution of a set and the shortcuts in it."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any, Final

from markupsafe import Markup

from kvg.report.render import render_page

_MOST_BARS: Final = 24  # bars per chart; rarer values are combined in one bar
_ROW: Final = 20  # height of a bar with its spacing, in pixels


def shortcut_page(title: str, record: Mapping[str, Any]) -> str:
    """The page.

    Args:
        title: name of the set.
        record: see ``kvg.audit.statistics.Figures.record``.
    """
    spans = ("present", "asked for", "distractor")  # keys of the record
    return render_page(
        "shortcuts.jinja",
        f"{title}: distribution and shortcuts",
        ("shortcuts.css",),
        name=title,
        record=record,
        trials=_trials(record["shortcuts"]),
        counts=[bars(name, counter) for name, counter in record["counts"].items()],
        heads=("category", "entities", *spans),
        entities=[
            (row["category"], row["entities"], *(" / ".join(f"{v:g}" for v in row[name]) for name in spans))
            for row in record["entities"]
        ],
    )


def bars(title: str, counter: Mapping[str, int]) -> Markup:
    """Counts and shares as horizontal bars.

    >>> print(bars("k", {"2": 3, "3": 1})[:35])
    <figure><figcaption>k</figcaption><
    """
    entries = list(counter.items())
    if len(entries) > _MOST_BARS:
        frequent = sorted(entries, key=lambda pair: -pair[1])[: _MOST_BARS - 1]
        rest = len(entries) - len(frequent)
        entries = [*frequent, (f"{rest} others", sum(counter.values()) - sum(num for _, num in frequent))]
    total, most = max(1, sum(counter.values())), max([1, *(num for _, num in entries)])
    rows = []
    for number, (name, num) in enumerate(entries):
        y, width = number * _ROW, 150 * num / most
        rows.append(
            f'<text x="122" y="{y + 14}" class="end">{html.escape(_short(name))}</text>'
            f'<rect x="130" y="{y + 3}" width="{width:.1f}" height="14" rx="2" style="fill:var(--bar)">'
            f"<title>{html.escape(name)}: {num}</title></rect>"
            f'<text x="{136 + width:.1f}" y="{y + 14}" class="soft">{num / total:.1%}</text>'
        )
    label = html.escape(title)
    return Markup(
        f'<figure><figcaption>{label}</figcaption><svg viewBox="0 0 340 {len(entries) * _ROW}" role="img" '
        f'aria-label="{label}">{"".join(rows)}</svg></figure>'
    )


def _short(name: str) -> str:
    return name if len(name) <= 20 else f"{name[:19]}…"


def _trials(trials: Sequence[Mapping[str, Any]]) -> Markup:
    """The accuracy of each shortcut with its interval and its chance level, as SVG."""
    rows = "".join(_trial(number, trial) for number, trial in enumerate(trials))
    height = len(trials) * 26 + 24
    axis = "".join(
        f'<path d="M{_place(i / 4):.1f} 0V{height - 20}" style="stroke:var(--line)"/>'
        f'<text x="{_place(i / 4):.1f}" y="{height - 4}" class="soft" text-anchor="middle">{25 * i}%</text>'
        for i in range(5)
    )
    return Markup(f'<svg viewBox="0 0 800 {height}" role="img" aria-label="shortcuts">{axis}{rows}</svg>')


def _place(share: float) -> float:
    return 240 + 520 * min(1.0, max(0.0, share))


def _trial(number: int, trial: Mapping[str, Any]) -> str:
    y, colour = 26 * number, "var(--bad)" if trial["warning"] else "var(--bar)"
    low, high, chance, point = (_place(trial[name]) for name in ("low", "high", "chance", "accuracy"))
    tip = f"{trial['family']}: {trial['accuracy']:.1%} ({trial['low']:.1%} to {trial['high']:.1%}), n = {trial['n']}"
    return (
        f"<g><title>{html.escape(tip)}, chance {trial['chance']:.1%}</title>"
        f'<text x="228" y="{y + 17}" class="end">{html.escape(trial["family"])}</text>'
        f'<rect x="{low:.1f}" y="{y + 8}" width="{max(1.0, high - low):.1f}" height="10" rx="3" style="fill:{colour}"/>'
        f'<circle cx="{point:.1f}" cy="{y + 13}" r="4" style="fill:{colour};stroke:var(--card);stroke-width:1.5"/>'
        f'<path d="M{chance:.1f} {y + 3}v20" style="stroke:var(--ink)" stroke-dasharray="3 2"/></g>'
    )
