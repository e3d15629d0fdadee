from __future__ import annotations

import pytest

from kvg.errors import ConfigError, DataError
from kvg.evaluation.comparison.matching import BOTH
from kvg.report.naming import looks
from kvg.report.pair_section import findings_of, pair_section
from kvg.report.pairs import compare_pairs, difference_of, pairs_of


@pytest.fixture
def made(make_case):
    """40 cases: the first run is right on 10, the second on 30 (all of the first's), the third on other 10."""

    def cases(rights):
        groups = [("seen", "known"), ("seen", "unknown"), ("unseen", "known"), ("unseen", "unknown")]
        return [
            make_case(f"k{n}", right=n in rights, split=groups[n % 4][0], knowledge=groups[n % 4][1]) for n in range(40)
        ]

    return {"a": cases(range(10)), "b": cases(range(30)), "c": cases(range(30, 40))}


def test_pairs_that_are_asked_for():
    runs = ["a", "b", "x:y"]
    assert pairs_of(["b:a", "a:x:y", "b:a"], runs) == [("b", "a"), ("a", "x:y")]
    for wrong in ("a", "a:z", "a:a", ":b"):
        with pytest.raises(ConfigError, match=r"--pairs: '.*' is not BEFORE:AFTER with two of the runs a, b, x:y"):
            pairs_of([wrong], runs)


def test_differences_by_hand(made):
    found, notes = compare_pairs(made, [("a", "b"), ("b", "c")], seed=0, named=True)
    assert notes == []
    row = difference_of(found[0])
    assert (row["difference"]["value"], row["only_after"], row["only_before"]) == (0.5, 20, 0)
    # 20 of 20 to one side: the mid-p is 2 * 2**-20 - 2**-20, the exact one 2 * 2**-20.
    assert row["p"] == pytest.approx(2**-20)
    assert row["p_exact"] == pytest.approx(2**-19)
    back = difference_of(found[1])
    assert back["difference"]["value"] == pytest.approx(-0.5)
    assert (back["only_after"], back["only_before"]) == (10, 30)
    # The three pairs of these runs on all cases are one family, though two are shown: the smallest p-value counts three
    # times, the next one twice.
    assert row["p_holm"] == pytest.approx(3 * 2**-20)
    assert back["p_holm"] == pytest.approx(2 * back["p"])
    assert [r["name"] for r in found[0]["differences"] if r["by"] == BOTH] == [
        "seen, known", "seen, unknown", "unseen, known", "unseen, unknown",
    ]  # fmt: skip
    both = difference_of(found[0], BOTH, "seen, known")
    assert (both["n"], both["difference"]["value"]) == (10, 0.5)  # 0, 4, 8 of the first; 0, 4, .. 28 of the second


def test_a_pair_has_one_p_value_whichever_pairs_are_shown_and_whichever_run_comes_first(made):
    (shown_first, _), _ = compare_pairs(made, [("a", "b"), ("b", "c")], seed=0, named=True)
    (turned,), _ = compare_pairs(made, [("b", "a")], seed=0, named=True)
    for row, back in zip(shown_first["differences"], turned["differences"], strict=True):
        assert (back["before"], back["after"], back["name"]) == ("b", "a", row["name"])
        assert (back["p"], back["p_holm"], back["significant"]) == (row["p"], row["p_holm"], row["significant"])
        assert (back["only_after"], back["only_before"]) == (row["only_before"], row["only_after"])
        assert back["difference"]["value"] == -row["difference"]["value"]
        assert (back["difference"]["low"], back["difference"]["high"]) == (
            -row["difference"]["high"],
            -row["difference"]["low"],
        )


def test_pairs_of_runs_that_hold_different_cases_are_one_family_too(made):
    # Without the last ten cases of "c", it is right on none: 10 of 10 against "a" and 30 of 30 against "b".
    runs = {"a": made["a"], "b": made["b"], "c": made["c"][:30]}
    found, _ = compare_pairs(runs, [("c", "a")], seed=0, named=True)
    row = difference_of(found[0])
    assert (found[0]["num_cases"], found[0]["num_left_out"], row["only_after"]) == (30, 10, 10)
    assert row["p"] == pytest.approx(2**-10)
    assert row["p_holm"] == pytest.approx(2**-10)  # the largest of three: 2**-10, 2**-20 and 2**-30


def test_a_pair_that_cannot_be_compared_and_is_not_shown_harms_no_other(made, make_case):
    other = [make_case("k0", gt_bbox=[[1, 1, 500, 500]])]
    found, _ = compare_pairs({**made, "other": other}, [("a", "b")], seed=0, named=True)
    assert difference_of(found[0])["p_holm"] == pytest.approx(3 * 2**-20)  # of a, b and c


def test_cases_that_only_one_run_has_are_left_out_and_told(made):
    found, _ = compare_pairs({"a": made["a"][:30], "b": made["b"]}, [("a", "b")], seed=0, named=False)
    assert (found[0]["num_cases"], found[0]["num_left_out"]) == (30, 10)
    section = pair_section(found, [], looks(["a", "b"]))
    assert "10 cases are skipped because not all runs have them" in section.note


def test_runs_without_a_common_case(made, make_case):
    runs = {"a": made["a"], "b": [make_case("other")]}
    found, notes = compare_pairs(runs, [("a", "b")], seed=0, named=False)
    assert found == []
    assert notes == ["a and b share no case; this pair is skipped"]
    with pytest.raises(DataError, match="share no case"):
        compare_pairs(runs, [("a", "b")], seed=0, named=True)


def test_other_truths_are_never_passed_over(made, make_case):
    runs = {"a": [make_case("k0")], "b": [make_case("k0", gt_bbox=[[1, 1, 500, 500]])]}
    with pytest.raises(DataError, match="gt_bbox"):
        compare_pairs(runs, [("a", "b")], seed=0, named=False)


def test_the_card_says_what_could_have_been_seen(made):
    look = looks(["a", "b", "c"])
    found, _ = compare_pairs(made, [("a", "b"), ("a", "c")], seed=0, named=True)
    first, second = findings_of(found, {}, look)
    assert (first.kind, first.value, first.unit) == ("up", "+50.0", "points")
    assert first.texts[0] == "b over a, all cases"
    # Ten against ten, mid-p 1 - C(20, 10) / 2**21: no difference, of which 40 cases could only have seen a large one.
    assert (second.kind, second.value) == ("even", "+0.0")
    assert "not significant (p = 0.91, n = 40)" in second.texts[1]
    row = difference_of(found[1])
    assert f"minimum detectable difference {100 * row['detectable']:.1f} points" in second.texts[1]


def test_the_stages_are_asked_their_own_questions(made):
    runs = {"direct_sft": made["a"], "cot_sft": made["b"]}
    found, _ = compare_pairs(runs, pairs_of([], list(runs)), seed=0, named=False)
    cards = " ".join(text for card in findings_of(found, {}, looks(runs)) for text in card.texts)
    assert "Do rationales help?" in cards
    assert "n = 10" in cards  # known entities of unseen categories
