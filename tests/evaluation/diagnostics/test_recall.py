"""Recall against answer, by hand. Object 0 is grey, plain, crest, slim; 1 has white spots; 2 is red and broad."""

from __future__ import annotations

import pytest

from kvg.evaluation.diagnostics.reasoning_box import reasoning_tables
from kvg.evaluation.diagnostics.recall import recall
from kvg.evaluation.records.prediction import Prediction

TRUE = "grey, plain, crest, slim"
NOTES = (TRUE, "grey, white spots, crest, slim", "red, plain, long tail, broad")
BOXES = ("(0,0),(200,200)", "(400,0),(600,200)", "(700,0),(900,200)")


def says(traits: str) -> str:
    return f"<think>Plan: the Hoopoe is {traits}. Look: 1 somewhere. Compare: 1 yes. Conclusion: object 1.</think>"


@pytest.fixture
def make_case(make_line):
    def make(key, text, boxed, notes=NOTES, **fields):
        answer = text if boxed is None else f"{text}<answer>{BOXES[boxed]}</answer>"
        objects = [
            {"entity": f"E{i}", "box": [b, 0, b + 200, 200], **({"note": note} if note else {})}
            for i, (b, note) in enumerate(zip((0, 400, 700), notes, strict=True))
        ]
        line = make_line(key, answer=answer, gt_bbox=[[0, 0, 200, 200]], objects=objects, **fields)
        return Prediction.from_line(line, "test")

    return make


@pytest.mark.parametrize(
    ("said", "boxed", "right", "follows"),
    [
        (TRUE, 0, True, True),
        (TRUE, 1, True, False),
        (TRUE, None, True, None),
        ("grey, white spots, crest, slim", 1, False, True),  # recalled the neighbour, and took it
        ("grey, white spots, crest, slim", 0, False, False),
        ("grey, red top, crest, slim", 0, False, None),  # as much like object 0 as like object 1
        ("red, red top", 2, False, True),
    ],
)
def test_one_answer(make_case, said, boxed, right, follows):
    found = recall(make_case("a", says(said), boxed))
    assert found is not None
    assert (found.answered, found.true, found.right, found.follows) == (said, TRUE, right, follows)


def test_a_name_with_a_dot_and_a_thought_that_is_cut_off(make_case):
    found = recall(make_case("a", f"<think>Plan: the St. Basil's Cathedral is {TRUE}. Look: 1", None))
    assert found is not None
    assert found.right


def test_no_plan_or_no_card(make_case, make_line):
    assert recall(make_case("a", "", 0)) is None
    assert recall(make_case("a", says(TRUE), 0, notes=(None, None, None))) is None
    assert recall(Prediction.from_line(make_line(answer=says(TRUE), objects=None), "test")) is None


def test_counts(make_case):
    wrong = "grey, white spots, crest, slim"
    answers = [(TRUE, 0), (TRUE, 0), (TRUE, 0), (TRUE, 1), (wrong, 0), (wrong, 1), (wrong, 1), (None, 0)]
    cases = [make_case(f"k{i}", says(said) if said else "", boxed) for i, (said, boxed) in enumerate(answers)]
    table = next(t for t in reasoning_tables(cases, 0) if (t["by"], t["group"]) == ("cards", "seen"))
    assert (table["n"], table["untold"]) == (7, 0)  # the eighth has no plan
    counts = (table["right_right"], table["right_wrong"], table["wrong_right"], table["wrong_wrong"])
    assert counts == (3, 1, 1, 2)
    assert (table["left"]["n"], table["left"]["value"]) == (7, pytest.approx(2 / 7))  # 3 + 2 follow the plan
    assert reasoning_tables([make_case("k0", "", 0)], 0) == []
