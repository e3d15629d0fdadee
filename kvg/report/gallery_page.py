"""The gallery of a report: cards, and the filters that work on them in the browser (report.js)."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from kvg.evaluation.diagnostics.reasoning import rationale_of
from kvg.report.case_card import Drawn, case_card
from kvg.report.gallery import Asked
from kvg.report.naming import Look
from kvg.report.pictures import Picture

_VERDICTS = (("right", "right"), ("wrong", "wrong"))
_REASONING = (
    ("right", "reasoning right"),
    ("wrong", "reasoning wrong"),
    ("unclear", "cannot be told"),
    ("none", "none"),
)


@dataclass(frozen=True)
class Gallery:
    """What is shown.

    Attributes:
        questions: the cases chosen.
        pictures: by ``Case.id``; None where no set is given.
        num_all: cases that they were chosen from.
        notes: what a reader must know, for example that some pictures were not found.
    """

    questions: Sequence[Asked]
    pictures: Mapping[str, Picture] | None = None
    num_all: int = 0
    notes: Sequence[str] = ()


def gallery(contents: Gallery, looks: Mapping[str, Look]) -> str:
    """The section with filters and cards; '' without a case."""
    if not contents.questions:
        return ""
    cards, held = [], set[str]()
    several_sets = len({question.case.set for question in contents.questions}) > 1
    for question in contents.questions:
        drawn = None
        if contents.pictures is not None:
            picture = contents.pictures.get(question.case.id)
            if picture is not None:
                drawn = Drawn(picture, picture.mark in held)
                held.add(picture.mark)
        cards.append(case_card(question, looks, drawn, several_sets))
    kind = "gallery several" if len(looks) > 1 else "gallery"
    return (
        f"<section id=cases><h2>Cases</h2>{_note(contents, looks)}{_filters(contents, looks)}"
        f"<div class='{kind}' id=gallery>{''.join(cards)}</div>"
        "<p id=none class=note hidden>No case is like this. Show all, or ask for less.</p></section>"
    )


def _note(contents: Gallery, looks: Mapping[str, Look]) -> str:
    chosen, num = len(contents.questions), contents.num_all
    lot = f"{chosen} of {num}, drawn by lot from all categories and verdicts alike. " if chosen < num else ""
    several = "Dashed, in the colour of a run: its answer."
    answer = several if len(looks) > 1 else "<span class=dashed>Dashed orange</span>: the answer."
    key = f"<span class=right>Solid green</span>: the truth. {answer} Thin: the other objects. "
    more = " ".join(html.escape(note) for note in contents.notes)
    return f"<p class=note>{lot}{key if contents.pictures is not None else ''}{more}</p>"


def _filters(contents: Gallery, looks: Mapping[str, Look]) -> str:
    """Selects of what differs among the cards; hidden until the script that they need has begun."""
    cases = [question.case for question in contents.questions]
    answers = [answer for question in contents.questions for answer in question.answers.values()]
    verdicts = list(_VERDICTS)
    if any(len(set(question.verdicts)) > 1 for question in contents.questions):
        verdicts.append(("differ", "runs differ"))
    selects = [
        _select("run", "run", ((run, look.title) for run, look in looks.items())),
        _select("set", "set", _plain(case.set for case in cases)),
        _select("category", "category", _plain(case.category for case in cases)),
        _select("split", "split", _plain(case.split for case in cases)),
        _select("knowledge", "entity", _plain(case.knowledge for case in cases)),
        _select("verdict", "answer", verdicts),
        _select("reasoning", "reasoning", _REASONING) if any(map(rationale_of, answers)) else "",
    ]
    return (
        "<form id=filters aria-label='Which cases are shown' hidden>"
        f"{''.join(selects)}<label><span>name</span><input name=name type=search placeholder='any part' "
        "autocomplete=off></label><button type=reset>Show all</button>"
        "<output id=shown role=status></output></form>"
    )


def _plain(values: Iterable[str]) -> list[tuple[str, str]]:
    return [(value, value) for value in sorted({value for value in values if value})]


def _select(name: str, label: str, options: Iterable[tuple[str, str]]) -> str:
    known = list(options)
    if len(known) < 2:
        return ""
    shown = "".join(f'<option value="{html.escape(value)}">{html.escape(text)}</option>' for value, text in known)
    return f"<label><span>{label}</span><select name={name}><option value=''>all</option>{shown}</select></label>"
