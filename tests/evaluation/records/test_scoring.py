"""What each parser reads in an answer of each kind, and the verdict that follows."""

import json
import math
from pathlib import Path

import pytest

from kvg.errors import DataError
from kvg.evaluation.records.scoring import PARSERS, best_iou, score
from tests.text.parity.answer_kinds import overlap

BOX, LURE, NONE = (100, 200, 300, 400), (5, 5, 90, 90), (0, 0, 0, 0)
TRUTH = [[100, 200, 300, 400]]
SEEN = "<think>1 at (5,5),(90,90)</think>"
TABLE = [  # answer; box and pattern of published-v2, of published-v3, and of strict
    # read alike by all
    (SEEN + "<answer>(100,200),(300,400)</answer>", (BOX, 1), (BOX, 3), (BOX, 1)),
    ("(100, 200), (300, 400)", (BOX, 4), (BOX, 4), (BOX, 1)),
    ("[100, 200, 300, 400]", (BOX, 5), (BOX, 5), (BOX, 2)),
    ("(5,5),(90,90) or rather (100,200),(300,400)", (BOX, 3), (BOX, 3), (BOX, 1)),
    # the strict parser never takes a thought, or what was cut off, for an answer
    ("<think>The Merlin at (100,200),(300,400) seems", (BOX, 3), (BOX, 3), (None, 0)),
    ("<think>1 at (100,200),(300,400)</think><answer>I cannot find it.</answer>", (BOX, 3), (NONE, 0), (None, 0)),
    (SEEN + "<answer>(100,200),(300,", (LURE, 3), (LURE, 3), (None, 0)),
    (SEEN + "<answer>(100,200),(300,400)", (BOX, 3), (BOX, 3), (None, 0)),
    (SEEN + " (100,200),(300,400)", (BOX, 3), (BOX, 3), (None, 0)),
    ("<answer>(100,200),(300,400)</answer><answer>(5,5),(90,90)</answer>", (LURE, 1), (BOX, 3), (BOX, 1)),
    (SEEN + "\n<answer>\n[100, 200, 300, 400]\n</answer>", (LURE, 3), (LURE, 3), (BOX, 2)),
    (SEEN + '<answer>```json\n{"bbox_2d": [100, 200, 300, 400]}\n```</answer>', (LURE, 3), (BOX, 5), (BOX, 2)),
    # its box is four numbers that stand together, however they are spaced
    ("[100,200,300,400]", (NONE, 0), (NONE, 0), (BOX, 2)),
    ("(100,200,300,400)", (NONE, 0), (NONE, 0), (BOX, 2)),
    ("[[100,200,300,400]]", (NONE, 0), (BOX, 9), (BOX, 2)),
    ("Mk. II (1969, blue): [100, 200, 300, 400] (7, 8)", (NONE, 4), (NONE, 4), (BOX, 2)),
    ("(5,5) is left, (100,200),(300,400)", ((5, 200, 300, 400), 3), ((5, 200, 300, 400), 3), (BOX, 1)),
    ("(100, 200) and (300, 400)", (BOX, 4), (BOX, 4), (None, 0)),
    ("(100, 200)\n(300, 400)", (BOX, 8), (BOX, 8), (None, 0)),
    ("[x100, 200, 300, 400]", (BOX, 6), (BOX, 6), (None, 0)),
    ("(１００,２００),(３００,４００)", (BOX, 3), (BOX, 3), (None, 0)),
    # and they are on the grid as they stand
    ("[0.1, 0.2, 0.3, 0.4]", (BOX, 6), (BOX, 6), ((0.1, 0.2, 0.3, 0.4), 2)),
    ("(0,0),(1,1)", ((0, 0, 1000, 1000), 3), ((0, 0, 1000, 1000), 3), ((0, 0, 1, 1), 1)),
    ("(-5,200),(300,1400)", ((-5, 200, 300, 1400), 4), ((-5, 200, 300, 1400), 4), ((0, 200, 300, 1000), 1)),
]


