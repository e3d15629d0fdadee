"""The unit of boxes in published files is declared where nothing tells it, and raw pixels are turned exactly."""

from __future__ import annotations

import io
import json

import pytest
from PIL import Image

from kvg.errors import ConfigError, DataError
from kvg.formats.stores import open_store
from kvg.formats.written_boxes import Reading, written_boxes
from kvg.shards.reader import Tally

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

NAME = "<|object_ref_start|>Merlin<|object_ref_end|>"
QUESTION = f"Find and give the bounding box of {NAME}"
SIZE = WIDTH, HEIGHT = 120, 90
PART = (12, 9, 24, 18)


def picture(turned=1, size=SIZE):
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = turned
    Image.new("RGB", size, (40, 90, 120)).save(file, "JPEG", exif=exif)
    return file.getvalue()


def read(path, reading=None):
    tally = Tally(log_problems=False)
    store = open_store(path, reading=reading)
    return [sample for part in store.parts() for _, sample in part.read(tally)], tally


def sharegpt(folder, answer, data):
    (folder / "a.jpg").write_bytes(data)
    turns = [{"role": "user", "content": f"<image>{QUESTION}"}, {"role": "assistant", "content": answer}]
    (folder / "cot-sft-bird.json").write_text(json.dumps([{"messages": turns, "images": ["a.jpg"]}]))
    return folder / "cot-sft-bird.json"


def parquet(name, **columns):
    def write(folder, answer, data):
        row = {k: v(answer, data) if callable(v) else v for k, v in columns.items()}
        pq.write_table(pa.Table.from_pylist([row]), folder / name)
        return folder / name

    return write


FORMATS = {
    "sharegpt": sharegpt,
    "v2": parquet(
        "grpo-bird.parquet", image=lambda _, data: {"bytes": data}, problem=QUESTION, solution=lambda answer, _: answer
    ),
    "verl": parquet(
        "verl-grpo-bird.parquet",
        prompt=[{"role": "user", "content": QUESTION}],
        images=lambda _, data: [{"bytes": data}],
        reward_model=lambda answer, _: {"ground_truth": answer},
    ),
    "kvg-bench": parquet(
        "kvg-bench.parquet",
        question_id="bird/1",
        category="bird",
        question=QUESTION,
        answer=lambda answer, _: answer,
        image=lambda _, data: {"bytes": data},
    ),
}
QWEN = '{"bbox_2d": [10, 10, 60, 60]}'
# Of a picture of 120 x 90: 10 to 60 thousandths are 1.2 to 7.2 across and 0.9 to 5.4 down.
VALUES = [
    (QWEN, "pixels", (10, 10, 60, 60)),
    (QWEN, "relative_1000", (1.2, 0.9, 7.2, 5.4)),
    (f'```json\n[{{"bbox_2d": [10, 10, 60, 60], "label": "Merlin"}}]\n```{NAME}', "pixels", (10, 10, 60, 60)),
    ("[10, 10, 60, 60]", "pixels", (10, 10, 60, 60)),
    ("(10, 10, 60.5, 60)", "pixels", (10, 10, 60.5, 60)),
    ("[[10, 10], [60, 60]]", "pixels", (10, 10, 60, 60)),
    ("(10,10),(60,60)", "pixels", (10, 10, 60, 60)),
    ("<|box_start|>(10,10),(60,60)<|box_end|>", None, (1.2, 0.9, 7.2, 5.4)),
    ("(10,10),(60,60)", "relative_1000", (1.2, 0.9, 7.2, 5.4)),
    ("[0.1, 0.2, 0.5, 0.6]", "unit", (12, 18, 60, 54)),
    ("(.1,.2),(5e-1,0.6)", "unit", (12, 18, 60, 54)),
    ("[0, 0, 1, 1]", "unit", (0, 0, 120, 90)),
]
REFUSED = [
    (QWEN, None, "may be pixels (Qwen2.5-VL's form) or on the 0-1000 grid (Qwen3-VL's); state box_unit"),
    ("[10, 10, 60, 60]", None, "state box_unit"),
    ("(10, 10, 60, 60)", None, "state box_unit"),
    ("[0.1, 0.2, 0.5, 0.6]", None, "state box_unit"),
    ("(0.1,0.2),(0.5,0.6)", None, "lies in 0-1, but box_unit is relative_1000; state box_unit: unit"),
    ("(0,0),(1,1)", None, "lies in 0-1"),
    ("[0.1, 0.2, 0.5, 0.6]", "pixels", "lies in 0-1, but box_unit is pixels"),
    (QWEN, "unit", "in unit does not lie inside"),
    ("(10,10),(160,60)", "pixels", "in pixels does not lie inside its 120x90 picture"),
    ("(10,10),(60,1001)", None, "in relative_1000 does not lie inside"),
    ("(1,1),(5,5) or (50,50),(90,90)", None, "contains 2 different boxes"),
]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(("answer", "unit", "box"), VALUES)
def test_a_declared_unit_is_read_rightly(tmp_path, form, answer, unit, box):
    answer = f"<answer>{answer}</answer>" if form != "verl" else answer
    (sample,), tally = read(FORMATS[form](tmp_path, answer, picture()), Reading(unit))
    assert sample.box_px == pytest.approx(box)
    assert not tally.problems


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(("answer", "unit", "message"), REFUSED)
def test_what_nothing_tells_is_refused_by_row(tmp_path, form, answer, unit, message):
    samples, tally = read(FORMATS[form](tmp_path, answer, picture()), Reading(unit))
    assert samples == []
    assert tally.num_bad == 1
    assert message in tally.problems[0]
    assert "record 0: answer" in tally.problems[0] or "row 0: answer" in tally.problems[0]


