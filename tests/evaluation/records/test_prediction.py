"""Lines of answers: what is read from them, and what is refused by line and field."""

import json

import pytest

from kvg.errors import DataError
from kvg.evaluation.records.prediction import read_predictions


def test_needs_no_more_than_answer_and_truth(write_lines):
    path = write_lines(
        [{"answer": "(0,0),(500,1000)", "gt_bbox": [[0, 0, 1000, 1000]]}, {"answer": "no", "gt_bbox": [[0, 0, 9, 9]]}]
    )
    half, missed = read_predictions(path)
    assert (half.key, half.box, half.iou, half.correct) == ("line 1", (0, 0, 500, 1000), 0.5, True)
    assert (missed.key, missed.box, missed.iou, missed.correct, missed.answered) == ("line 2", None, 0.0, False, False)


def test_absolute_boxes_are_read_by_the_size_of_the_resized_picture(write_lines):
    # 1120 x 560 pixels seen by the model: (112, 56, 560, 560) is 100, 100, 500, 1000 on the grid.
    line = {"answer": '{"bbox_2d": [112, 56, 560, 560]}', "gt_bbox": [[100, 100, 500, 1000]], "codec": "absolute"}
    (case,) = read_predictions(write_lines([{**line, "size": [2000, 1000, 1120, 560]}]))
    assert case.box == pytest.approx((100, 100, 500, 1000))
    with pytest.raises(DataError, match=r"line 1: size: None must be \[width"):
        read_predictions(write_lines([line]))


def test_choices_are_judged_by_their_letter(write_lines):
    line = {"answer": "<think>b or c</think><answer>B</answer>", "options": ["Merlin", "Hobby"], "right": 1}
    right, wrong, silent = read_predictions(
        write_lines([{**line, "key": k, "answer": a} for k, a in (("a", line["answer"]), ("b", "A."), ("c", "Hm"))])
    )
    assert [right.correct, wrong.correct, silent.correct] == [True, False, False]
    assert [right.answered, wrong.answered, silent.answered] == [True, True, False]


def test_a_box_that_another_parser_has_read_stays(write_lines, make_line):
    told = make_line(right=False, parser="published-v2", box=[100, 100, 400, 400], pattern=3)
    (case,) = read_predictions(write_lines([told]))
    assert case.correct
    (again,) = read_predictions(write_lines([{**told, "parser": None}]))
    assert not again.correct  # the strict parser reads the answer


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": None}, "line 2: answer: is missing"),
        ({"answer": 3}, "line 2: answer: 3 must be text"),
        ({"gt_bbox": None}, "line 2: gt_bbox: is missing"),
        ({"gt_bbox": []}, "line 2: gt_bbox: "),
        ({"gt_bbox": [[1, 2, 3]]}, r"line 2: gt_bbox\[0\]: .* four numbers"),
        ({"gt_bbox": [[0, 0, 1001, 5]]}, r"line 2: gt_bbox\[0\]: .* 0-1000 grid"),
        ({"gt_bbox": [[0, 0, 10, 5], [-1, 0, 5, 5]]}, r"line 2: gt_bbox\[1\]"),
        ({"gt_bbox": [[9, 0, 1, 5]]}, "line 2: gt_bbox: .* no answer could be correct"),
        ({"key": "k0"}, "line 2: key: 'k0' is already in line 1"),
        ({"category": 4}, "line 2: category: 4 must be text"),
        ({"target": 7}, "line 2: target: 7 is not an index into 2 objects"),
        ({"codec": "polar"}, "line 2: codec: 'polar' is not one of"),
    ],
)
def test_bad_lines_name_line_and_field(write_lines, make_line, change, message):
    with pytest.raises(DataError, match=message):
        read_predictions(write_lines([make_line("k0"), make_line(**{"key": "k1", **change})]))


def test_a_box_without_area_beside_another_cannot_be_hit(write_lines):
    line = {"answer": "(9,0),(1,5)", "gt_bbox": [[9, 0, 1, 5], [0, 0, 100, 100]]}
    assert read_predictions(write_lines([line]))[0].iou == 0.0


def test_files_without_a_line_have_no_score(tmp_path):
    with pytest.raises(DataError, match=r"run `kvg predict` first"):
        read_predictions(tmp_path)
    (tmp_path / "predictions.jsonl").write_text("\n")
    with pytest.raises(DataError, match="the file has no lines"):
        read_predictions(tmp_path)
    (tmp_path / "predictions.jsonl").write_text(json.dumps([1]) + "\n")
    with pytest.raises(DataError, match=r"line 1: json: is not an object"):
        read_predictions(tmp_path)
