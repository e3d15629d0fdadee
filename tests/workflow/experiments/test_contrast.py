"""Columns and contrasts by hand: four cases, seen/unseen x known/unknown."""

from __future__ import annotations

import json

import pytest

from kvg.evaluation.records.prediction import Prediction
from kvg.workflow.experiments.columns import answer_columns, case_columns, members
from kvg.workflow.experiments.contrast import claim_contrast, mean_of
from kvg.workflow.experiments.question import Claim
from kvg.workflow.experiments.result import Result, ResultFolder

COLUMNS = {"split": "ssuu", "knowledge": "kuku", "category": "0055", "lookalikes": "0112"}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "cases").mkdir()
    (tmp_path / "cases/c.json").write_text(json.dumps({"digest": "c", "num": 4, "columns": COLUMNS}))
    return ResultFolder(tmp_path)


def rows(*right: str, traits: str = "4444") -> dict[int, Result]:
    return {seed: Result("q/a", f"{text}{seed}", "", "", "", cases="c", columns={"right": text, "traits": traits})
            for seed, text in enumerate(right)}  # fmt: skip


def test_groups_are_splits_levels_categories_and_columns():
    assert members("all", COLUMNS, 4) == [0, 1, 2, 3]
    assert members("unseen, known", COLUMNS, 4) == [2]
    assert members("dog", COLUMNS, 4) == [2, 3]
    assert members("lookalikes=1, seen", COLUMNS, 4) == [1]
    for wrong in ("birds", "colour=1"):
        with pytest.raises(ValueError, match="group"):
            members(wrong, COLUMNS, 4)


def test_means_of_groups_and_of_traits(folder):
    assert mean_of(rows("1100"), folder).value == 0.5
    assert mean_of(rows("1100", "1110"), folder).value == pytest.approx(0.625)
    assert mean_of(rows("1100"), folder, "seen").value == 1.0
    assert mean_of(rows("1100", traits="4-21"), folder, value="traits").value == pytest.approx(7 / 12)  # 4, 2, 1 of 4
    assert mean_of(rows("1100"), folder, value="kept") is None


def test_a_difference_is_taken_on_the_cases_of_its_group(folder):
    arms = {"a": rows("1110", "1111"), "b": rows("1000", "1010")}
    made = claim_contrast(Claim("", "a", "b"), arms, arms, folder)
    assert (made.value, made.seeds, made.cases) == (pytest.approx(0.5), 2, 4)  # 0.75 and 1, less 0.25 and 0.5
    assert made.low < 0.5 < made.high
    seen = claim_contrast(Claim("", "a", "b", cases="seen"), arms, arms, folder)
    assert (seen.value, seen.cases) == (pytest.approx(0.5), 2)


def test_an_interaction_is_a_difference_of_differences(folder):
    arms = {"a": rows("1111", "1111"), "b": rows("1001", "1001")}
    made = claim_contrast(Claim("", "a", "b", cases="known", minus="unknown"), arms, arms, folder)
    # known are cases 0 and 2: 1 - 0.5; unknown are 1 and 3: 1 - 0.5
    assert made.value == pytest.approx(0.0)
    made = claim_contrast(Claim("", "a", "b", cases="seen", minus="unseen, known"), arms, arms, folder)
    assert made.value == pytest.approx(0.5 - 1.0)


def test_an_arm_of_its_own_for_each_group(folder):
    arms = {"no_dog": rows("0011"), "no_car": rows("0100"), "all": rows("1111")}
    claim = Claim("", {"dog": "no_dog", "aircraft": "no_car"}, "all")
    assert claim_contrast(claim, arms, arms, folder).value == pytest.approx((1.0 + 0.5) / 2 - 1.0)


def test_one_seed_is_compared_with_several_and_nothing_with_nothing(folder):
    arms = {"a": rows("1110", "1111"), "base": rows("1000"), "none": {}}
    assert claim_contrast(Claim("", "a", "base"), arms, arms, folder).value == pytest.approx(0.875 - 0.25)
    assert claim_contrast(Claim("", "a", "none"), arms, arms, folder) is None
    assert claim_contrast(Claim("", "none", "a"), arms, arms, folder) is None


def test_columns_of_answers_and_cases():
    notes = ("grey, plain, crest, slim", "grey, plain, crest, broad", "red, plain, fins, slim")
    objects = [{"entity": f"E{n}", "box": [300 * n, 0, 300 * n + 200, 200], "note": notes[n]} for n in range(3)]
    plan = "<think>Plan: the E0 is grey, plain, fins, broad. Look: nothing.</think>"
    answers = (f"{plan}<answer>(0,0),(200,200)</answer>", f"{plan}<answer>(300,0),(500,200)</answer>", "nothing")
    cases = [
        Prediction.from_line({
            "key": f"k{n}", "answer": answer, "gt_bbox": [[0, 0, 200, 200]], "objects": objects, "target": 0,
            "split": "unseen", "knowledge": "known", "category": "dog",
        }, "test")
        for n, answer in enumerate(answers)
    ]  # fmt: skip
    made = answer_columns(cases)
    assert made["right"] == "100"
    assert made["object"] == "01-"
    assert made["traits"] == "22-"  # grey and plain
    assert made["other_traits"] == "33-"  # of object 1: broad, too
    assert made["recalled"] == "00-"
    assert "moved" not in made
    of_cases = case_columns(cases)
    assert of_cases["columns"] == {
        "split": "uuu", "knowledge": "kkk", "category": "555", "objects": "333", "lookalikes": "111",
    }  # fmt: skip
    assert "pictures" not in of_cases
    assert of_cases["digest"] != case_columns(cases[:2])["digest"]
