"""The published evaluations, read again: 600 answers as they judge them, and any others as a literal reading does."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from kvg.evaluation.records.scoring import best_iou
from kvg.text.published_parsers import PATTERNS, read_published
from tests.text.parity.answer_kinds import LITERAL, answers, glued, slow_reading

PARITY = Path(__file__).parent / "parity"
LENGTH = 20_000  # characters, more than any model is allowed to write


def published() -> list:
    """Answer, true boxes, and box, pattern, IoU and verdict of both published evaluations.

    They computed these; version 3 is None where it says the same as version 2.
    """
    rows = [json.loads(line) for line in (PARITY / "published.jsonl").read_text("utf-8").splitlines()]
    return [(answer, truths, {2: second, 3: third or second}) for answer, truths, second, third in rows]


@pytest.mark.parametrize(("version", "num_correct"), [(2, 140), (3, 132)])
def test_the_published_verdicts_on_600_answers(version, num_correct):
    rows = published()
    found = []
    for answer, truths, said in rows:
        box, pattern = read_published(answer, version)
        overlap = best_iou(box, [tuple(truth) for truth in truths])
        expected_box, expected_pattern, expected_iou, expected_correct = said[version]
        assert (list(box), pattern) == (expected_box, expected_pattern), answer
        assert overlap == pytest.approx(expected_iou, abs=1e-6), answer
        assert (overlap >= 0.5) == expected_correct, answer
        found.append(overlap >= 0.5)
    assert (len(rows), sum(found)) == (600, num_correct)


def test_answers_are_read_as_by_the_literal_reading():
    hits: Counter[tuple[int, int]] = Counter()
    for answer, _ in answers(20_000, seed=1):
        for version in (2, 3):
            box, pattern = slow_reading(answer, version)
            found, found_pattern = read_published(answer, version)
            assert (list(found), found_pattern) == (box, pattern), (version, answer)
            hits[version, pattern] += 1
    # Every pattern has been tried often enough to be wrong. Version 3 cuts away the tags of the first one.
    assert min(hits[2, pattern] for pattern in range(9)) > 50
    assert min(hits[3, pattern] for pattern in (0, *range(2, 10))) > 50


def test_each_pattern_alone_has_the_matches_of_the_literal_one():
    hits: Counter[int] = Counter()
    for text in glued(10_000, seed=2):
        for number, (pattern, literal) in enumerate(zip(PATTERNS, LITERAL, strict=True), 1):
            matches = literal.findall(text)
            assert pattern(text) == (matches[-1] if matches else None), (number, text)
            hits[number] += bool(matches)
    assert min(hits[number] for number in range(1, 10)) > 50


@pytest.mark.parametrize(
    ("text", "second", "third"),
    [
        # the last match of the first pattern that hits, wherever other patterns hit
        ("(1,2),(3,4) (5,6),(7,8) [9, 9, 9, 9]", (5, 6, 7, 8, 3), (5, 6, 7, 8, 3)),
        ("So the answer is (1,2),(3,4) or (5,6),(7,8)", (1, 2, 3, 4, 2), (1, 2, 3, 4, 2)),
        # the first number is that of the first "(1,": an opening is never given up for a later one
        ("(1,2) is (30,40),(50,60)", (1, 40, 50, 60, 3), (1, 40, 50, 60, 3)),
        ("Mk. II (1969), at (10,20),(30,40)", (10, 20, 30, 40, 3), (10, 20, 30, 40, 3)),
        # a gap never crosses a line, but the eighth pattern may cross one right after its first pair
        ("(1,2\n),(3,4)", (0, 0, 0, 0, 0), (0, 0, 0, 0, 0)),
        ("(10, 20)\nto (30, 40)", (10, 20, 30, 40, 8), (10, 20, 30, 40, 8)),
        ("(10, 20) \n(30, 40)", (0, 0, 0, 0, 0), (0, 0, 0, 0, 0)),
        ("(1, 2)\n(3, 4)\n(5, 6)\n(7, 8)", (5, 6, 7, 8, 8), (5, 6, 7, 8, 8)),
        ("(1, 2)\n\n(3, 4)\n(5, 6)", (3, 4, 5, 6, 8), (3, 4, 5, 6, 8)),
        # four numbers that make less than 4 are shares, whole and negative ones, too
        ("(0,0),(1,1)", (0, 0, 1000, 1000, 3), (0, 0, 1000, 1000, 3)),
        ("(1,1),(1,1)", (1, 1, 1, 1, 3), (1, 1, 1, 1, 3)),
        ("(-900,0),(300,400)", (-900_000, 0, 300_000, 400_000, 4), (-900_000, 0, 300_000, 400_000, 4)),
        # what is no number makes zeros, and the pattern counts; the clean-up reaches the first number alone
        ("(,),(,)", (0, 0, 0, 0, 3), (0, 0, 0, 0, 3)),
        ("[x12, 5, 80, 90]", (12, 5, 80, 90, 6), (12, 5, 80, 90, 6)),
        ("[[[12.5, 5, 80, 90]", (12.5, 5, 80, 90, 6), (12.5, 5, 80, 90, 6)),
        ("(x12, y5) (80, 90)", (0, 0, 0, 0, 4), (0, 0, 0, 0, 4)),
        ("(１２,３４),(５６,７８)", (12, 34, 56, 78, 3), (12, 34, 56, 78, 3)),
        # lists without spaces are unknown, but for the pattern that version 3 has more
        ("[1,2,30,40]", (0, 0, 0, 0, 0), (0, 0, 0, 0, 0)),
        ("[[1,2,30,40]]", (0, 0, 0, 0, 0), (1, 2, 30, 40, 9)),
        # version 3 cuts out the first block that closes on its line, then the first block of JSON
        ("(1,2),(3,4)<answer>[5, 6, 7, 8]</answer>", (1, 2, 3, 4, 3), (5, 6, 7, 8, 5)),
        ("<answer>\n(5,6),(7,8)</answer> <answer>no</answer>", (5, 6, 7, 8, 3), (0, 0, 0, 0, 0)),
        ("<answer>a</answer><answer>(5,6),(7,8)</answer>", (5, 6, 7, 8, 1), (0, 0, 0, 0, 0)),
        ("(1,2),(3,4) ```json\n[5, 6,\n7, 8] [5, 6, 7, 9]```", (1, 2, 3, 4, 3), (5, 6, 7, 9, 5)),
        ("(1,2),(3,4) ```json [5, 6, 7, 8]", (1, 2, 3, 4, 3), (1, 2, 3, 4, 3)),  # which has to be closed
    ],
)
def test_rules_by_hand(text, second, third):
    for version, (*box, pattern) in ((2, second), (3, third)):
        assert read_published(text, version) == (tuple(box), pattern)


@pytest.mark.parametrize(
    "piece",
    [
        "(", "(1,", "(1, ", "(1,2, ", "(1,2),(", "(1,2),(3", "(1,2),(3,4)", "1", "1,", "),(", "1),(1", "(,),(",
        "(a,b)", "(a,b", "((((,", "[", "[1, ", "[1, 2, ", "[a, b, c, d ", "[[", "[[1,", "[[1,2,", "(1, 2, ",
        "(1, 2, 3, 4, ", "(1, 2)", "(1, 2)\n", "(1, 2)\n\n", "<answer>", "<answer>(1,", "<answer>(1,2),(3,4)",
        "<answer>\n", "So the answer is", "So the answer is (1,", "So the answer is (1,2),(3,4",
        "So the answer is (1,2),(3,4)", "```json", "```", ", ", "\n", "９", "x",
    ],
)  # fmt: skip
def test_answers_that_went_astray_are_read_quickly(piece):
    middle = (piece * LENGTH)[:LENGTH]
    for text in (middle, f"<answer>So the answer is (1,{middle}", f"{middle}]1),(2,3)</answer>"):
        for read in (*PATTERNS, lambda text: read_published(text, 2), lambda text: read_published(text, 3)):
            start = time.perf_counter()
            read(text)
            assert time.perf_counter() - start < 1.0


def test_there_are_two_versions():
    with pytest.raises(ValueError, match="version 4 is none of 2, 3"):
        read_published("(1,2),(3,4)", 4)


def test_the_generator_prints_new_answers_with_their_reading():
    command = [sys.executable, PARITY / "answer_kinds.py", "--num", "30", "--seed", "5"]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True)
    lines = [json.loads(line) for line in done.stdout.rstrip("\n").split("\n")]
    assert [line["answer"] for line in lines] == [answer for answer, _ in answers(30, seed=5)]
    for line in lines:
        for version in (2, 3):
            assert read_published(line["answer"], version)[1] == line[f"v{version}"]["pattern"]
