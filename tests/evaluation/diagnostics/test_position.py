"""Position bias: counted by hand where it is plain, and hardly ever seen in models that have none."""

import random

import pytest

from kvg.evaluation.diagnostics.position import position
from kvg.evaluation.records.prediction import Prediction

# Three objects in a row; the second is the largest.
BOXES = ((0, 0, 200, 200), (350, 0, 650, 300), (750, 600, 950, 800))


def text(box):
    x1, y1, x2, y2 = box
    return f"({x1},{y1}),({x2},{y2})"


@pytest.fixture
def ask(make_line):
    def ask(key, target, answered, boxes=BOXES, **fields):
        objects = [{"entity": f"E{i}", "box": list(box)} for i, box in enumerate(boxes)]
        answer = "?" if answered is None else text(boxes[answered])
        gt = [list(boxes[target])]
        return Prediction.from_line(
            make_line(key, answer=answer, gt_bbox=gt, objects=objects, target=target, **fields), "test"
        )

    return ask


def test_counts_by_hand(ask):
    answers = [(0, 0), (0, 0), (1, 1), (1, 0), (2, 0), (2, 1), (2, None)]
    found = position([ask(f"k{i}", *answer) for i, answer in enumerate(answers)], seed=0)
    accuracy = {
        table["by"]: {p["place"]: (p["accuracy"]["n"], p["accuracy"]["value"]) for p in table["places"]}
        for table in found["by_place"]
    }
    assert accuracy == {
        "column": {"left": (2, 1), "middle": (2, 0.5), "right": (3, 0)},
        "row": {"top": (4, 0.75), "bottom": (3, 0)},
        "reading order": {"1": (2, 1), "2": (2, 0.5), "3": (3, 0)},
    }
    assert (found["n"], found["answered"], found["pointed"]) == (7, 6, 6)
    fields = {count["field"]: (count["truth"], count["answered"]) for count in found["fields"]}
    assert fields == {
        "top left": (2, 4), "top middle": (2, 2), "top right": (0, 0),
        "bottom left": (0, 0), "bottom middle": (0, 0), "bottom right": (2, 0),
    }  # fmt: skip
    assert found["distance"] == pytest.approx(2**2 / 6 + 0 / 4 + 2**2 / 2)
    assert found["verdict"] == "not measurable: 7 cases are fewer than 20"


def test_what_would_be_answered_without_a_bias(ask):
    # Of 12 answers 6 are right, wherever the target stands, and the others go to the first where it is not asked for.
    answers = [(0, 0), (0, 0), (0, 1), (0, 2), (1, 1), (1, 1), (1, 0), (1, 0), (2, 2), (2, 2), (2, 0), (2, 0)]
    found = position([ask(f"k{i}", *answer) for i, answer in enumerate(answers)], seed=0)
    first, largest = found["favourites"]
    assert (first["object"], largest["object"]) == ("first", "largest")
    assert first["answered"]["value"] == pytest.approx(6 / 12)
    assert first["expected"] == pytest.approx((4 * 0.5 + 8 * 0.25) / 12)  # half right, else one of two
    assert first["difference"]["value"] == pytest.approx(6 / 12 - 4 / 12)
    assert largest["answered"]["value"] == pytest.approx(3 / 12)


def test_a_model_that_always_answers_the_first_object_is_seen(ask):
    cases = [ask(f"k{i}", i % 3, 0) for i in range(60)]
    found = position(cases, seed=0)
    assert all(table["p"] < 0.001 for table in found["by_place"])
    assert found["p"] < 0.001
    assert [favourite["sign"] for favourite in found["favourites"]] == [True, True]
    assert "the first object is answered more often than without bias, +66.7 points" in found["verdict"]
    assert "the largest object is answered less often" in found["verdict"]
    assert "accuracy differs by reading order, from 0.0% (2) to 100.0% (1)" in found["verdict"]
    # Also where there are only two.
    pairs = [ask(f"k{i}", i % 2, 0, BOXES[:2]) for i in range(60)]
    assert position(pairs, seed=0)["favourites"][0]["difference"]["value"] == pytest.approx(0.5)


def test_accuracy_is_compared_among_pictures_with_as_many_objects(ask):
    # The third place comes only with three objects, which are harder: that is no bias.
    cases = [ask(f"two{i}", i % 2, i % 2, BOXES[:2]) for i in range(40)]
    cases += [ask(f"three{i}", i % 3, i % 3 if i % 2 else (i + 1) % 3) for i in range(60)]
    order = position(cases, seed=0)["by_place"][2]
    assert [round(place["accuracy"]["value"], 2) for place in order["places"]] == [0.75, 0.75, 0.5]
    assert order["p"] > 0.5


def test_models_without_a_bias_show_a_sign_in_one_of_twenty(ask):
    """An unbiased model is right in half of the cases and errs evenly; the places are drawn anew each time."""
    signs, rng = 0, random.Random(5)
    for _ in range(60):
        cases = []
        for i in range(60):
            boxes = BOXES[: rng.choice((2, 3))]
            target = rng.randrange(len(boxes))
            others = [n for n in range(len(boxes)) if n != target]
            cases.append(ask(f"k{i}", target, target if rng.random() < 0.5 else rng.choice(others), boxes))
        signs += position(cases, seed=0)["verdict"].startswith("sign")
    assert signs <= 8  # binomial(60, 0.05) is more in 0.5%


def test_the_same_seed_says_the_same_and_nothing_at_all_is_no_error(ask, make_line):
    cases = [ask(f"k{i}", i % 3, i * 7 % 3) for i in range(30)]
    assert position(cases, seed=3) == position(cases, seed=3)
    assert position([], seed=0)["verdict"].startswith("not measurable")
    alone = position([Prediction.from_line(make_line(f"k{i}", objects=None), "t") for i in range(30)], seed=0)
    assert (alone["pointed"], alone["favourites"], alone["verdict"]) == (0, [], "no sign")
    # Of several true boxes it is the one that was found.
    either = Prediction.from_line(
        make_line(answer="(600,600),(900,900)", gt_bbox=[[100, 100, 400, 400], [600, 600, 900, 900]]), "t"
    )
    assert position([either], 0)["distance"] == 0
    beyond = Prediction.from_line(make_line(answer="", box=[-900, -900, -600, 2000], parser="anybody's"), "t")
    assert position([beyond], 0)["fields"][3] == {"field": "bottom left", "truth": 0, "answered": 1}
    nowhere = Prediction.from_line(make_line(answer="", box=[float("nan")] * 4, parser="anybody's"), "t")
    assert position([nowhere], 0)["answered"] == 0
    swapped = Prediction.from_line(make_line(answer="(900,900),(600,600)"), "t")  # its centre is where it is
    assert position([swapped], 0)["fields"][5] == {"field": "bottom right", "truth": 0, "answered": 1}