@pytest.mark.parametrize(
    ("rationale", "unit", "template", "boxes"),
    [
        ("1 (100,100),(200,200) red", None, "1 <box:0> red", [PART]),
        ('1 {"bbox_2d": [12, 9, 24, 18]} red', "pixels", "1 <box:0> red", [PART]),
        ('1 {"bbox_2d": [12, 9, 24, 18], "label": "a \\"B\\""} red', "pixels", '1 a "B" <box:0> red', [PART]),
        ('1 {"label": "B", "bbox_2d": [12, 9, 24, 18]} red', "pixels", "1 B <box:0> red", [PART]),
        ("1 [0.1, 0.1, 0.2, 0.2] red", "unit", "1 <box:0> red", [PART]),
        ("1 [12, 9, 24, 18] red", None, "may be pixels", None),
        ("1 (0.1,0.1),(0.2,0.2) red", None, "lies in 0-1", None),
        ("1 (100,100),(2000,200) red", None, "does not lie inside", None),
    ],
)  # fmt: skip
def test_boxes_of_rationales_likewise(tmp_path, rationale, unit, template, boxes):
    box = {"pixels": "(60,45),(108,81)", "unit": "(0.5,0.5),(0.9,0.9)"}.get(unit, "(500,500),(900,900)")
    path = sharegpt(tmp_path, f"<think>{rationale}</think><answer>{box}</answer>", picture())
    samples, tally = read(path, Reading(unit))
    if boxes is None:
        assert "record 0: rationale" in tally.problems[0]
        assert template in tally.problems[0]
        return
    assert samples[0].rationale == template
    assert [o.box_px for o in samples[0].objects] == [pytest.approx(b) for b in (*boxes, (60, 45, 108, 81))]


EXPRESSIONS = {
    "shikra": {"img_path": "a.jpg", "expression": "left bird"},
    "qwen-vl": {"image": "a.jpg", "sent": "left bird", "width": WIDTH, "height": HEIGHT},
    "vlm-r1": {"image": "a.jpg", "normal_caption": "left bird", "dataset": "refcoco"},
}


def expressions(folder, form, box, data, **more):
    (folder / "a.jpg").write_bytes(data)
    row = {**EXPRESSIONS[form], "solution" if form == "vlm-r1" else "bbox": box, **more}
    path = folder / "refcoco_val.jsonl"
    path.write_text(json.dumps(row))
    return path


@pytest.mark.parametrize("form", EXPRESSIONS)
def test_referring_expressions_are_pixels_unless_declared(tmp_path, form):
    box = [0.088, 0.034, 0.470, 0.474]
    path = expressions(tmp_path, form, box, picture())
    samples, tally = read(path)
    assert samples == []
    assert "lies in 0-1, but box_unit is pixels; state box_unit: unit" in tally.problems[0]
    (sample,), _ = read(path, Reading("unit"))
    assert sample.box_px == pytest.approx((10.56, 3.06, 56.4, 42.66))
    (sample,), _ = read(expressions(tmp_path, form, [10, 10, 60, 60], picture()))
    assert sample.box_px == (10, 10, 60, 60)
    (sample,), _ = read(expressions(tmp_path, form, ["10", "10", "60", "60"], picture()), Reading("relative_1000"))
    assert sample.box_px == pytest.approx((1.2, 0.9, 7.2, 5.4))


