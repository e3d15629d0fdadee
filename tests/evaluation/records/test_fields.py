"""Lines from outside: mistyped, damaged or in another unit, each refused by line and field or read rightly."""

from __future__ import annotations

import json

import pytest

from kvg.cli.kvg_data import main
from kvg.errors import DataError
from kvg.evaluation.records.fields import on_grid
from kvg.evaluation.records.prediction import read_predictions

BOX = [100, 100, 400, 400]
RIGHT = "(100,100),(400,400)"


def line(**fields):
    return {"answer": RIGHT, "gt_bbox": [BOX], **fields}


OBJECT = {"entity": "Merlin", "box": BOX}
MISTYPED = [
    ({"answer": ["x"]}, "answer: ['x'] must be text"),
    ({"answer": "\ud800"}, "'answer': holds half a surrogate pair"),
    ({"extra": {"deep": ["\udfff"]}}, "'extra': holds half a surrogate pair"),
    ({"gt_bbox": {"a": 1}}, "gt_bbox: {'a': 1} is not a list of boxes"),
    ({"gt_bbox": [[True, 1, 2, 3]]}, "gt_bbox[0]: [True, 1, 2, 3] is not four numbers"),
    ({"gt_bbox": [["5", "5", "50", "40"]]}, "gt_bbox[0]"),
    ({"gt_bbox": [[1, 2, 3, -(10**400)]]}, "gt_bbox[0]"),
    ({"gt_bbox": [[0.1, 0.2, 0.3, 0.4]]}, "[0.1, 0.2, 0.3, 0.4] lies in 0-1, not on the 0-1000 grid; state"),
    ({"gt_bbox": [BOX, [0, 0, 1, 1]]}, "gt_bbox[1]: [0, 0, 1, 1] lies in 0-1"),
    ({"gt_bbox": [[10, 20, 3000, 2000]]}, "or state their unit: kvg-data score --box-unit"),
    ({"objects": 5}, "objects: 5 must be a list"),
    ({"objects": {"a": 1}}, "objects: {'a': 1} must be a list"),
    ({"objects": [5]}, "objects[0]: must be an object"),
    ({"objects": [{"entity": "Merlin"}]}, "objects[0].box: None is not four numbers"),
    ({"objects": [{**OBJECT, "box": [0.1, 0.1, 0.4, 0.4]}]}, "objects[0].box: [0.1, 0.1, 0.4, 0.4] lies in 0-1"),
    ({"objects": [{**OBJECT, "note": 5}]}, "objects[0]: note: 5 must be text"),
    ({"objects": [OBJECT, OBJECT], "target": True}, "target: True must be a whole number"),
    ({"objects": [OBJECT, OBJECT], "target": -1}, "target: -1 must be a whole number"),
    ({"objects": [OBJECT, OBJECT], "target": "1"}, "target: '1' must be a whole number"),
    ({"objects": [OBJECT, OBJECT], "target": 2}, "target: 2 is not an index into 2 objects"),
    ({"num_tokens": "many"}, "num_tokens: 'many' must be a whole number"),
    ({"num_tokens": 10**400}, "num_tokens: 1000"),
    ({"num_tokens": -1}, "num_tokens: -1"),
    ({"num_tokens": True}, "num_tokens: True"),
    ({"num_tokens": float("nan")}, "num_tokens: nan"),
    ({"strength": [1]}, "strength: [1]"),
    ({"strength": 1.5}, "strength: 1.5"),
    ({"artifact": 5}, "artifact: 5 must be text"),
    ({"finish_reason": ["stop"]}, "finish_reason: ['stop'] must be text"),
    ({"description": {}}, "description: {} must be text"),
    ({"parser": {"a": 1}, "box": BOX}, "parser: {'a': 1} must be text"),
    ({"parser": "x", "box": BOX, "pattern": True}, "pattern: True"),
    ({"parser": "x", "box": [True, 1, 2, 3]}, "box: [True, 1, 2, 3] is not four numbers"),
    ({"parser": "x", "box": [1, 2, 3, 10**400]}, "box: [1, 2, 3, 1000"),
    ({"codec": ["relative"]}, "codec: ['relative'] must be text"),
    ({"codec": "absolute", "size": [1, 2, 3, True]}, "size: [1, 2, 3, True] must be"),
    ({"codec": "absolute", "size": [1, 2, 3, 10**400]}, "size: [1, 2, 3, 1000"),
    ({"codec": "absolute", "size": "big"}, "size: 'big' must be"),
    ({"key": {"a": 1}}, "key: {'a': 1} must be text"),
    ({"key": True}, "key: True must be text"),
    ({"key": None, "question_id": [5]}, "question_id: [5] must be text"),
    ({"set": 5}, "set: 5 must be text"),
    ({"entity": ["Merlin"]}, "entity: ['Merlin'] must be text"),
    ({"image": {"id": 1}}, "image: {'id': 1} must be text"),
    ({"options": None, "right": 0}, "options: None must be a list of 2 to 26 names"),
    ({"options": ["a"] * 27, "right": 0}, "must be a list of 2 to 26 names"),
    ({"options": ["a", 5], "right": 0}, "must be a list of 2 to 26 names"),
    ({"options": ["a", "b"], "right": True}, "right: True is not an index"),
    ({"options": ["a", "b"], "right": 10**400}, "is not an index"),
]  # fmt: skip