@pytest.mark.parametrize(("answer", "second", "third", "strict"), TABLE)
def test_what_each_parser_reads(answer, second, third, strict):
    line = {"answer": answer, "gt_bbox": TRUTH}
    for parser, (box, pattern) in {"published-v2": second, "published-v3": third, "strict": strict}.items():
        found = score(line, "a line", parser)
        assert found.pattern == pattern, parser
        assert found.box == (box if box is None else pytest.approx(box)), parser
        assert found.iou == pytest.approx(overlap(list(box), TRUTH[0]) if box else 0.0), parser
        assert found.correct == (found.iou >= 0.5), parser


def test_how_often_the_strict_verdict_differs_on_600_answers():
    path = Path(__file__).parents[2] / "text" / "parity" / "published.jsonl"
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    counts = {2: [0, 0], 3: [0, 0]}  # right for the strict parser alone, for the published one alone
    for answer, truths, second, third in rows:
        strict = score({"answer": answer, "gt_bbox": truths}, "a line").correct
        for version, published in ((2, second[3]), (3, (third or second)[3])):
            counts[version][0] += strict and not published
            counts[version][1] += published and not strict
    assert counts == {2: [23, 79], 3: [21, 69]}


def test_the_best_of_several_true_boxes_counts_and_half_is_enough():
    line = {"answer": "(0,0),(500,500)", "gt_bbox": [[600, 600, 700, 700], [0, 0, 500, 1000]]}
    for parser in PARSERS:
        found = score(line, "a line", parser)
        assert (found.iou, found.correct) == (0.5, True)
        less = score({**line, "answer": "(0,0),(500,499)"}, "a line", parser)
        assert (less.iou, less.correct) == (pytest.approx(0.499), False)


def test_overlaps_are_of_single_precision():
    box, truth = (0.0, 0.0, 333.3, 333.3), (0.0, 0.0, 1000.0, 333.3)
    exact = 333.3 / 1000
    assert abs(best_iou(box, [truth]) - exact) < 1e-7
    assert best_iou(box, [truth]) != exact


@pytest.mark.parametrize(
    "answer", ["(nan, 2) (300, 400)", "(0, 0) (inf, inf)", "(0, 0) (9e400, 900)", "[-inf, 0, 9, 9]"]
)
def test_numbers_without_end_are_no_box(answer):
    found = score({"answer": answer, "gt_bbox": TRUTH}, "a line", "published-v2")
    assert found.pattern in (4, 6)
    assert (found.box, found.iou) == (NONE, 0.0)
    assert all(map(math.isfinite, found.box))


def test_published_parsers_know_nothing_of_pixels():
    line = {"answer": "[112, 56, 560, 560]", "gt_bbox": [[100, 100, 500, 1000]], "codec": "absolute"}
    line["size"] = [2000, 1000, 1120, 560]
    assert score(line, "a line").box == pytest.approx((100, 100, 500, 1000))
    assert score(line, "a line", "published-v3").box == (112, 56, 560, 560)


def test_choices_are_read_in_one_way_by_all():
    line = {"answer": "<answer>B</answer>", "options": ["Merlin", "Hobby"], "right": 1}
    assert {score(line, "a line", parser).chosen for parser in PARSERS} == {1}


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"box": [1, 2, 3]}, r"a line: box: \[1, 2, 3\] is not four numbers"),
        ({"box": [1, 2, 3, "4"]}, "a line: box: "),
        ({"box": [1, 2, 3, 4], "pattern": "third"}, "a line: pattern: 'third' must be a whole number"),
    ],
)
def test_what_another_parser_has_told_is_checked(told, message):
    line = {"answer": "(1,2),(3,4)", "gt_bbox": TRUTH, "parser": "theirs"}
    with pytest.raises(DataError, match=message):
        score({**line, **told}, "a line", None)