def test_coco_boxes_keep_their_order_in_every_unit(tmp_path):
    (tmp_path / "a.jpg").write_bytes(picture())
    images = [{"id": n, "file_name": "a.jpg", "caption": f"bird {n}"} for n in ("1", 2, 3)]
    boxes = [(1, [0.1, 0.2, 0.4, 0.4]), ("2", [0.1, 0.2, 0.4, 0.4]), (3.0, [0.1, 0.2, 0.4, 0.4])]
    notes = [{"image_id": n, "bbox": box} for n, box in boxes] + [{"bbox": [1, 2, 3, 4]}, "x", {"image_id": []}]
    path = tmp_path / "finetune_refcoco_val.json"
    path.write_text(json.dumps({"images": images, "annotations": notes}))
    samples, tally = read(path, Reading("unit"))
    assert [s.box_px for s in samples] == [pytest.approx((12, 18, 60, 54))] * 3  # ids match whatever their type
    assert (tally.num_bad, ["annotations[" in p for p in tally.problems]) == (3, [True] * 3)


# A stored picture of 120 x 90 whose box (10, 20, 30, 25) is turned by hand; orientation 6 shows it turned to the right.
TURNED = {
    1: ((120, 90), (10, 20, 30, 25)),
    2: ((120, 90), (90, 20, 110, 25)),
    3: ((120, 90), (90, 65, 110, 70)),
    4: ((120, 90), (10, 65, 30, 70)),
    5: ((90, 120), (20, 10, 25, 30)),
    6: ((90, 120), (65, 10, 70, 30)),
    7: ((90, 120), (65, 90, 70, 110)),
    8: ((90, 120), (20, 90, 25, 110)),
}


@pytest.mark.parametrize("turned", TURNED)
@pytest.mark.parametrize("form", [*FORMATS, "shikra", "qwen-vl"])
def test_boxes_of_raw_pixels_are_turned_with_their_picture(tmp_path, form, turned):
    data = picture(turned)
    if form in FORMATS:
        path = FORMATS[form](tmp_path, "[10, 20, 30, 25]", data)
    else:
        path = expressions(tmp_path, form, [10, 20, 30, 25], data)
    (sample,), _ = read(path, Reading("pixels", "raw"))
    size, box = TURNED[turned]
    assert ((sample.width, sample.height), sample.box_px) == (size, box)
    with Image.open(io.BytesIO(sample.image)) as stored:
        assert stored.size == size
        assert stored.getexif().get(0x0112, 1) == 1


def test_boxes_of_the_upright_picture_stay(tmp_path):
    (sample,), _ = read(sharegpt(tmp_path, "[10, 20, 30, 25]", picture(6)), Reading("pixels"))
    assert ((sample.width, sample.height), sample.box_px) == ((90, 120), (10, 20, 30, 25))
    samples, tally = read(sharegpt(tmp_path, "[10, 20, 110, 25]", picture(6)), Reading("pixels"))
    assert samples == []  # 110 lies in the raw pixels alone
    assert "its 90x120 picture" in tally.problems[0]


def test_settings_are_checked(tmp_path):
    with pytest.raises(ConfigError, match="box_unit: 'percent' is none of pixels, relative_1000, unit"):
        Reading("percent")
    with pytest.raises(ConfigError, match="boxes_of: 'turned' is none of upright, raw"):
        Reading(boxes_of="turned")
    labels = tmp_path / "labels.jsonl"
    labels.write_text('{"image": "a.jpg", "label": "Merlin"}')
    with pytest.raises(DataError, match="box_unit: is not for labels"):
        open_store(labels, reading=Reading("unit"))


@pytest.mark.parametrize(
    "text", ["(" * 20_000, "[1," * 20_000, "1" * 50_000, "(" + "1" * 50_000, '{"bbox_2d": ' * 5000]
)
def test_long_texts_take_no_time(text):
    assert written_boxes(text) == []
