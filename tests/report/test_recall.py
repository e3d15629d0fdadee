"""Recall against answer, by hand. Object 0 is grey, plain, crest, slim; 1 has white spots; 2 is red and broad."""

from __future__ import annotations

import pytest

from kvg.report.recall import recall, recall_rows

TRUE = "grey, plain, crest, slim"
BOXES = {0: (0.0, 0.0, 10.0, 10.0), 1: (20.0, 0.0, 30.0, 10.0), 2: (40.0, 0.0, 50.0, 10.0), None: None}


def says(traits: str) -> str:
    return f"<think>Plan: the Hoopoe is {traits}. Look: 1 somewhere. Compare: 1 yes. Conclusion: object 1.</think>"


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
def test_one_answer(make_case, make_sample, said, boxed, right, follows):
    found = recall(make_case("a", right=boxed == 0, text=says(said), box_px=BOXES[boxed]), make_sample("a"))
    assert found is not None
    assert (found.said, found.true, found.right, found.follows) == (said, TRUE, right, follows)


def test_a_name_with_a_dot_and_a_thought_that_is_cut_off(make_case, make_sample):
    text = f"<think>Plan: the St. Basil's Cathedral is {TRUE}. Look: 1"
    found = recall(make_case("a", text=text), make_sample("a"))
    assert found is not None
    assert found.right


def test_no_plan_or_no_card(make_case, make_sample):
    assert recall(make_case("a", text="(1,2),(3,4)"), make_sample("a")) is None
    blank = make_sample("a")
    blank = type(blank)(**{**vars(blank), "objects": tuple(type(o)(o.entity, o.box_px) for o in blank.objects)})
    assert recall(make_case("a", text=says(TRUE)), blank) is None


def test_counts(make_case, make_sample):
    wrong = "grey, white spots, crest, slim"
    answers = [(TRUE, 0), (TRUE, 0), (TRUE, 0), (TRUE, 1), (wrong, 0), (wrong, 1), (wrong, 1), (None, 0)]
    cases = [
        make_case(f"k{i}", right=boxed == 0, text=says(said) if said else "no idea", box_px=BOXES[boxed])
        for i, (said, boxed) in enumerate(answers)
    ]
    cases.append(make_case("not in the shards", text=says(TRUE)))
    samples = {f"k{i}": make_sample(f"k{i}") for i in range(len(answers))}
    found = recall_rows({"base": [make_case("k0", text="(1,2),(3,4)")], "cot_sft": cases}, samples)
    assert [(row["stage"], row["split"], row["knowledge"]) for row in found] == [
        ("cot_sft", "seen", "known"),
        ("cot_sft", "seen", "all"),
    ]
    row = found[0]
    assert (row["n"], row["no_plan"]) == (8, 1)
    counts = (row["right_right"], row["right_wrong"], row["wrong_right"], row["wrong_wrong"])
    assert counts == (3, 1, 1, 2)
    assert (row["follows"], row["follows_n"]) == (3 + 2, 7)
