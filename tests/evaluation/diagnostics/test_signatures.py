"""Reasoning against box, collapse and the knowledge gap, on answers made by hand."""

import inspect
import json

import pytest

from callbacks.collapse import CollapseGuard
from kvg.evaluation.diagnostics.collapse import curve_signs, lengths
from kvg.evaluation.diagnostics.reasoning_box import reasoning_tables
from kvg.evaluation.diagnostics.signatures import signatures, verdicts
from kvg.evaluation.figures.gap import knowledge_gaps
from kvg.evaluation.records.prediction import Prediction
from kvg.stats.bootstrap import bootstrap_interval

A, B = "(100,100),(400,400)", "(600,600),(900,900)"


@pytest.fixture
def thinks(make_line):
    """An answer that reasons towards A (right), B or nothing, and boxes A or B."""

    def make(key, pointed, boxed, plan="", **fields):
        rationale = f"{plan} The Merlin is at {pointed}." if pointed else f"{plan} A bird."
        return Prediction.from_line(
            make_line(key, answer=f"<think>{rationale}</think><answer>{boxed}</answer>", **fields), "test"
        )

    return make


def test_reasoning_against_box_by_hand(thinks, make_line):
    answers = [(A, A)] * 6 + [(A, B)] * 2 + [(B, A)] * 3 + [(B, B)] * 4 + [("", A)] * 5
    cases = [thinks(f"k{i}", *answer) for i, answer in enumerate(answers)]
    cases += [thinks("u0", A, A, split="unseen"), Prediction.from_line(make_line("plain"), "test")]
    tables = {(table["by"], table["group"]): table for table in reasoning_tables(cases, seed=0)}
    assert list(tables) == [("boxes", "all"), ("boxes", "seen"), ("boxes", "unseen")]
    seen = tables["boxes", "seen"]
    assert (seen["n"], seen["untold"], seen["unnamed"]) == (20, 5, 5)
    counts = (seen["right_right"], seen["right_wrong"], seen["wrong_right"], seen["wrong_wrong"])
    assert counts == (6, 2, 3, 4)
    assert seen["box_if_right"]["value"] == pytest.approx(6 / 8)
    assert seen["box_if_wrong"]["value"] == pytest.approx(3 / 7)
    assert seen["gain"]["value"] == pytest.approx(6 / 8 - 3 / 7)
    assert seen["lucky"]["value"] == pytest.approx(3 / 9)  # of nine right boxes whose reasoning can be told
    assert seen["wasted"]["value"] == pytest.approx(2 / 8)
    assert (seen["left"]["n"], seen["left"]["value"]) == (15, pytest.approx(5 / 15))  # (A, B) and (B, A)
    expected = bootstrap_interval([0.0] * 6 + [1.0] * 3, 0, bounds=(0, 1))
    assert (seen["lucky"]["low"], seen["lucky"]["high"]) == pytest.approx(expected)
    assert tables["boxes", "all"]["n"] == 21
    assert tables["boxes", "unseen"]["right_right"] == 1


def test_the_cards_judge_reasoning_exactly_in_the_lab(thinks):
    objects = [
        {"entity": "Merlin", "box": [100, 100, 400, 400], "note": "grey, plain"},
        {"entity": "Hobby", "box": [600, 600, 900, 900], "note": "red, spots"},
    ]
    knows, errs = "Plan: the Merlin is grey, plain.", "Plan: the Merlin is red, spots."
    answers = [(A, A, knows), (A, B, knows), (B, A, errs), (B, B, errs), (B, B, errs)]
    cases = [thinks(f"k{i}", *answer, objects=objects) for i, answer in enumerate(answers)]
    table = next(t for t in reasoning_tables(cases, 0) if (t["by"], t["group"]) == ("cards", "all"))
    counts = (table["right_right"], table["right_wrong"], table["wrong_right"], table["wrong_wrong"])
    assert counts == (1, 1, 1, 2)
    assert table["left"]["value"] == pytest.approx(2 / 5)  # grey but red boxed, red but grey boxed


