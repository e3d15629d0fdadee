"""The gallery of a report: cards, and the filters that report.js applies to them in the browser."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from kvg.evaluation.diagnostics.reasoning import rationale_of
from kvg.report.case_card import CardPicture, case_card
from kvg.report.gallery import QuestionView
from kvg.report.naming import RunStyle
from kvg.report.pictures import PagePicture
from kvg.report.render import render

_VERDICTS = (("right", "right"), ("wrong", "wrong"))
_REASONING = (
    ("right", "reasoning right"),
    ("wrong", "reasoning wrong"),
    ("unclear", "not judged"),
    ("none", "none"),
)


@dataclass(frozen=True)
class Gallery:
    """The content of the gallery.

    Attributes:
        questions: the chosen cases.
        pictures: by ``Prediction.id``; None if no set is given.
        num_all: number of cases that they were chosen from.
        notes: remarks for the reader, for example about missing pictures.
    """

    questions: Sequence[QuestionView]
    pictures: Mapping[str, PagePicture] | None = None
    num_all: int = 0
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Select:
    """A filter: its name in the script, its label, and value and text of each option."""

    name: str
    label: str
    options: Sequence[tuple[str, str]]


def gallery(contents: Gallery, looks: Mapping[str, RunStyle]) -> Markup:
    """The section with filters and cards; '' without cases."""
    if not contents.questions:
        return Markup("")
    cards, marks = [], set[str]()
    several_sets = len({question.case.set for question in contents.questions}) > 1
    for question in contents.questions:
        picture = (contents.pictures or {}).get(question.case.id)
        card_picture = None
        if picture is not None:
            card_picture = CardPicture(picture, picture.mark in marks)
            marks.add(picture.mark)
        cards.append(case_card(question, looks, card_picture, several_sets))
    return render(
        "gallery.jinja",
        cards=cards,
        num=len(contents.questions),
        num_all=contents.num_all,
        notes=contents.notes,
        has_pictures=contents.pictures is not None,
        several=len(looks) > 1,
        selects=_selects(contents, looks),
    )


def _selects(contents: Gallery, looks: Mapping[str, RunStyle]) -> list[Select]:
    """The filters; those with a single option are not shown."""
    cases = [question.case for question in contents.questions]
    answers = [answer for question in contents.questions for answer in question.answers.values()]
    verdicts = list(_VERDICTS)
    if any(len(set(question.verdicts)) > 1 for question in contents.questions):
        verdicts.append(("differ", "runs differ"))
    return [
        Select("run", "run", [(run, look.title) for run, look in looks.items()]),
        Select("set", "set", _values(case.set for case in cases)),
        Select("category", "category", _values(case.category for case in cases)),
        Select("split", "split", _values(case.split for case in cases)),
        Select("knowledge", "entity", _values(case.knowledge for case in cases)),
        Select("verdict", "answer", verdicts),
        Select("reasoning", "reasoning", _REASONING if any(map(rationale_of, answers)) else ()),
    ]


def _values(values: Iterable[str]) -> list[tuple[str, str]]:
    return [(value, value) for value in sorted({value for value in values if value})]
