from __future__ import annotations

import pytest

from kvg.evaluation.figures.summary import summary
from kvg.evaluation.records.prediction import read_predictions


def test_figures_by_hand(write_lines, make_line):
    lines = [
        make_line("a", split="seen", knowledge="known"),  # right: IoU 1
        make_line("b", answer="(100,100),(400,250)", split="seen", knowledge="unknown"),  # the half of it: right
        make_line("c", right=False, split="unseen", category="heron"),
        make_line("d", answer="?", split="unseen", knowledge="unknown"),
    ]
    found = summary(read_predictions(write_lines(lines)))
    assert (found["iou_acc"], found["mean_iou"], found["unparsed"], found["n"]) == (0.5, 0.375, 0.25, 4.0)
    assert (found["iou_acc/seen"], found["mean_iou/seen"], found["n/seen"]) == (1.0, 0.75, 2.0)
    assert (found["iou_acc/unknown"], found["unparsed/unknown"]) == (0.5, 0.5)
    assert found["n/bird"] == 3.0
    assert (found["n/heron"], found["iou_acc/heron"]) == (1.0, 0.0)  # a category of one's own counts, too
    assert "choice_acc" not in found


def test_sets_and_disturbances_stand_apart(write_lines, make_line):
    choice = {"options": ["Merlin", "Hobby"], "gt_bbox": None, "objects": None, "target": None}
    lines = [
        make_line("a"),
        make_line("a", right=False, artifact="noise", strength=3),
        {**make_line("a", set="fgvr", answer="A", **choice), "right": 0},
        {**make_line("b", set="fgvr", answer="B", split="unseen", **choice), "right": 0},
    ]
    found = summary(read_predictions(write_lines(lines)))
    assert (found["test/iou_acc"], found["test/noise-3/iou_acc"]) == (1.0, 0.0)
    assert (found["fgvr/choice_acc"], found["fgvr/choice_acc/seen"], found["fgvr/n"]) == (0.5, 1.0, 2.0)
    assert "fgvr/iou_acc" not in found
    alone = summary(read_predictions(write_lines(lines[:2])))
    assert (alone["iou_acc"], alone["noise-3/iou_acc"]) == (1.0, 0.0)
    assert alone["n"] == pytest.approx(1)