def test_verdicts_say_what_is_wrong_only_where_the_interval_says_so(thinks):
    def verdict(num_lucky, num_right):
        answers = [(A, A)] * num_right + [(B, A)] * num_lucky + [(B, B)] * 60
        cases = [thinks(f"k{i}", *answer) for i, answer in enumerate(answers)]
        return reasoning_tables(cases, 0)[0]["verdict"]

    assert verdict(0, 100) == "no sign"
    assert verdict(4, 96) == "no sign"  # 4%, the interval begins below 5%
    lucky = verdict(30, 70)
    assert lucky.startswith("sign: 30.0% (")
    assert "of the correct boxes follow wrong reasoning" in lucky
    cases = [thinks(f"k{i}", "", A) for i in range(3)]
    assert reasoning_tables(cases, 0)[0]["verdict"] == "not measurable: of 3 rationales 0 can be judged, fewer than 20"
    useless = [thinks(f"k{i}", *answer) for i, answer in enumerate([(A, A), (A, B), (B, A), (B, B)] * 25)]
    assert "correct reasoning does not improve the box: +0.0 points" in reasoning_tables(useless, 0)[0]["verdict"]
    assert reasoning_tables([], 0) == []


def curve(first, last, num=100):
    return [(step, first + (last - first) * step / (num - 1)) for step in range(num)]


def test_the_bounds_of_collapse_are_those_of_the_callback():
    from kvg.evaluation.diagnostics import collapse

    bounds = {name: p.default for name, p in inspect.signature(CollapseGuard.__init__).parameters.items()}
    assert bounds["steps"] == collapse.STEPS
    assert bounds["min_length_share"] == collapse.MIN_LENGTH_SHARE
    assert bounds["min_entropy"] == collapse.MIN_ENTROPY
    assert bounds["min_reward_std"] == collapse.MIN_REWARD_STD
    assert bounds["max_unparsed"] == collapse.MAX_UNPARSED


@pytest.mark.parametrize(
    ("tag", "healthy", "collapsed", "words"),
    [
        ("train/completion_length", (100, 70), (100, 20), "answers shrank from 92 to 28 tokens"),
        ("train/entropy", (0.5, 0.1), (0.5, -0.052), "all answers are nearly equal"),
        ("train/reward_std_in_group", (0.4, 0.2), (0.4, -0.04), "no gradient"),
        ("train/unparsed", (0.6, 0.1), (0.0, 0.9), "of the answers hold no box, 9% at first"),
    ],
)
def test_collapse_by_hand(tag, healthy, collapsed, words):
    (fine,) = curve_signs({tag: curve(*healthy)}, seed=0)
    assert (fine["tag"], fine["n"], fine["verdict"]) == (tag, 100, "no sign")
    (sign,) = curve_signs({tag: curve(*collapsed)}, seed=0)
    assert sign["verdict"].startswith("sign: ")
    assert words in sign["verdict"]
    # The mean of the first and of the last 20 of 100 even steps.
    first, last = collapsed
    assert sign["first"]["value"] == pytest.approx(first + (last - first) * 9.5 / 99)
    assert sign["last"]["value"] == pytest.approx(last - (last - first) * 9.5 / 99)
    assert sign["first"]["low"] < sign["first"]["value"] < sign["first"]["high"]


def test_short_and_missing_curves():
    assert curve_signs({}, 0) == []
    assert curve_signs({"train/entropy": [(0, 1.0)]}, 0) == []
    (sign,) = curve_signs({"train/entropy": [(0, 1.0), (1, float("nan")), (2, 0.0)], "train/loss": curve(1, 2)}, 0)
    assert (sign["n"], sign["first"]["value"], sign["last"]["value"]) == (2, 1, 0)


def test_lengths_of_right_and_wrong_answers_and_what_was_cut_off(make_line):
    def answer(key, right, num, ended):
        return Prediction.from_line(make_line(key, right, num_tokens=num, finish_reason=ended), "test")

    cases = [answer(f"r{i}", True, 10 + i, "stop") for i in range(3)]  # 10, 11, 12
    cases += [answer(f"w{i}", False, 40, "length") for i in range(2)]
    cases += [Prediction.from_line(make_line("untold"), "test")]
    found = lengths(cases, seed=0)
    assert (found["n"], found["right"]["value"], found["wrong"]["value"]) == (5, 11, 40)
    assert found["difference"]["value"] == -29
    assert (found["cut_off"]["n"], found["cut_off"]["value"]) == (5, 0.4)
    many = lengths([answer(f"k{i}", i % 2, 9, "length" if i < 20 else "stop") for i in range(100)], 0)
    assert many["verdict"].startswith("sign: 20.0% (")
    assert lengths([answer(f"k{i}", i % 2, 9, "stop") for i in range(100)], 0)["verdict"] == "no sign"
    assert lengths(cases[-1:], 0)["verdict"].startswith("not measurable")


