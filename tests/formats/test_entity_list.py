"""Lists of pictures and names: ordinary questions for a box, with or without a true box."""

from __future__ import annotations

import json
import logging

import pytest

from kvg.backbones.backbone import Backbone
from kvg.cli.kvg_data import main
from kvg.errors import DataError
from kvg.evaluation.figures.accuracy import figures
from kvg.evaluation.figures.summary import summary
from kvg.evaluation.records.prediction import read_predictions, with_truth
from kvg.evaluation.records.question import Question
from kvg.formats.stores import open_store
from kvg.formats.written_boxes import Reading
from kvg.shards.reader import Tally
from kvg.shards.schema import encode_record
from kvg.text.box_codec import ImageSize, RelativeCodec

RIGHT, WRONG = "(100,100),(400,400)", "(600,600),(900,900)"
TRUTH = [[100, 100, 400, 400]]


@pytest.fixture
def listed(tmp_path, scenes):
    """Writes a list of rows beside a picture of 140 x 140 pixels; returns its samples."""
    (tmp_path / "a.png").write_bytes(scenes(1)[0].image)

    def read(*rows, reading=None, tally=None):
        path = tmp_path / "pairs.jsonl"
        path.write_text("".join(json.dumps({"image": "a.png", **row}) + "\n" for row in rows))
        (part,) = open_store(path, reading=reading).parts()
        return [sample for _, sample in part.read(tally)]

    return read


def test_a_picture_and_a_name_ask_for_a_box(listed):
    (sample,) = listed({"entity": " Merlin "})
    assert (sample.entity, sample.options, sample.has_box, sample.category) == ("Merlin", (), False, "pairs")
    question = Question(sample, "test")
    assert question.turns("direct") == (
        "Find and give the bounding box of <|object_ref_start|>Merlin<|object_ref_end|>",
    )
    line = question.line(RIGHT, "direct", RelativeCodec(), ImageSize(140, 140, 140, 140))
    assert (line["gt_bbox"], line["box"], line["correct"]) == (None, [100, 100, 400, 400], False)
    assert "objects" not in line


def test_rows_with_options_still_ask_for_a_choice(listed):
    samples = listed({"entity": "Merlin", "options": ["Merlin", "Hobby"]}, {"entity": "Hobby"})
    assert [sorted(sample.options) for sample in samples] == [["Hobby", "Merlin"], ["Hobby", "Merlin"]]
    assert [sample.options != () for sample in listed({"label": "Merlin"}, {"label": "Hobby"})] == [True, True]


def test_a_box_needs_a_declared_unit(listed):
    row = {"entity": "Merlin", "bbox": [100, 200, 500, 1000]}
    tally = Tally(log_problems=False)
    assert listed(row, tally=tally) == []
    assert "bbox: may be in any unit; state box_unit" in tally.problems[0]
    given, none = listed(row, {"entity": "Hobby"}, reading=Reading("relative_1000"))
    assert (given.box_px, given.has_box) == ((14.0, 28.0, 70.0, 140.0), True)
    assert not none.has_box


def test_what_has_no_box_is_never_trained_on_or_written_to_shards(listed, tmp_path, capsys):
    (sample,) = listed({"entity": "Merlin"})
    with pytest.raises(DataError, match="bbox: is missing: `kvg predict` and `kvg ground` answer such a row"):
        encode_record(sample)
    with pytest.raises(DataError, match="bbox: is missing"):
        Backbone("tiny").processor.encode(sample, mode="direct", target=None)
    for form, name in (("shards", "set"), ("sharegpt", "a.json")):
        args = ["convert", "--in", str(tmp_path / "pairs.jsonl"), "--to", form, "--out", str(tmp_path / name)]
        assert main(args) == 2
        assert "bbox: is missing" in capsys.readouterr().err


@pytest.fixture
def run(tmp_path):
    """A file with one right and one wrong answer, and two without a true box."""
    answers = ((RIGHT, TRUTH), (WRONG, TRUTH), (RIGHT, None), ("no", None))
    lines = [{"key": str(n), "answer": answer, "gt_bbox": truth} for n, (answer, truth) in enumerate(answers)]
    path = tmp_path / "predictions.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_figures_leave_out_what_has_no_true_box_and_say_how_many(run, caplog, capsys):
    cases = read_predictions(run)
    assert [case.has_truth for case in cases] == [True, True, False, False]
    assert summary(cases) == {"iou_acc": 0.5, "mean_iou": 0.5, "unparsed": 0.25, "n": 4.0, "no_true_box": 2.0}
    assert [(one["n"], one["accuracy"]["value"]) for one in figures(cases, 0)] == [(2, 0.5)]
    with caplog.at_level(logging.WARNING):
        assert with_truth(cases, run) == cases[:2]
    assert "2 of 4 answers have no true box" in caplog.text
    assert main(["score", str(run)]) == 0
    printed = capsys.readouterr().out
    assert "answers without a true box" in printed
    with pytest.raises(DataError, match="gt_bbox: is null in all lines"):
        with_truth(cases[2:], run)
