"""Figures of small sets of answers, worked by hand."""

import json

import pytest

from kvg.evaluation.figures.accuracy import artifact_curves, choice_table, figures
from kvg.evaluation.figures.estimate import difference, mean_of_means, mean_over
from kvg.evaluation.records.prediction import Prediction
from kvg.stats.bootstrap import bootstrap_interval


@pytest.fixture
def make_case(make_line):
    def make(key="k0", right=True, **fields):
        return Prediction.from_line(make_line(key, right, **fields), "test")

    return make


def by_name(found):
    return {(figure["by"], figure["name"]): figure for figure in found}


def test_groups_by_hand(make_case):
    cases = [make_case(f"a{i}", right=i < 3) for i in range(4)]  # bird, seen, known: 3 of 4
    cases += [make_case(f"b{i}", right=i < 1, category="car", knowledge="unknown") for i in range(2)]  # 1 of 2
    cases += [make_case("c0", right=False, category="dog", split="unseen")]
    cases += [make_case("d0", answer="no idea", category="zebra", split="unseen", knowledge=None)]
    found = by_name(figures(cases, seed=0))
    counts = {name: (figure["n"], figure["accuracy"]["value"]) for name, figure in found.items()}
    assert counts == {
        ("all", "all"): (8, 0.5),
        ("split", "seen"): (6, pytest.approx(4 / 6)),
        ("split", "unseen"): (2, 0),
        ("category", "car"): (2, 0.5),  # the paper's order, then the others
        ("category", "bird"): (4, 0.75),
        ("category", "dog"): (1, 0),
        ("category", "zebra"): (1, 0),
        ("knowledge", "known"): (5, 0.6),
        ("knowledge", "unknown"): (2, 0.5),
        ("split and knowledge", "seen, known"): (4, 0.75),
        ("split and knowledge", "seen, unknown"): (2, 0.5),
        ("split and knowledge", "unseen, known"): (1, 0),
    }
    assert list(counts)[3:7] == [("category", name) for name in ("car", "bird", "dog", "zebra")]
    assert found["all", "all"]["category_mean"]["value"] == pytest.approx((0.75 + 0.5 + 0 + 0) / 4)
    assert found["split", "seen"]["category_mean"]["value"] == pytest.approx((0.75 + 0.5) / 2)
    assert found["category", "car"]["category_mean"] is None
    assert found["all", "all"]["unparsed"]["value"] == 1 / 8
    assert found["all", "all"]["mean_iou"]["value"] == 0.5  # a hit is exact, a miss does not touch
    json.dumps(list(found.values()))