def test_the_knowledge_gap_within_seen_and_unseen(make_line):
    def answers(knowledge, split, num_right, num, entity="Merlin"):
        return [
            Prediction.from_line(
                make_line(f"{knowledge}{split}{i}", i < num_right, knowledge=knowledge, split=split, entity=entity), "t"
            )
            for i in range(num)
        ]

    cases = answers("known", "seen", 90, 100) + answers("unknown", "seen", 60, 100)
    cases += answers("known", "unseen", 5, 10) + answers(None, "unseen", 5, 10, entity="Hobby")
    every, seen, unseen = knowledge_gaps(cases, seed=0)
    assert (every["group"], every["n"], every["untold"]) == ("all", 220, 10)
    assert every["known"]["value"] == pytest.approx(95 / 110)
    assert seen["gap"]["value"] == pytest.approx(0.3)
    half = 1.96 * (0.9 * 0.1 / 100 + 0.6 * 0.4 / 100) ** 0.5  # of two independent binomials
    assert (seen["gap"]["low"], seen["gap"]["high"]) == (
        pytest.approx(0.3 - half, abs=0.015),
        pytest.approx(0.3 + half, abs=0.015),
    )
    assert seen["verdict"].startswith("sign: accuracy is higher for known entities, by +30.0 points (")
    assert (unseen["gap"], unseen["unknown"]) == (None, None)
    assert unseen["verdict"] == "not measurable: needs both known and unknown entities"
    joined = knowledge_gaps(cases, 0, {"Hobby": "completely incorrect"})[2]
    assert (joined["untold"], joined["gap"]["value"]) == (0, 0)
    assert joined["verdict"].startswith("no sign: +0.0 points")
    assert knowledge_gaps([], 0) == []


def test_all_signatures_go_into_json_and_say_their_verdicts(thinks, make_line):
    cases = [thinks(f"k{i}", A if i % 3 else B, A if i % 4 else B) for i in range(40)]
    cases.append(Prediction.from_line(make_line("blurred", artifact="blur", strength=3), "test"))
    found = signatures(cases, 0, {"Hobby": "mostly correct"}, {"train/entropy": curve(0.5, 0.4)})
    assert json.loads(json.dumps(found)) == found
    said = verdicts(found)
    assert list(said) == [
        "reasoning by boxes", "train/entropy", "length of answers", "answers without a box", "known and unknown",
        "position", "confusion",
    ]  # fmt: skip
    assert all(verdict.startswith(("no sign", "sign: ", "not measurable: ")) for verdict in said.values())
    assert found["confusion"]["n"] == found["position"]["n"] == 40  # without the disturbed picture
    json.dumps(signatures([], 0))


@pytest.mark.parametrize(("num_right", "measurable"), [(0, False), (9, False), (10, True)])
def test_a_model_that_is_nearly_always_wrong_has_no_verdict_without_a_sign(make_line, num_right, measurable):
    """Of 200 answers: from ten right ones on, 5%, patterns in them can show."""
    lines = [
        make_line(f"k{i}", i < num_right, knowledge="known" if i % 2 else "unknown", split="seen") for i in range(200)
    ]
    found = verdicts(signatures([Prediction.from_line(line, "test") for line in lines], 0))
    expected = "no sign" if measurable else f"not measurable: only {num_right} of 200 answers are right"
    assert found["known and unknown"].startswith(expected)
    assert found["answers without a box"] == "no sign"


def test_answers_without_a_box_are_a_sign(make_line):
    def found(num):
        lines = [make_line(f"k{i}", answer="none" if i < num else A) for i in range(200)]
        return verdicts(signatures([Prediction.from_line(line, "test") for line in lines], 0))

    assert found(0)["answers without a box"] == "no sign"
    assert found(12)["answers without a box"] == "no sign"  # 6%, the interval begins below 5%
    assert found(170)["answers without a box"].startswith("sign: 85.0% (80.0 to 90.0) of the answers hold no box")
    assert found(190)["confusion"] == "not measurable: only 10 of 200 answers have a box"