def write(path, *lines, encoding="utf-8"):
    path.write_text("".join(json.dumps(one) + "\n" for one in lines), encoding)
    return path


@pytest.mark.parametrize(("fields", "message"), MISTYPED)
def test_mistyped_fields_are_told_by_line(tmp_path, fields, message):
    path = write(tmp_path / "p.jsonl", line(key="good"), line(**{"key": "bad", **fields}))
    with pytest.raises(DataError) as caught:
        read_predictions(path)
    assert "line 2" in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("command", [["compare"], ["report", "--out", "{}/o", "--runs"]])
@pytest.mark.parametrize("fields", [fields for fields, _ in MISTYPED[::6]])
def test_no_command_ends_with_a_traceback(tmp_path, capsys, command, fields):
    path = write(tmp_path / "p.jsonl", line(key="good"), line(**{"key": "bad", **fields}))
    given = [part.format(tmp_path) for part in command]
    assert main([*given, f"a={path}", f"b={path}"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("kvg-data: ")
    assert "line 2" in err
    assert err.count("\n") == 1


def test_a_byte_order_mark_and_odd_characters_inside_of_texts(tmp_path):
    odd = line(answer=f"{RIGHT}\u2028\u0085\x0b", entity="Caf\u00e9")
    text = json.dumps(odd, ensure_ascii=False) + "\r\n\r\n" + json.dumps(line()) + "\n"
    (tmp_path / "p.jsonl").write_bytes(text.encode("utf-8-sig"))
    assert [(case.key, case.correct) for case in read_predictions(tmp_path / "p.jsonl")] == [
        ("line 1", True),
        ("line 3", True),
    ]


def test_parsers_that_write_nan_have_read_no_box(tmp_path):
    nan = float("nan")
    (case,) = read_predictions(write(tmp_path / "p.jsonl", line(parser="theirs", box=[nan] * 4)))
    assert (case.box, case.correct) == (None, False)


# A picture of 200 x 100: 20 to 80 of 200 are 100 to 400 thousandths, 10 to 40 of 100, too.
UNITS = [
    ("unit", {"gt_bbox": [[0.1, 0.1, 0.4, 0.4]]}),
    ("pixels", {"gt_bbox": [[20, 10, 80, 40]], "size": [200, 100]}),
    ("pixels", {"gt_bbox": [[20, 10, 80, 40]], "size": [200, 100, 224, 112]}),
    ("relative_1000", {"gt_bbox": [BOX]}),
]


@pytest.mark.parametrize(("unit", "fields"), UNITS)
def test_score_reads_true_boxes_in_their_declared_unit(tmp_path, unit, fields):
    box = fields["gt_bbox"][0]
    given = line(**fields, objects=[{"entity": "Merlin", "box": box}])
    path, out = write(tmp_path / "p.jsonl", given), tmp_path / "judged.jsonl"
    assert main(["score", str(path), "--out", str(out), "--box-unit", unit]) == 0
    (judged,) = [json.loads(text) for text in out.read_text().splitlines()]
    assert judged["gt_bbox"] == [BOX]
    assert judged["objects"] == [{"entity": "Merlin", "box": BOX}]
    assert (judged["correct"], judged["iou"]) == (True, 1.0)
    (case,) = read_predictions(out)  # what was written is on the grid, for every later command
    assert case.targets == ((100, 100, 400, 400),)


@pytest.mark.parametrize(
    ("unit", "fields", "message"),
    [
        (
            [],
            {"gt_bbox": [[0.1, 0.2, 0.3, 0.4]]},
            "lies in 0-1, not on the 0-1000 grid; state the unit: kvg-data score",
        ),
        (["pixels"], {"gt_bbox": [[20, 10, 80, 40]]}, "size: None must be [width, height] where box_unit is pixels"),
        (["pixels"], {"gt_bbox": [[20, 10, 300, 40]], "size": [200, 100]}, "gt_bbox[0]: [20, 10, 300, 40] in pixels"),
        (["pixels"], {"gt_bbox": [[0.1, 0.1, 0.4, 0.4]], "size": [200, 100]}, "lies in 0-1, but box_unit is pixels"),
        (["unit"], {"gt_bbox": [BOX]}, "gt_bbox[0]: [100, 100, 400, 400] in unit does not lie inside its picture"),
        (["unit"], {"gt_bbox": 5}, "gt_bbox: 5 is not a list of boxes"),
        (["unit"], {"gt_bbox": [["a"]]}, "gt_bbox[0]: ['a'] is not four numbers"),
    ],
)
def test_score_refuses_another_unit_by_line(tmp_path, capsys, unit, fields, message):
    path = (
        write(tmp_path / "p.jsonl", line(), line(**fields)) if not unit else write(tmp_path / "p.jsonl", line(**fields))
    )
    more = ["--box-unit", *unit] if unit else []
    assert main(["score", str(path), "--out", str(tmp_path / "o.jsonl"), *more]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "o.jsonl").exists()


def test_several_true_boxes_one_of_them_without_area_and_choices_in_a_unit():
    made = on_grid({"answer": "", "gt_bbox": [[0, 0, 0, 0], [0.5, 0.5, 1, 1.0000001]]}, "unit", "x")
    assert made["gt_bbox"] == [[0, 0, 0, 0], [500, 500, 1000, 1000]]
    choice = {"answer": "A", "options": ["a", "b"], "right": 0}
    assert on_grid(choice, "unit", "x") == choice
