"""One HTML page, which needs no other file, about how a set is distributed and by what shortcuts it can be answered."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any, Final

_STYLE: Final = """
:root{--ink:#1d2330;--soft:#667085;--paper:#f6f7f9;--card:#fff;--line:#d9dde4;--bar:#5b7fa8;--bad:#c2410c;--good:#2f7d4f}
@media (prefers-color-scheme:dark){:root{--ink:#e6e9ef;--soft:#98a1b0;--paper:#14171c;--card:#1d2128;--line:#343a45;
--bar:#7ea3cf;--bad:#f0864a;--good:#67b98a}}
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:1180px;padding:0 1rem;color:var(--ink);
background:var(--paper)}
h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:2rem 0 .4rem}p{margin:.3rem 0;color:var(--soft)}
.bad{color:var(--bad);font-weight:600}.good{color:var(--good);font-weight:600}
main{display:grid;grid-template-columns:repeat(auto-fill,minmax(320px,1fr));gap:1rem}
figure,.card{margin:0;background:var(--card);border:1px solid var(--line);border-radius:10px;padding:.8rem 1rem}
figcaption{font-weight:600;margin-bottom:.4rem}svg{display:block;width:100%;height:auto}
text{font:12px system-ui,sans-serif;fill:var(--ink)}.soft{fill:var(--soft)}.end{text-anchor:end}
.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums;width:100%}
td,th{padding:.2rem .8rem .2rem 0;text-align:right;white-space:nowrap}td:first-child,th:first-child{text-align:left}
th{color:var(--soft);font-weight:500}li{margin:.15rem 0}
"""
_MOST_BARS: Final = 24  # of a chart; what is rarer is told together
_ROW: Final = 20  # pixels of a bar and its room


def shortcut_page(title: str, record: Mapping[str, Any]) -> str:
    """The page.

    Args:
        title: what the set is called.
        record: see ``kvg.audit.statistics.Figures.record``.
    """
    named = html.escape(title)
    counts = "".join(bars(name, counter) for name, counter in record["counts"].items())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{named}: distribution and shortcuts</title><style>{_STYLE}</style></head><body>"
        f"<h1>{named}</h1><p>{record['num_samples']} composites; pixels of {record['num_pixels']} of them.</p>"
        f"{_shortcuts(record)}<h2>Distribution</h2><main>{counts}</main>{_entities(record['entities'])}</body></html>\n"
    )


def bars(title: str, counter: Mapping[str, int]) -> str:
    """Counts as horizontal bars, with their shares.

    >>> print(bars("k", {"2": 3, "3": 1})[:35])
    <figure><figcaption>k</figcaption><
    """
    shown = list(counter.items())
    if len(shown) > _MOST_BARS:
        frequent = sorted(shown, key=lambda pair: -pair[1])[: _MOST_BARS - 1]
        rest = len(shown) - len(frequent)
        shown = [*frequent, (f"{rest} others", sum(counter.values()) - sum(num for _, num in frequent))]
    total, most = max(1, sum(counter.values())), max([1, *(num for _, num in shown)])
    rows = []
    for number, (name, num) in enumerate(shown):
        y, width = number * _ROW, 150 * num / most
        rows.append(
            f'<text x="122" y="{y + 14}" class="end">{html.escape(_short(name))}</text>'
            f'<rect x="130" y="{y + 3}" width="{width:.1f}" height="14" rx="2" style="fill:var(--bar)">'
            f"<title>{html.escape(name)}: {num}</title></rect>"
            f'<text x="{136 + width:.1f}" y="{y + 14}" class="soft">{num / total:.1%}</text>'
        )
    label = html.escape(title)
    return (
        f'<figure><figcaption>{label}</figcaption><svg viewBox="0 0 340 {len(shown) * _ROW}" role="img" '
        f'aria-label="{label}">{"".join(rows)}</svg></figure>'
    )


def _short(name: str) -> str:
    return name if len(name) <= 20 else f"{name[:19]}…"


def _shortcuts(record: Mapping[str, Any]) -> str:
    trials, warnings = record["shortcuts"], record["warnings"]
    if not trials:
        return "<h2>Shortcuts</h2><p>Too few composites of several objects to look for any.</p>"
    verdict = (
        f"<ul class=bad>{''.join(f'<li>{html.escape(line)}</li>' for line in warnings)}</ul>"
        if warnings
        else "<p class=good>None: nothing but the looks of an object tells whether it is the one asked for.</p>"
    )
    rows = "".join(_trial(number, trial) for number, trial in enumerate(trials))
    height = len(trials) * 26 + 24
    axis = "".join(
        f'<path d="M{_place(i / 4):.1f} 0V{height - 20}" style="stroke:var(--line)"/>'
        f'<text x="{_place(i / 4):.1f}" y="{height - 4}" class="soft" text-anchor="middle">{25 * i}%</text>'
        for i in range(5)
    )
    return (
        f"<h2>Shortcuts</h2>{verdict}<p>How often the object asked for is found by one kind of number alone, learnt on "
        "one half of the set and tried on the other. The dashed line is chance. The bar is the interval, which for "
        f"{record['level']:.0%} of sets holds for all kinds together.</p>"
        f'<div class=card><svg viewBox="0 0 800 {height}" role="img" aria-label="shortcuts">{axis}{rows}</svg></div>'
    )


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


def _entities(rows: Sequence[Mapping[str, Any]]) -> str:
    body = ""
    for row in rows:
        spans = "".join(f"<td>{_span(row[name])}</td>" for name in ("present", "asked for", "distractor"))
        body += f"<tr><td>{html.escape(row['category'])}</td><td>{row['entities']}</td>{spans}</tr>"
    heads = "".join(f"<th>{name}</th>" for name in ("category", "entities", "present", "asked for", "distractor"))
    return (
        "<h2>Entities</h2><p>How often an entity is on a picture, is asked for, and is there without being asked for: "
        "least, median and most of each category.</p>"
        f"<div class='card wide'><table><tr>{heads}</tr>{body}</table></div>"
    )


def _span(values: Sequence[float]) -> str:
    return " / ".join(f"{value:g}" for value in values)
