"""One question as a card: the picture with its boxes, what was asked, what each run answered, and the verdicts."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from kvg.evaluation.diagnostics.pointing import answered_object
from kvg.evaluation.diagnostics.reasoning import Reasoning, rationale_of, reasoning
from kvg.evaluation.diagnostics.recall import Recall, recall
from kvg.evaluation.records.prediction import Case
from kvg.report.gallery import Asked
from kvg.report.naming import Look
from kvg.report.pictures import Picture
from kvg.text.box_codec import GRID
from kvg.text.completion import parse_completion
from kvg.text.prompts import LETTERS
from kvg.types import Box

_SPECIAL = re.compile(r"&lt;\|box_start\|&gt;(.*?)&lt;\|box_end\|&gt;")
_PART = re.compile(r"\b(Plan|Look|Compare|Conclusion):")
_LONGEST: Final = 3000  # characters of an answer that are shown; a model that has learnt nothing can ramble
_SHORT: Final = 120  # characters; what is longer gets a wider column
_DASH: Final = (7, 5)  # pixels of a dash and of what is between two


@dataclass(frozen=True)
class Drawn:
    """A picture on a card. ``repeats``: an earlier card of the page holds it already."""

    picture: Picture
    repeats: bool = False


def case_card(
    question: Asked, looks: Mapping[str, Look], drawn: Drawn | None = None, several_sets: bool = False
) -> str:
    """The card.

    Args:
        question: with its answers.
        looks: of the runs, all of the page, in their order.
        drawn: its picture; None where there is none.
        several_sets: whether the name of the set tells anything.
    """
    case = question.case
    facts = " · ".join(filter(None, (case.category, case.split, case.knowledge, case.set if several_sets else "")))
    said = "".join(_said(answer, looks[run]) for run, answer in question.answers.items())
    told = {"category": case.category, "split": case.split, "knowledge": case.knowledge, "set": case.set}
    data = "".join(f' data-{name}="{html.escape(value)}"' for name, value in told.items())
    ask = "Which" if case.is_choice else "Find"
    name = f"{case.category or 'one'} is it? " if case.is_choice else ""
    return (
        f"<article class=card{data}>{_picture(question, looks, drawn)}<div class=told><header>"
        f"<span class=soft>{ask} {html.escape(name)}</span><b class=entity>{html.escape(case.entity or case.key)}</b>"
        f'<span class="soft facts" title="{html.escape(case.id)}">{html.escape(facts)}</span></header>'
        f"<div class=answers>{said}</div></div></article>"
    )


def _picture(question: Asked, looks: Mapping[str, Look], drawn: Drawn | None) -> str:
    if drawn is None:
        return ""
    picture = drawn.picture
    if not picture.uri:
        return "<div class='picture lost'>this picture cannot be opened</div>"
    case = question.case
    name = html.escape(f"picture with {case.entity}" if case.entity else "picture")
    source = f'data-same="p{picture.mark}"' if drawn.repeats else f'id="p{picture.mark}" src="{picture.uri}"'
    kind = " class=drawn" if picture.is_drawn else ""
    return (
        f'<div class=picture><img{kind} {source} width="{picture.width}" height="{picture.height}" alt="{name}">'
        f'<svg viewBox="0 0 {GRID} {GRID}" preserveAspectRatio="none" role="img" aria-label="boxes">'
        f"{_boxes(question, looks)}</svg></div>"
    )


def _boxes(question: Asked, looks: Mapping[str, Look]) -> str:
    """Other objects first and the truth over them; each run's answer over that, in a dash of its own colour.

    Dashes of several runs are shifted against each other, so that equal boxes can all be seen.
    """
    case = question.case
    boxes = [
        _rect(thing.box, "other", thing.entity or "another object")
        for n, thing in enumerate(case.objects)
        if n != case.target and not case.is_choice
    ]
    boxes += [_rect(box, "halo", "") + _rect(box, "truth", f"truth: {case.entity}") for box in case.truth]
    several = len(looks) > 1
    dash, gap = _DASH
    for number, (run, look) in enumerate(looks.items()):
        answer = question.answers.get(run)
        if answer is None or answer.box is None:
            continue
        colour = look.colour if several else "var(--answer)"
        between = gap if not several else (dash + gap) * (len(looks) - 1) // 2 + gap
        style = f"stroke:{colour};stroke-dasharray:{dash} {between};stroke-dashoffset:{-number * (dash + gap) // 2}"
        title = f"answer of {look.title}: IoU {answer.iou:.2f}" if several else f"answer: IoU {answer.iou:.2f}"
        boxes.append(_rect(answer.box, "answer", title, f' data-run="{html.escape(run)}" style="{style}"'))
    return "".join(boxes)


def _rect(box: Box, kind: str, title: str, more: str = "") -> str:
    x1, y1, x2, y2 = min(box[0], box[2]), min(box[1], box[3]), max(box[0], box[2]), max(box[1], box[3])
    shape = f'x="{x1:g}" y="{y1:g}" width="{x2 - x1:g}" height="{y2 - y1:g}"'
    inner = f"<title>{html.escape(title)}</title>" if title else ""
    return f'<rect class="{kind}" {shape}{more}>{inner}</rect>'


def _said(case: Case, look: Look) -> str:
    """What a run said, with its verdict and that on its reasoning."""
    judged = reasoning(case)
    verdict = judged.verdict if judged else None
    thought = "none" if judged is None else {True: "right", False: "wrong", None: "unclear"}[verdict]
    mark, kind = ("✓", "right") if case.correct else ("✗", "wrong")
    width = " long" if len(case.answer) > _SHORT else ""
    return (
        f'<section class="said{width}" data-run="{html.escape(look.name)}" data-verdict={kind} '
        f"data-reasoning={thought}>"
        f"<h4><span class=run><i style='background:{look.colour}'></i>{html.escape(look.title)}</span>"
        f"<span class='verdict {kind}'>{mark} {html.escape(_outcome(case))}</span></h4>"
        f"{_text(case)}{_judged(case, judged)}</section>"
    )


def _outcome(case: Case) -> str:
    if case.is_choice:
        chosen = case.facts.get("chosen")
        return "no option" if chosen is None else f"{LETTERS[int(chosen)]} {case.facts['options'][int(chosen)]}"
    if case.box is None:
        return "no box"
    taken = answered_object(case)
    if case.correct or taken is None or not case.objects[taken].entity:
        return f"IoU {case.iou:.2f}"
    return f"took {case.objects[taken].entity}"


def _text(case: Case) -> str:
    """The rationale and the answer."""
    rationale, said = rationale_of(case), case.answer
    parts = []
    if description := str(case.facts.get("description") or ""):
        parts.append(f"<p><em>Description:</em> {_marked(description)}</p>")
    if case.is_choice:
        options = "".join(
            f"<li{' class=right' if n == case.facts['right'] else ''}>{html.escape(name)}</li>"
            for n, name in enumerate(case.facts["options"])
        )
        parts.append(f"<ol class=options>{options}</ol>")
    if rationale:
        parsed = parse_completion(case.answer)
        said = parsed.answer if parsed.rationale else case.answer.split(rationale, 1)[-1]
        parts.append(f"<p>{_marked(rationale)}</p>")
    parts.append(f"<p><em>Answer:</em> {_marked(said.strip()) or 'none'}</p>")
    return f"<div class=text tabindex=0>{''.join(parts)}</div>"


def _judged(case: Case, judged: Reasoning | None) -> str:
    if judged is None:
        return ""
    recalled = recall(case)
    if recalled:
        return _recalled(recalled)
    if judged.right is None:
        return "<p class='judged soft'>? reasoning: cannot be told what it points at</p>"
    if judged.right:
        return "<p class=judged><span class=right>✓ reasoning</span> points at the right object</p>"
    return "<p class=judged><span class=wrong>✗ reasoning</span> points at another object</p>"


def _recalled(recalled: Recall) -> str:
    if recalled.right:
        return "<p class=judged><span class=right>✓ card recalled</span></p>"
    said, true = recalled.said.split(", "), recalled.true.split(", ")
    marked: Sequence[str] = [
        html.escape(word) if i < len(said) and said[i] == word else f"<s>{html.escape(word)}</s>"
        for i, word in enumerate(true)
    ]
    return f"<p class=judged><span class=wrong>✗ card not recalled.</span> It is {', '.join(marked)}.</p>"


def _marked(text: str) -> str:
    """Escaped, with boxes and the names of the four parts set apart."""
    text = text if len(text) <= _LONGEST else text[:_LONGEST] + " …"
    escaped = _SPECIAL.sub(r"<code>\1</code>", html.escape(text))
    return _PART.sub(r"<em>\1:</em>", escaped)
