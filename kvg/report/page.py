"""One HTML page that needs no other file: findings, table, bars, recall, curves and cases."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources

from kvg.report.case_card import case_card
from kvg.report.cases import STAGES, Case
from kvg.report.charts import Line, bar_chart, line_chart
from kvg.report.curves import Curve
from kvg.report.figures import KNOWLEDGE, SPLITS, Gain, Row
from kvg.report.recall import RecallRow
from kvg.types import Sample

FINDINGS = (  # stage before, stage after, split, knowledge, the question that the difference answers
    ("base", "cot_sft", "seen", "all", "Does stage 1 teach? CoT-SFT over the base model, seen categories"),
    ("direct_sft", "cot_sft", "unseen", "known",
     "Does recalled knowledge guide the eye? CoT-SFT over direct SFT, known entities of unseen categories"),
    ("cot_sft", "cot_sft_grpo", "seen", "all", "Does stage 2 help? GRPO over CoT-SFT, seen categories"),
)  # fmt: skip
# Title, tags by name in the legend (None: the stage's name), whether the values are shares.
CHARTS: Sequence[tuple[str, dict[str | None, str], bool]] = (
    ("Loss of supervised training", {None: "train/loss"}, False),
    ("Validation accuracy, all", {None: "val/iou_acc"}, True),
    ("Validation accuracy, seen categories", {None: "val/iou_acc/seen"}, True),
    ("Validation accuracy, unseen categories", {None: "val/iou_acc/unseen"}, True),
    ("Validation accuracy, known entities", {None: "val/iou_acc/known"}, True),
    ("Validation accuracy, unknown entities", {None: "val/iou_acc/unknown"}, True),
    ("KL to the stage-1 model", {None: "train/kl"}, False),
    ("Completion length in tokens", {None: "train/completion_length"}, False),
)
_REWARD_COLOURS = ("var(--cot_sft_grpo)", "var(--direct_sft)", "var(--cot_sft)", "var(--third)")


@dataclass(frozen=True)
class Contents:
    """All that the page shows.

    Attributes:
        rows: accuracies.
        gains: differences.
        recalls: recall against answer; empty where nothing plans.
        curves: by stage, then by tag.
        cases: chosen ones by stage.
        samples: their records, by key.
        facts: what stands in the page's foot, by name.
    """

    rows: Sequence[Row]
    gains: Sequence[Gain]
    recalls: Sequence[RecallRow] = ()
    curves: Mapping[str, Mapping[str, Curve]] = field(default_factory=dict)
    cases: Mapping[str, Sequence[Case]] = field(default_factory=dict)
    samples: Mapping[str, Sample] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)


def page(contents: Contents) -> str:
    """The whole page."""
    style = (resources.files("kvg.report") / "style.css").read_text("utf-8")
    title = "Knowledge-intensive visual grounding: what each stage was worth"
    lead = (
        "Every picture shows several entities of one category; a name says which one is asked for. An answer is right "
        "where its box overlaps the true one by at least half (IoU ≥ 0.5); one that cannot be read is wrong. "
        "Training saw the <em>seen</em> categories only. <em>Known</em> entities are those the base model had read "
        "about before training; it had never seen any name together with a picture."
    )
    parts = [
        f"<header><h1>{title}</h1><p class=soft>{lead}</p></header>",
        _findings(contents.gains),
        _table(contents.rows),
        _bars(contents.rows),
        _recalls(contents.recalls),
        _curves(contents.curves),
        _gallery(contents),
        _foot(contents.facts),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{style}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def percent(share: float) -> str:
    """A share as percent with one digit.

    >>> percent(0.1234)
    '12.3'
    """
    return f"{100 * share:.1f}"


def _findings(gains: Sequence[Gain]) -> str:
    found = {(g["before"], g["after"], g["split"], g["knowledge"]): g for g in gains}
    cards = []
    for *key, question in FINDINGS:
        gain = found.get((key[0], key[1], key[2], key[3]))
        if gain is None:
            continue
        kind = "up" if gain["ci_low"] > 0 else "down" if gain["ci_high"] < 0 else "even"
        interval = f"[{100 * gain['ci_low']:+.1f}, {100 * gain['ci_high']:+.1f}]"
        value = f"{100 * gain['gain']:+.1f} <small>points {interval}</small>"
        cards.append(
            f"<div class=finding><b class={kind}>{value}</b><span>{html.escape(question)}, n = {gain['n']}</span></div>"
        )
    return f"<div class=findings>{''.join(cards)}</div>" if cards else ""


def _table(rows: Sequence[Row]) -> str:
    found = {(row["stage"], row["split"], row["knowledge"]): row for row in rows}
    groups = [(s, k) for s in SPLITS for k in KNOWLEDGE if any((stage, s, k) in found for stage in STAGES)]
    heads = "".join(f"<th{_shade(k)}>{s}<br>{k}</th>" for s, k in groups)
    body = ""
    for stage, name in STAGES.items():
        if not any(row["stage"] == stage for row in rows):
            continue
        cells = "".join(_cell(found.get((stage, s, k)), k) for s, k in groups)
        body += f"<tr><td class=stage><i style='background:var(--{stage})'></i>{html.escape(name)}</td>{cells}</tr>"
    counts = {group: max(r["n"] for r in rows if (r["split"], r["knowledge"]) == group) for group in groups}
    num = "".join(f"<td{_shade(k)}>{counts[s, k]}</td>" for s, k in groups)
    return (
        "<h2>Accuracy</h2><p class=note>Percent right, with the 95% bootstrap interval and the mean IoU below. "
        "Base and direct SFT are asked plainly, the others to think first.</p>"
        f"<div class='framed wide'><table><thead><tr><th>stage</th>{heads}</tr></thead>"
        f"<tbody>{body}<tr><td class=soft>cases</td>{num}</tr></tbody></table></div>"
    )


def _cell(row: Row | None, knowledge: str) -> str:
    if row is None:
        return f"<td{_shade(knowledge)}>–</td>"
    interval = f"{percent(row['ci_low'])} – {percent(row['ci_high'])}"
    small = f"<small>{interval}</small><small>IoU {row['mean_iou']:.2f}</small>"
    return f"<td{_shade(knowledge)}>{percent(row['acc'])}{small}</td>"


def _shade(knowledge: str) -> str:
    return " class=all" if knowledge == "all" else ""


def _bars(rows: Sequence[Row]) -> str:
    chart = bar_chart(rows, STAGES)
    if not chart:
        return ""
    stages = [s for s in STAGES if any(row["stage"] == s for row in rows)]
    key = "".join(f"<span><i style='background:var(--{s})'></i>{html.escape(STAGES[s])}</span>" for s in stages)
    return f"<h2>By group</h2><p class='note key'>{key}</p><div class=framed>{chart}</div>"


def _recalls(recalls: Sequence[RecallRow]) -> str:
    if not recalls:
        return ""
    body = ""
    for row in recalls:
        known, lost = row["right_right"] + row["right_wrong"], row["wrong_right"] + row["wrong_wrong"]
        cells = [
            f"<td class=stage><i style='background:var(--{row['stage']})'></i>{html.escape(STAGES[row['stage']])}</td>",
            f"<td>{row['split']}</td><td>{row['knowledge']}</td><td>{row['n']}</td>",
            f"<td>{_share(known, known + lost)}</td>",
            *(f"<td>{row[name]}</td>" for name in ("right_right", "right_wrong", "wrong_right", "wrong_wrong")),
            f"<td>{_share(row['right_right'], known)}</td><td>{_share(row['wrong_right'], lost)}</td>",
            f"<td>{_share(row['follows'], row['follows_n'])}</td>",
        ]
        shade = _shade(row["knowledge"])
        body += f"<tr{shade}>{''.join(cells)}</tr>"
    heads = (
        "stage", "split", "entities", "n", "card<br>recalled", "recall ✓<br>box ✓", "recall ✓<br>box ✗",
        "recall ✗<br>box ✓", "recall ✗<br>box ✗", "box right<br>if recalled", "box right<br>if not",
        "box follows<br>the plan",
    )  # fmt: skip
    return (
        "<h2>Knowledge at work</h2><p class=note>A rationale begins with what the entity looks like (“Plan”). It is "
        "recalled where all four traits are those of the entity's card. The box follows the plan where it frames the "
        "object that is most like the traits named, right or wrong; ties are left out.</p>"
        "<div class='framed wide'><table class=dense>"
        f"<thead><tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f}%" if whole else "–"


def _curves(curves: Mapping[str, Mapping[str, Curve]]) -> str:
    charts = []
    for title, tags, share in CHARTS:
        lines = []
        for stage, found in curves.items():
            for name, tag in tags.items():
                is_reward_loss = tag == "train/loss" and "train/reward/total" in found  # near 0 by construction
                if found.get(tag) and not is_reward_loss:
                    lines.append(Line(name or STAGES.get(stage, stage), f"var(--{stage}, var(--third))", found[tag]))
        charts.append(line_chart(title, lines, share) if lines else "")
    for found in curves.values():
        parts = sorted(tag for tag in found if tag.startswith("train/reward/"))
        parts.sort(key=lambda tag: tag != "train/reward/total")
        colours = [_REWARD_COLOURS[i % len(_REWARD_COLOURS)] for i in range(len(parts))]
        lines = [Line(t.rpartition("/")[2], c, found[t]) for t, c in zip(parts, colours, strict=True) if found[t]]
        charts.insert(len(CHARTS) - 2, line_chart("Reward and its parts", lines) if lines else "")
    drawn = "".join(charts)
    if not drawn:
        return ""
    return (
        "<h2>Learning curves</h2><p class=note>Over optimizer steps, in stage 2 over batches of answers. "
        "Bold: running mean; pale: single values.</p>"
        f"<div class=curves>{drawn}</div>"
    )


def _gallery(contents: Contents) -> str:
    sections = ""
    for stage, cases in contents.cases.items():
        cards = "".join(case_card(case, contents.samples[case.key]) for case in cases)
        if cards:
            name = html.escape(STAGES.get(stage, stage))
            sections += f"<h3><i style='background:var(--{stage})'></i>{name}</h3><div class=gallery>{cards}</div>"
    if not sections:
        return ""
    return (
        "<h2>Cases</h2><p class=note>Drawn by lot among right and wrong answers, from as many categories as possible. "
        "<span class=right>Solid green</span>: the truth. <span style='color:var(--answer)'>Dashed orange</span>: "
        f"the answer.</p>{sections}"
    )


def _foot(facts: Mapping[str, str]) -> str:
    return f"<footer>{' · '.join(f'{html.escape(k)} {html.escape(v)}' for k, v in facts.items())}</footer>"
