"""One question as a card: the picture with its boxes, the question, the answer of each run, and the verdicts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup, escape

from kvg.evaluation.diagnostics.pointing import answered_object
from kvg.evaluation.diagnostics.reasoning import rationale_of, reasoning
from kvg.evaluation.diagnostics.recall import Recall, recall
from kvg.evaluation.records.prediction import Prediction
from kvg.report.gallery import QuestionView
from kvg.report.naming import RunStyle
from kvg.report.pictures import PagePicture
from kvg.report.render import render
from kvg.text.box_codec import GRID
from kvg.text.completion import parse_completion
from kvg.text.prompts import LETTERS
from kvg.types import Box

_SPECIAL = re.compile(r"&lt;\|box_start\|&gt;(.*?)&lt;\|box_end\|&gt;")
_PART = re.compile(r"\b(Plan|Look|Compare|Conclusion):")
_LONGEST: Final = 3000  # characters of an answer that are shown; untrained models write very long answers
_SHORT: Final = 120  # characters; longer answers get a wider column
_DASH: Final = (7, 5)  # pixels of a dash and of a gap


@dataclass(frozen=True)
class CardPicture:
    """A picture on a card. ``repeats``: an earlier card of the page already holds the image data."""

    picture: PagePicture
    repeats: bool = False


@dataclass(frozen=True)
class Rect:
    """A box on the 0-1000 grid of the picture. ``run`` is None unless it is an answer."""

    kind: str
    x: str
    y: str
    width: str
    height: str
    title: str = ""
    run: str | None = None
    style: str = ""

    @classmethod
    def of(cls, box: Box, kind: str, title: str, run: str | None = None, style: str = "") -> Rect:
        """The rectangle of a box, with its corners in any order."""
        x1, y1, x2, y2 = min(box[0], box[2]), min(box[1], box[3]), max(box[0], box[2]), max(box[1], box[3])
        return cls(kind, f"{x1:g}", f"{y1:g}", f"{x2 - x1:g}", f"{y2 - y1:g}", title, run, style)


@dataclass(frozen=True)
class AnswerView:
    """The answer of a run as the card shows it.

    Attributes:
        look: style of the run.
        verdict: ``right`` or ``wrong``.
        reasoning: ``right``, ``wrong``, ``unclear``, or ``none`` if there is no rationale.
        outcome: short description of the answer.
        long: whether the answer gets a wider column.
        description: first turn of the prompt mode ``describe``; '' for none.
        options: names to choose from, each with whether it is correct.
        rationale: '' for none.
        text: the answer.
        recalled: recalled traits of the entity's card; None outside the lab.
        words: traits of the card, each with whether it was recalled.
    """

    look: RunStyle
    verdict: str
    reasoning: str
    outcome: str
    long: bool
    description: Markup
    options: Sequence[tuple[str, bool]]
    rationale: Markup
    text: Markup
    recalled: Recall | None
    words: Sequence[tuple[str, bool]]


def case_card(
    question: QuestionView,
    looks: Mapping[str, RunStyle],
    picture: CardPicture | None = None,
    several_sets: bool = False,
) -> Markup:
    """The card.

    Args:
        question: with its answers.
        looks: styles of all runs of the page, in order.
        picture: None for none.
        several_sets: whether to show the name of the set.
    """
    case = question.case
    return render(
        "card.jinja",
        case=case,
        data={"category": case.category, "split": case.split, "knowledge": case.knowledge, "set": case.set},
        facts=" · ".join(filter(None, (case.category, case.split, case.knowledge, case.set if several_sets else ""))),
        picture=picture.picture if picture else None,
        repeats=bool(picture and picture.repeats),
        grid=GRID,
        boxes=_boxes(question, looks),
        answers=[_answer(answer, looks[run]) for run, answer in question.answers.items()],
    )


def _boxes(question: QuestionView, looks: Mapping[str, RunStyle]) -> list[Rect]:
    """The boxes in drawing order: other objects, the true box, and each run's answer as a dashed line in its colour.

    Dashes of several runs are offset, so that equal boxes of different runs stay visible.
    """
    case = question.case
    boxes = [
        Rect.of(item.box, "other", item.entity or "another object")
        for n, item in enumerate(case.objects)
        if n != case.target and not case.is_choice
    ]
    for box in case.targets:
        boxes += [Rect.of(box, "halo", ""), Rect.of(box, "truth", f"truth: {case.entity}")]
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
        boxes.append(Rect.of(answer.box, "answer", title, run, style))
    return boxes


def _answer(case: Prediction, look: RunStyle) -> AnswerView:
    judged = reasoning(case)
    rationale, text = rationale_of(case), case.answer
    if rationale:
        parsed = parse_completion(case.answer)
        text = parsed.answer if parsed.rationale else case.answer.split(rationale, 1)[-1]
    options: Sequence[str] = case.options if case.is_choice else ()
    recalled = recall(case) if judged else None
    words: list[tuple[str, bool]] = []
    if recalled:
        answered = recalled.answered.split(", ")
        words = [(w, i < len(answered) and answered[i] == w) for i, w in enumerate(recalled.true.split(", "))]
    return AnswerView(
        look=look,
        verdict="right" if case.correct else "wrong",
        reasoning="none" if judged is None else {True: "right", False: "wrong", None: "unclear"}[judged.verdict],
        outcome=_outcome(case),
        long=len(case.answer) > _SHORT,
        description=marked(case.description),
        options=[(name, n == case.right) for n, name in enumerate(options)],
        rationale=marked(rationale or ""),
        text=marked(text.strip()),
        recalled=recalled,
        words=words,
    )


def _outcome(case: Prediction) -> str:
    if case.is_choice:
        chosen = case.chosen
        return "no option" if chosen is None else f"{LETTERS[chosen]} {case.options[chosen]}"
    if case.box is None:
        return "no box"
    taken = answered_object(case)
    if case.correct or taken is None or not case.objects[taken].entity:
        return f"IoU {case.iou:.2f}"
    return f"boxed {case.objects[taken].entity}"


def marked(text: str) -> Markup:
    """The escaped text, at most 3000 characters, with boxes as code and the names of the four parts emphasized."""
    text = text if len(text) <= _LONGEST else text[:_LONGEST] + " …"
    escaped = _SPECIAL.sub(r"<code>\1</code>", str(escape(text)))
    return Markup(_PART.sub(r"<em>\1:</em>", escaped))
