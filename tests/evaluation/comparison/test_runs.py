"""Runs compared on the same cases: by hand, against the parts they are made of, and what is refused."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats

from kvg.errors import ConfigError, DataError
from kvg.evaluation.comparison.runs import BY_PICTURE, MCNEMAR, OVER_SEEDS, compare_runs
from kvg.evaluation.records.prediction import Prediction
from kvg.stats.paired import mcnemar, sign_flip
from kvg.stats.power import detectable_difference
from kvg.stats.seeds import combine, contrast


@pytest.fixture
def make_run(make_line):
    """A run from a text of verdicts, 1 right and 0 wrong; ``fields`` give values for all lines, or one a line."""

    def make(verdicts, **fields):
        cases = []
        for i, verdict in enumerate(verdicts):
            own = {name: value[i] if isinstance(value, list) else value for name, value in fields.items()}
            line = {**make_line(f"k{i}", verdict == "1", image=f"picture {i}"), **own}
            cases.append(
                Prediction.from_line({name: value for name, value in line.items() if value is not None}, "here")
            )
        return cases

    return make


def test_two_runs_by_hand(make_run):
    # 8 cases: 3 both, 3 only the second, 1 only the first, 1 none.
    found = compare_runs({"base": [make_run("11100010")], "sft": [make_run("11111100")]})
    assert (found.num_cases, found.num_left_out, found.runs) == (8, 0, {"base": 1, "sft": 1})
    base, sft = (row for row in found.accuracies if row["by"] == "all")
    assert (base["accuracy"]["value"], base["per_seed"], base["seed_sd"]) == (0.5, [0.5], None)
    assert (sft["accuracy"]["value"], sft["n"], sft["pictures"]) == (0.75, 8, 8)
    row = found.difference("base", "sft")
    assert row["difference"]["value"] == 0.25
    assert (row["only_after"], row["only_before"], row["test"]) == (3, 1, MCNEMAR)
    assert row["p_exact"] == pytest.approx(stats.binomtest(1, 4).pvalue)
    assert row["p"] == row["p_mcnemar"] == row["p_holm"] == pytest.approx(2 * 5 / 16 - 4 / 16)
    assert not row["significant"]
    assert row["detectable"] == pytest.approx(detectable_difference(8, 0.5))


def test_signs_are_those_of_the_later_run(make_run):
    worse = compare_runs({"a": [make_run("1" * 20)], "b": [make_run("0" * 20)]}).difference("a", "b")
    assert worse["difference"]["value"] == worse["difference"]["low"] == -1.0
    assert worse["difference"]["high"] == pytest.approx(1 - 2 * 0.025 ** (1 / 20))  # others might be won
    assert (worse["only_after"], worse["only_before"], worse["significant"]) == (0, 20, True)


def test_cases_of_one_picture_are_one_witness(make_run):
    # All 4 cases of the 3 pictures are won: McNemar sees 12 of 12, and yet there are 3 pictures only.
    pictures = [f"picture {i // 4}" for i in range(12)]
    runs = {"a": [make_run("0" * 12, image=pictures)], "b": [make_run("1" * 12, image=pictures)]}
    row = compare_runs(runs).difference("a", "b")
    assert (row["n"], row["pictures"], row["test"]) == (12, 3, BY_PICTURE)
    assert (row["p"], row["p_exact"]) == (pytest.approx(1 / 8), pytest.approx(1 / 4))
    assert row["p_mcnemar"] == pytest.approx(2**-12)
    assert not row["significant"]


def test_a_whole_comparison_agrees_with_its_parts(make_run):
    rng = np.random.default_rng(0)
    pictures = rng.integers(160, size=400)
    verdicts = rng.random((2, 400)) < np.array([[0.5], [0.62]])
    runs = {
        name: [make_run("".join("01"[int(v)] for v in row), image=[f"p{n}" for n in pictures])]
        for name, row in zip("ab", verdicts, strict=True)
    }
    row = compare_runs(runs, seed=3).difference("a", "b")
    steps = verdicts[1].astype(int) - verdicts[0]
    assert row["p"] == pytest.approx(sign_flip(np.bincount(pictures, steps)).p)
    assert row["p_mcnemar"] == mcnemar(int((steps > 0).sum()), int((steps < 0).sum())).p
    # The bootstrap over pictures is near the normal interval of a ratio.
    sums, sizes = np.bincount(pictures, steps - steps.mean()), len(np.unique(pictures))
    error = math.sqrt((sums**2).sum() * sizes / (sizes - 1)) / 400
    assert row["difference"]["low"] == pytest.approx(steps.mean() - 1.96 * error, abs=0.006)
    assert row["difference"]["high"] == pytest.approx(steps.mean() + 1.96 * error, abs=0.006)
    assert compare_runs(runs, seed=3) == compare_runs(runs, seed=3)
    assert compare_runs(runs, seed=4).difference("a", "b")["difference"] != row["difference"]


def test_groups_stand_in_order_and_category_means_weigh_categories_alike(make_run):
    categories = ["dog"] * 2 + ["bird"] * 6
    fields = {
        "category": categories,
        "split": ["unseen"] * 2 + ["seen"] * 6,
        "knowledge": ["unknown", "known"] * 3 + [None, None],
    }
    found = compare_runs({"a": [make_run("11000111", **fields)]}, by=("split", "category", "knowledge"))
    shown = {(row["by"], row["name"]): (row["n"], row["accuracy"]["value"]) for row in found.accuracies}
    assert shown == {
        ("all", "all"): (8, 5 / 8),
        ("split", "seen"): (6, 0.5),
        ("split", "unseen"): (2, 1.0),
        ("category", "bird"): (6, 0.5),
        ("category", "dog"): (2, 1.0),
        ("knowledge", "known"): (3, 2 / 3),
        ("knowledge", "unknown"): (3, 1 / 3),
        ("category mean", "all"): (8, 0.75),
    }
    order = ["all", "seen", "unseen", "bird", "dog", "known", "unknown", "all"]  # as in the paper, means last
    assert [name for _, name in shown] == order
    both = compare_runs({"a": [make_run("11000111", **fields)]}, by=("split and knowledge",)).accuracies
    assert [(row["name"], row["n"]) for row in both[1:]] == [
        ("seen, known", 2),
        ("seen, unknown", 2),
        ("unseen, known", 1),
        ("unseen, unknown", 1),
    ]


def test_sets_are_never_thrown_together(make_run):
    runs = {}
    for name, verdicts in (("a", "110"), ("b", "011")):
        clean, noisy = make_run(verdicts), make_run(verdicts[::-1], artifact="noise", strength=2)
        choices = make_run(
            "11", set="choice", key=["c0", "c1"], answer=["A", "B"], options=[["Merlin", "Hobby"]] * 2, right=0
        )
        runs[name] = [[*clean, *noisy, *choices]]
    rows = [row for row in compare_runs(runs).accuracies if row["by"] == "all" and row["run"] == "a"]
    told = [(row["set"], row["n"], row["accuracy"]["value"]) for row in rows]
    assert told == [("test", 3, pytest.approx(2 / 3)), ("test@noise-2", 3, pytest.approx(2 / 3)), ("choice", 2, 0.5)]


def test_disturbed_pictures_are_shared_as_they_were_before(make_run):
    clean = make_run("1100", image=["p", "p", "q", "q"])
    noisy = make_run("1100", image=["1", "2", "3", "4"], artifact="noise", strength=1)
    rows = compare_runs({"a": [[*clean, *noisy]]}).accuracies
    assert {(row["set"], row["pictures"]) for row in rows if row["by"] == "all"} == {("test", 2), ("test@noise-1", 2)}


def test_p_values_are_adjusted_within_a_grouping(make_run):
    runs = {
        "a": [make_run("0" * 12 + "1" * 8)],
        "b": [make_run("1" * 6 + "0" * 6 + "1" * 8)],
        "c": [make_run("1" * 20)],
    }
    rows = [row for row in compare_runs(runs, by=()).differences if row["by"] == "all"]
    raw = [mcnemar(6, 0).p, mcnemar(12, 0).p, mcnemar(6, 0).p]
    assert [(row["before"], row["after"]) for row in rows] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [row["p"] for row in rows] == pytest.approx(raw)
    assert [row["p_holm"] for row in rows] == pytest.approx([2 * raw[0], 3 * raw[1], 2 * raw[2]])
    # In categories and their means there are more to adjust for; those do not change what is said of all cases.
    parts = {name: [[*cases]] for name, (cases,) in runs.items()}
    again = [row["p_holm"] for row in compare_runs(parts).differences if row["by"] == "all"]
    assert again == [row["p_holm"] for row in rows]


def test_what_is_significant_alone_may_not_be_among_many(make_run):
    runs = {"a": [make_run("0" * 5)], "b": [make_run("1" * 5)], "c": [make_run("00001")]}
    rows = compare_runs(runs, by=()).differences
    assert rows[0]["p"] == pytest.approx(1 / 32)  # 5 of 5
    assert rows[0]["p"] <= 0.05 < rows[0]["p_holm"]
    assert not any(row["significant"] for row in rows)
    two = compare_runs({name: runs[name] for name in ("a", "b")}, by=())
    assert two.differences[0]["significant"]


def test_several_seeds_are_combined_and_differ_over_seeds(make_run):
    rng = np.random.default_rng(1)
    old, new = rng.random((3, 120)) < 0.4, rng.random((2, 120)) < 0.7
    pictures = [f"p{n // 2}" for n in range(120)]
    runs = {
        name: [make_run("".join("01"[int(v)] for v in row), image=pictures) for row in rows]
        for name, rows in (("old", old), ("new", new))
    }
    found = compare_runs(runs, by=())
    accuracy = found.accuracies[0]
    assert accuracy["per_seed"] == pytest.approx(old.mean(axis=1).tolist())
    assert accuracy["seed_sd"] == pytest.approx(np.std(old.mean(axis=1), ddof=1))
    assert (accuracy["accuracy"]["low"], accuracy["accuracy"]["high"]) == pytest.approx(
        combine(old, pictures).interval()
    )
    row, expected = found.difference("old", "new"), contrast(new, old, pictures)
    assert row["difference"]["value"] == pytest.approx(new.mean() - old.mean())
    assert (row["test"], row["p"]) == (OVER_SEEDS, pytest.approx(expected.p))
    assert row["detectable"] == pytest.approx(expected.detectable())
    assert (row["p_exact"], row["p_mcnemar"]) == (None, None)
    counts = [(a & ~b).sum() for a in new for b in old]  # over all pairs of seeds
    assert row["only_after"] == pytest.approx(np.mean(counts))
    assert any("few seeds: old (3), new (2)" in note for note in found.notes)


def test_a_handful_of_cases_is_not_significant_however_well_the_seeds_agree(make_run):
    row = compare_runs({"a": [make_run("0000")] * 3, "b": [make_run("1111")] * 3}).difference("a", "b")
    assert row["p"] == pytest.approx(1 / 16)  # 4 of 4
    assert not row["significant"]
    assert row["difference"]["low"] == pytest.approx(1 - 2 * (1 - 0.025 ** (1 / 4)))  # not 1
    assert row["difference"]["high"] == 1


def test_one_run_is_told_with_its_intervals_and_compared_with_none(make_run):
    found = compare_runs({"a": [make_run("1101")]})
    assert found.differences == []
    assert [row["accuracy"]["value"] for row in found.accuracies if row["by"] == "all"] == [0.75]
    assert json.loads(json.dumps(found.record()))["accuracies"] == found.accuracies
    with pytest.raises(KeyError, match="'a' and 'b'"):
        found.difference("a", "b")


def test_names_of_single_sets_do_not_matter_and_the_order_of_lines_neither(make_run):
    theirs = make_run("0110", set="kvg-bench")[::-1]
    row = compare_runs({"a": [make_run("0011")], "b": [theirs]}).difference("a", "b")
    assert (row["n"], row["only_after"], row["only_before"], row["set"]) == (4, 1, 1, "test")


def test_missing_cases_are_refused_or_left_out(make_run):
    whole, half = make_run("0011"), make_run("011")
    with pytest.raises(
        DataError, match=r"run 'b': cases: 1 of 4 cases are missing, first 'test/k3', which 'a' has.*--common"
    ):
        compare_runs({"a": [whole], "b": [half]})
    with pytest.raises(DataError, match="run 'a, run 2': cases: 1 of 4"):
        compare_runs({"a": [whole, half]})
    found = compare_runs({"a": [whole], "b": [half]}, common=True)
    assert (found.num_cases, found.num_left_out) == (3, 1)
    assert "1 cases are skipped because not all runs have them" in found.notes
    with pytest.raises(DataError, match="'a' and 'b': cases: share no case"):
        compare_runs({"a": [whole], "b": [make_run("01", key=["x", "y"])]}, common=True)


def test_other_truths_are_another_benchmark(make_run):
    moved = make_run("011", gt_bbox=[[[100, 100, 400, 400]], [[100, 100, 400, 401]], [[100, 100, 400, 400]]])
    with pytest.raises(DataError, match="run 'b', case 'test/k1': gt_bbox: differs from run 'a': not the same"):
        compare_runs({"a": [make_run("011")], "b": [moved]})
    rounded = make_run("011", gt_bbox=[[[100.001, 100, 400, 400]]] * 3)
    compare_runs({"a": [make_run("011")], "b": [rounded]})
    options = {"options": [["Merlin", "Hobby"]], "right": 0, "answer": "A"}
    asked = {name: [make_run("1", **{**options, "right": right})] for name, right in (("a", 0), ("b", 1))}
    with pytest.raises(DataError, match="run 'b', case 'test/k0': options: differs from"):
        compare_runs(asked)
    with pytest.raises(DataError, match="options: differs from"):
        compare_runs({"a": [make_run("1")], "b": asked["b"]})


def test_labels_that_differ_are_noted_and_the_first_is_taken(make_run):
    found = compare_runs({"a": [make_run("01", knowledge=[None, "known"])], "b": [make_run("01", knowledge="unknown")]})
    assert "runs differ in the knowledge of 1 cases; the value of the first run is used" in found.notes
    names = [(row["name"], row["n"]) for row in found.differences if row["by"] == "knowledge"]
    assert names == [("known", 1), ("unknown", 1)]


def test_lines_without_pictures_are_noted(make_run):
    found = compare_runs({"a": [make_run("01", image=None)]})
    assert any("the lines have no `image`" in note for note in found.notes)
    assert found.accuracies[0]["pictures"] == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"by": ("colour",)}, "by: 'colour' is not a grouping; choose from split, category"),
        ({"level": 1.0}, "level: 1 must lie between 0 and 1"),
        ({"runs": {}}, "runs: is empty"),
        ({"runs": {"a": []}}, r"runs\.a: has no run"),
    ],
)
def test_settings_that_cannot_be_are_refused(make_run, settings, message):
    with pytest.raises(ConfigError, match=message):
        compare_runs(**{"runs": {"a": [make_run("01")]}, **settings})