def test_every_interval_is_the_bootstrap_s_own(make_case):
    cases = [make_case(f"k{i}", right=i % 3 > 0, image=f"p{i // 2}") for i in range(30)]
    figure = by_name(figures(cases, seed=5))["all", "all"]
    hits = [float(i % 3 > 0) for i in range(30)]
    expected = bootstrap_interval(hits, 5, clusters=[i // 2 for i in range(30)], bounds=(0, 1))
    assert (figure["accuracy"]["low"], figure["accuracy"]["high"]) == expected
    assert figure["pictures"] == 15
    assert figures(cases, seed=5) == figures(cases, seed=5)
    # Where all are right others may still be wrong: 1 - 0.025 ** (1 / 15) of them.
    sure = by_name(figures([make_case(f"k{i}", image=f"p{i // 2}") for i in range(30)], seed=0))["all", "all"]
    assert sure["accuracy"]["low"] == pytest.approx(0.025 ** (1 / 15))


def test_a_box_of_zeros_is_none_where_a_published_parser_says_so(make_case):
    found = {"parser": "published-v2", "pattern": 0, "box": [0, 0, 0, 0]}
    cases = [make_case("a", **found), make_case("b", **{**found, "pattern": 3}), make_case("c")]
    assert by_name(figures(cases, 0))["all", "all"]["unparsed"]["value"] == pytest.approx(1 / 3)


def test_length_is_told_where_it_is_known(make_case):
    assert by_name(figures([make_case()], 0))["all", "all"]["mean_tokens"] is None
    cases = [make_case("a", num_tokens=10), make_case("b", num_tokens=30), make_case("c")]
    assert by_name(figures(cases, 0))["all", "all"]["mean_tokens"]["value"] == 20
    assert by_name(figures(cases, 0))["all", "all"]["mean_tokens"]["n"] == 2


def test_levels_sets_and_exposures(make_case):
    cases = [
        make_case("a", knowledge=None),
        make_case("b", knowledge=None, entity="Hobby", right=False),
        make_case("c", knowledge=None, entity="Kite", set="other"),
    ]
    levels = {"Merlin": "mostly correct", "Hobby": "completely incorrect"}
    found = by_name(figures(cases, 0, levels, {"test/a": "texts only", "test/b": "novel", "other/c": "novel"}))
    told = {name: (figure["n"], figure["accuracy"]["value"]) for name, figure in found.items()}
    assert told["level", "mostly correct"] == told["knowledge", "known"] == (1, 1)
    assert told["level", "completely incorrect"] == told["knowledge", "unknown"] == (1, 0)
    assert told["set", "test"] == (2, 0.5)
    assert told["set", "other"] == (1, 1)
    assert told["exposure", "texts only"] == (1, 1)
    assert told["exposure", "novel"] == (2, 0.5)
    assert not [name for name in told if name[0] == "set"][2:]
    assert [name for name in told if name[0] == "level"] == [
        ("level", "mostly correct"),
        ("level", "completely incorrect"),
    ]


def choice(make_line, key, right, set_name, options=4):
    line = make_line(key, set=set_name, answer="A" if right else "B", gt_bbox=None, objects=None)
    return Prediction.from_line({**line, "options": [f"name {i}" for i in range(options)], "right": 0}, "test")


def test_the_table_of_choices_has_a_column_a_set_and_their_average(make_case, make_line):
    cases = [choice(make_line, f"d{i}", i < 3, "dog") for i in range(4)]  # 3 of 4
    cases += [choice(make_line, f"b{i}", False, "bird", options=2) for i in range(2)]  # 0 of 2
    cases += [make_case("box", right=False)]  # no question of several choices
    table = choice_table(cases, seed=0)
    assert [(s["name"], s["n"], s["accuracy"]["value"], s["chance"]) for s in table["sets"]] == [
        ("dog", 4, 0.75, 0.25),
        ("bird", 2, 0, 0.5),
    ]
    assert table["average"]["value"] == 0.375
    assert table["all"]["value"] == 0.5
    assert choice_table([make_case()], 0) is None
    assert choice_table(cases[:4], 0)["average"] is None
    assert by_name(figures(cases, 0))["all", "all"]["n"] == 1  # figures are of boxes


def test_artifact_curves_begin_at_the_same_questions_undisturbed(make_case):
    clean = [make_case("a"), make_case("b"), make_case("c"), make_case("never disturbed", right=False)]
    disturbed = [
        make_case(key, right=right, artifact="blur", strength=strength)
        for strength, rights in ((1, (True, True, False)), (5, (False, False, False)))
        for key, right in zip("abc", rights, strict=True)
    ]
    curves = artifact_curves([*clean, *disturbed, make_case("z", artifact="noise", strength=2)], seed=0)
    assert [curve["artifact"] for curve in curves] == ["blur", "noise"]
    points = [
        (p["strength"], p["accuracy"]["value"], p["change"] and p["change"]["value"]) for p in curves[0]["points"]
    ]
    assert points == [(0, 1, None), (1, pytest.approx(2 / 3), pytest.approx(-1 / 3)), (5, 0, -1)]
    assert [(p["strength"], p["change"]) for p in curves[1]["points"]] == [(2, None)]  # nothing to compare with
    assert by_name(figures([*clean, *disturbed], 0))["all", "all"]["n"] == 4


def test_a_difference_of_two_groups_is_found_as_wide_as_theory_says(make_case):
    first = [make_case(f"a{i}", right=i < 60) for i in range(100)]
    second = [make_case(f"b{i}", right=i < 40) for i in range(100)]
    one, two = (mean_over(cases, lambda case: case.correct, 0) for cases in (first, second))
    found = difference(one, two)
    half = 1.96 * (2 * 0.6 * 0.4 / 100) ** 0.5  # of two independent binomials: 13.6 points
    assert found["value"] == pytest.approx(0.2)
    assert (found["low"], found["high"]) == (pytest.approx(0.2 - half, abs=0.015), pytest.approx(0.2 + half, abs=0.015))


def test_a_mean_of_means_needs_a_name_for_every_part(make_case):
    cases = [make_case("a", category="car"), make_case("b", category=None)]
    assert mean_of_means(cases, lambda case: case.correct, lambda case: case.category, 0) is None
    with pytest.raises(ValueError, match="at least one"):
        mean_over([], lambda case: case.correct, 0)
