"""Changes of a rationale by hand, and how answers are counted. Object 0 is the target, 1 its look-alike, 2 another."""

from __future__ import annotations

import json

import pytest

from kvg.errors import ConfigError, DataError
from kvg.evaluation.diagnostics.intervention import KINDS, forced_starts, in_one_line, intervention_of, moves
from kvg.evaluation.records.prediction import Prediction

NOTES = ("grey, plain, crest, slim", "grey, white spots, crest, slim", "red, black top, long tail, broad")
BOXES = ("(0,0),(200,200)", "(400,0),(600,200)", "(700,0),(900,200)")
MARKED = tuple(f"<|box_start|>{box}<|box_end|>" for box in BOXES)
PLAN = "Plan: the Hoopoe is grey, plain, crest, slim."
LOOK = (
    "Look: " + "; ".join(f"{n} {box} {note}" for n, (box, note) in enumerate(zip(MARKED, NOTES, strict=True), 1)) + "."
)
COMPARE = f"Compare: {MARKED[0]} yes; 2 no, white spots; 3 no, red."
THOUGHT = f"{PLAN} {LOOK} {COMPARE} Conclusion: object 1."


def line(answered: int | None = 0, thought: str = THOUGHT, key: str = "k", **more) -> dict:
    objects = [{"entity": f"E{n}", "box": [x, 0, x + 200, 200], "note": note}
               for n, (x, note) in enumerate(zip((0, 400, 700), NOTES, strict=True))]  # fmt: skip
    box = "nowhere" if answered is None else MARKED[answered]
    answer = f"<think>{thought}</think><answer>{box}</answer>"
    return {"key": key, "answer": answer, "gt_bbox": [[0, 0, 200, 200]], "objects": objects, "target": 0, **more}


@pytest.fixture
def start(write_lines):
    def made(kind: str, **fields) -> tuple[str, int | None]:
        starts = forced_starts(kind, str(write_lines([line(**fields)])))
        one = starts.by_case["k", "", 0]
        return one.text, one.other

    return made


def test_the_plan_gets_the_card_of_an_object_that_was_not_answered(start):
    text, other = start("other_card")
    assert other in (1, 2)
    assert text == f"<think>Plan: the Hoopoe is {NOTES[other]}."


def test_after_a_wrong_answer_the_target_can_be_the_other_object(start):
    cards = {start("other_card", answered=2, more=n)[1] for n in range(3)}
    assert cards <= {0, 1}


def test_one_trait_becomes_that_of_the_nearest_object(start):
    assert start("one_trait") == ("<think>Plan: the Hoopoe is grey, white spots, crest, slim.", 1)


def test_the_right_card_replaces_a_wrong_plan(start):
    wrong = THOUGHT.replace(PLAN, "Plan: the Hoopoe is red, black top, long tail, broad.")
    assert start("true_card", thought=wrong, answered=2) == (f"<think>{PLAN}", 0)


def test_the_verdict_moves_to_another_box_that_was_quoted(start):
    text, other = start("other_box")
    assert text == f"<think>{PLAN} {LOOK} Compare: {MARKED[other]} yes"


def test_a_rationale_is_cut_after_each_part(start):
    close = "</think><answer>"
    assert start("cut_plan") == (f"<think>{PLAN}{close}", None)
    assert start("cut_look") == (f"<think>{PLAN} {LOOK}{close}", None)
    assert start("cut_compare") == (f"<think>{PLAN} {LOOK} {COMPARE}{close}", None)
    assert start("cut_conclusion") == (f"<think>{THOUGHT}{close}", None)
    assert start("none") == (f"<think>{close}", None)
    assert start("own_plan") == (f"<think>{PLAN}", None)


def test_what_cannot_be_changed_is_left_to_the_model(write_lines):
    run = write_lines([line(thought="Somewhere on the left.", key="a"), line(key="b")])
    for kind in set(KINDS) - {"none", "cut_conclusion"}:
        assert forced_starts(kind, str(run)).by_case["a", "", 0].text == ""


def test_unknown_kinds_and_runs_without_thoughts_are_refused(write_lines):
    run = str(write_lines([line(thought="Somewhere.")]))
    with pytest.raises(ConfigError, match="'x' is none of own_plan"):
        forced_starts("x", run)
    with pytest.raises(DataError, match="no rationale has the parts that other_card changes"):
        forced_starts("other_card", run)


def answered(to: int | None, other: int | None, start: str = "<think>", before: int | None = 0) -> Prediction:
    old = None if before is None else [[0, 0, 200, 200], [400, 0, 600, 200], [700, 0, 900, 200]][before]
    made = {"kind": "other_card", "start": start, "other": other, "before": old}
    return Prediction.from_line(line(to, key=f"{to}{other}{start}{before}", intervention=made), "test")


def test_answers_move_to_the_other_object_to_a_third_one_or_to_none():
    cases = [
        answered(0, 1),  # stays
        answered(1, 1),  # follows
        answered(2, 1),  # a third one
        answered(None, 1),  # no box
        answered(1, 1, before=None),  # there was none before
        answered(0, None, start=""),  # not applied
    ]
    made = moves(cases)
    assert made == {
        "kind": "other_card", "n": 5, "left_out": 1, "moved": 4, "to_other": 2, "elsewhere": 1, "nowhere": 1,
        "right_before": 4, "right_after": 1,
    }  # fmt: skip
    assert "80.0% of 5 answers moved (40.0% to the object of the change, 20.0% to a third one" in in_one_line(made)
    assert intervention_of(cases[-1]).moved is None
    assert moves([Prediction.from_line(line(), "test")]) is None


def test_a_damaged_field_is_named():
    case = Prediction.from_line({**line(), "intervention": {"kind": "none"}}, "test")
    with pytest.raises(DataError, match="intervention"):
        intervention_of(case)


def test_other_answers_make_another_run(write_lines):
    first = forced_starts("none", str(write_lines([line()], "a/predictions.jsonl"))).identity
    second = forced_starts("none", str(write_lines([line(1)], "b/predictions.jsonl"))).identity
    assert first != second
    assert json.dumps(first)
