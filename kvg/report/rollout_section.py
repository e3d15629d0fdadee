"""The section about rollouts: verdicts, curves and a table by step, and cards that can be sorted and filtered."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, TypedDict

from markupsafe import Markup

from kvg.evaluation.diagnostics.rollouts import RolloutFigures, StepFigures, overlaps
from kvg.formats.rollout_files import RolloutRecord
from kvg.report.case_card import Rect, marked
from kvg.report.charts import ChartLine, line_chart
from kvg.report.gallery_page import Select
from kvg.report.pictures import PagePicture
from kvg.report.render import render
from kvg.report.sections import Looks, Section
from kvg.report.signature_sections import verdict_of
from kvg.report.tables import FigureTable, Row, percent
from kvg.text.box_codec import GRID

MAX_STEPS: Final = 10  # whose rollouts are shown
_FEW: Final = 6  # distinct values of a component; more are grouped into ranges
_RANGES: Final = 4
_PAGE: Final = 24  # cards that are shown before a click
_ORDERS: Final = (  # sort key with its direction, and its name
    ("step-down", "newest step first"),
    ("step-up", "oldest step first"),
    ("reward-down", "highest reward first"),
    ("reward-up", "lowest reward first"),
    ("advantage-down", "highest advantage first"),
    ("advantage-up", "lowest advantage first"),
    ("iou-up", "lowest IoU first"),
    ("tokens-down", "longest first"),
    ("tokens-up", "shortest first"),
)
_OUTCOMES: Final = (("right", "IoU ≥ 0.5"), ("wrong", "IoU < 0.5"), ("none", "no box"))
Range = tuple[str, float, float]  # its name, and its ends, both included


class RunRollouts(TypedDict):
    """The rollouts of a run: figures of all that are stored, and the records that are shown."""

    figures: RolloutFigures
    records: Sequence[RolloutRecord]


@dataclass(frozen=True)
class RolloutView:
    """The rollouts of a report.

    Attributes:
        runs: by name.
        pictures: by checksum.
    """

    runs: Mapping[str, RunRollouts] = field(default_factory=dict)
    pictures: Mapping[str, PagePicture] = field(default_factory=dict)


def choose_rollouts(records: Sequence[RolloutRecord], limit: int, seed: int) -> list[RolloutRecord]:
    """Chooses whole groups: random ones of at most ten steps, evenly spread from the first to the last.

    Args:
        records: of one run, by step.
        limit: largest number of rollouts, unless a single group is larger; 0 for none.
        seed: of the choice.
    """
    if not records or not limit:
        return []
    groups: dict[int, dict[tuple[int, int], list[RolloutRecord]]] = {}
    for record in records:
        groups.setdefault(record.step, {}).setdefault((record.rank, record.prompt), []).append(record)
    size = max(len(group) for own in groups.values() for group in own.values())
    budget = max(1, limit // size)
    steps = sorted(groups)
    num = min(len(steps), MAX_STEPS, budget)
    chosen = (
        sorted({steps[round(i * (len(steps) - 1) / max(1, num - 1))] for i in range(num)}) if num > 1 else steps[-1:]
    )
    records_chosen: list[RolloutRecord] = []
    for step in chosen:
        own = groups[step]
        order = random.Random(f"{seed}/{step}").sample(sorted(own), min(len(own), budget // num))
        records_chosen += [record for group in sorted(order) for record in own[group]]
    return records_chosen


def rollout_section(view: RolloutView, looks: Looks) -> Section | None:
    """The section; None without rollouts."""
    if not view.runs:
        return None
    verdicts, tables, charts = [], [], []
    several = len(view.runs) > 1
    for run, own in view.runs.items():
        for name, text in own["figures"]["verdicts"].items():
            kind, _, rest = text.partition(": ")
            verdict = verdict_of(looks[run], text)
            verdicts.append(type(verdict)(looks[run], f"{name}: {rest or kind}", verdict.kind))
        title = f"Rollouts by step: {looks[run].title}" if several else "Rollouts by step"
        tables.append(_table(own["figures"]["steps"], title))
        charts += _charts(own["figures"]["steps"], f": {looks[run].title}" if several else "")
    note = (
        "Completions that stage 2 sampled and rewarded, from the files in RUN/rollouts. IoU is that of box and true "
        "box, whatever the reward makes of it. Spread: mean standard deviation of rewards within a group; at 0 nothing "
        "is learnt. Distinct: distinct texts. Verdicts compare the first with the last third of the steps."
    )
    chart = Markup(f"<div class=curves>{Markup('').join(charts)}</div>")
    return Section("Rollouts", note, tables, verdicts, chart, "rollouts", below=_browser(view, looks))


def _table(steps: Sequence[StepFigures], title: str) -> FigureTable:
    parts = list(dict.fromkeys(name for step in steps for name in step["parts"]))
    heads = ["step", "rollouts", "reward", *parts, "spread", "IoU", "IoU ≥ 0.5 %", "no box %", "truncated %"]
    heads += ["tokens", "entropy", "distinct %"]
    rows: list[Row] = [
        [
            str(step["step"]),
            str(step["n"]),
            f"{step['reward']:.2f}",
            *(f"{step['parts'].get(name, 0.0):.2f}" for name in parts),
            f"{step['spread']:.2f}",
            f"{step['iou']:.2f}",
            *(percent(step[name]) for name in ("correct", "unparsed", "truncated")),  # type: ignore[literal-required]
            f"{step['tokens']:.0f}",
            f"{step['entropy']:.2f}",
            percent(step["distinct"]),
        ]
        for step in steps
    ]
    return FigureTable(heads, rows, title=title, folded=len(steps) > MAX_STEPS)


def _charts(steps: Sequence[StepFigures], after: str) -> list[Markup]:
    if len(steps) < 2:
        return []
    names = list(steps[0]["parts"])
    colours = ("var(--hue3)", "var(--hue1)", "var(--hue2)", "var(--hue4)", "var(--hue5)", "var(--hue6)")
    parts = [
        ChartLine(name, colours[n % len(colours)], [(s["step"], s["parts"].get(name, 0.0)) for s in steps])
        for n, name in enumerate(names)
    ]
    boxes = [
        ChartLine(title, colour, [(s["step"], float(s[key])) for s in steps])  # type: ignore[literal-required]
        for title, key, colour in (("IoU", "iou", "var(--truth)"), ("no box", "unparsed", "var(--answer)"))
    ]
    return [
        line_chart(f"Components of the reward in rollouts{after}", parts),
        line_chart(f"Boxes in rollouts{after}", boxes, share=True),
    ]


@dataclass(frozen=True)
class RolloutCard:
    """A rollout as the page shows it.

    Attributes:
        record: the rollout.
        run: title of its run, or '' for a single run.
        data: values that the script filters and sorts by, by name.
        text: the completion.
        outcome: what its box is worth, as text.
        boxes: true and predicted box.
        picture: None if no set holds it.
        repeats: whether an earlier card holds the image data.
    """

    record: RolloutRecord
    run: str
    data: Mapping[str, str]
    text: Markup
    outcome: str
    boxes: Sequence[Rect]
    picture: PagePicture | None
    repeats: bool


def _browser(view: RolloutView, looks: Looks) -> Markup:
    pairs = [(run, record) for run, own in view.runs.items() for record in own["records"]]
    if not pairs:
        return Markup("")
    names = list(dict.fromkeys(name for _, record in pairs for name in record.parts))
    ranges = {name: ranges_of([record.parts[name] for _, record in pairs if name in record.parts]) for name in names}
    steps = sorted({record.step for _, record in pairs})
    selects = [
        Select("run", "run", [(run, looks[run].title) for run in view.runs]),
        Select("step", "step", [(str(step), f"step {step}") for step in steps]),
        *(
            Select(f"part{n}", f"reward: {name}", [(str(i), one[0]) for i, one in enumerate(ranges[name])])
            for n, name in enumerate(names)
        ),
        Select("outcome", "box", _OUTCOMES),
    ]
    marks: set[str] = set()
    cards = []
    for run, record in pairs:
        picture = view.pictures.get(record.image)
        cards.append(_card(run, record, looks, ranges, picture, record.image in marks, len(view.runs) > 1))
        marks |= {record.image} if picture is not None else set()
    return render(
        "rollouts.jinja",
        cards=cards,
        selects=selects,
        orders=_ORDERS,
        page=_PAGE,
        grid=GRID,
        has_pictures=any(card.picture is not None for card in cards),
        num_all=sum(step["n"] for own in view.runs.values() for step in own["figures"]["steps"]),
    )


def _card(
    run: str,
    record: RolloutRecord,
    looks: Looks,
    ranges: Mapping[str, Sequence[Range]],
    picture: PagePicture | None,
    repeats: bool,
    several: bool,
) -> RolloutCard:
    (overlap,) = overlaps([record])
    outcome = "none" if record.box is None else "right" if overlap >= 0.5 else "wrong"
    boxes = [Rect.of(record.target, "halo", ""), Rect.of(record.target, "truth", f"truth: {record.entity}")]
    if record.box is not None:
        style = "stroke:var(--answer);stroke-dasharray:7 5"
        boxes.append(Rect.of(record.box, "answer", f"answer: IoU {overlap:.2f}", None, style))
    data = {
        "run": run,
        "step": str(record.step),
        "outcome": outcome,
        "reward": f"{record.reward:.6g}",
        "advantage": f"{record.advantage:.6g}",
        "iou": f"{overlap:.6g}",
        "tokens": str(record.num_tokens),
    }
    for n, (name, own) in enumerate(ranges.items()):
        if name in record.parts:
            data[f"part{n}"] = str(next(i for i, (_, low, high) in enumerate(own) if low <= record.parts[name] <= high))
    title = looks[run].title if several else ""
    text = "no box" if record.box is None else f"IoU {overlap:.2f}"
    return RolloutCard(record, title, data, marked(record.text), text, boxes, picture, repeats)


def ranges_of(values: Sequence[float]) -> list[Range]:
    """Ranges of a component for a filter: its values if there are few, else 0 alone and ranges of equal width.

    >>> ranges_of([1.0, 0.0, 0.5, 1.0])
    [('0', 0.0, 0.0), ('0.5', 0.5, 0.5), ('1', 1.0, 1.0)]
    >>> [name for name, _, _ in ranges_of([0.0, 0.6, 0.65, 0.7, 0.8, 0.9, 1.0])]
    ['0', '0.6 to 0.7', '0.7 to 0.8', '0.8 to 0.9', '0.9 to 1']
    """
    distinct = sorted(set(values))
    if len(distinct) <= _FEW:
        return [(f"{value:.4g}", value, value) for value in distinct]
    ranges: list[Range] = [("0", 0.0, 0.0)] if 0.0 in distinct else []
    rest = [value for value in distinct if value]
    low, high = rest[0], rest[-1]
    ends = [low + (high - low) * i / _RANGES for i in range(_RANGES)] + [high]
    ranges += [(f"{a:.3g} to {b:.3g}", a, b) for a, b in pairwise(ends)]
    return ranges
