"""Referring expressions: miniatures of the four published forms, field by field, with their quirks."""

from __future__ import annotations

import json
import pickle

import pytest
from PIL import Image

from kvg.errors import DataError
from kvg.evaluation.records.question import Question
from kvg.formats.refcoco import RefCOCO
from kvg.formats.stores import open_store
from kvg.shards.reader import Tally

NAMES = ("COCO_train2014_000000581857.jpg", "COCO_train2014_000000000072.jpg")
WIDTH, HEIGHT = 64, 48
QUESTION = "Please provide the bounding box coordinate of the region this sentence describes: "

SHIKRA = [
    {"img_path": NAMES[0], "expression": "the lady with the blue shirt", "bbox": [10.39, 29.99, 23.81, 47.74]},
    {"img_path": NAMES[0], "expression": "lady  w back to us ", "bbox": [0.0, 1.5, 20.25, 40.0]},
    {"img_path": NAMES[1], "expression": 'giraffe "on" left\u2028side', "bbox": [1, 2, 30, 40]},
]
QWEN = [
    {"image": f"data/coco/train2014/{r['img_path']}", "sent": r["expression"], "bbox": r["bbox"], "width": WIDTH}
    | {"height": HEIGHT}
    for r in SHIKRA
]
VLM_R1 = [
    {
        "dataset": "refcocop",
        "text_type": "caption",
        "height": HEIGHT,
        "width": WIDTH,
        "normal_caption": r["expression"],
        "image": f"coco/train2014/{r['img_path']}",
        "problem": QUESTION + r["expression"],
        "solution": r["bbox"],
        "normalized_solution": [round(v / s, 3) for v, s in zip(r["bbox"], (WIDTH, HEIGHT) * 2, strict=True)],
    }
    for r in SHIKRA
]
# The image's id is that of the question: a picture stands there once for each expression.
MDETR = {
    "info": {"year": 2014},
    "licenses": [],
    "images": [
        {
            "file_name": r["img_path"],
            "height": HEIGHT,
            "width": WIDTH,
            "id": 60000 + i,
            "original_id": 581857,
            "caption": r["expression"],
            "dataset_name": "refcocog",
            "tokens_negative": [[0, 3]],
        }
        for i, r in enumerate(SHIKRA)
    ],
    "annotations": [
        {"area": 9.0, "iscrowd": 0, "image_id": 60000 + i, "category_id": 1, "id": i, "original_id": 5, "bbox": box}
        for i, box in reversed(
            list(enumerate(([10.39, 29.99, 13.42, 17.75], [0.0, 1.5, 20.25, 38.5], [1.0, 2.0, 29.0, 38.0])))
        )
    ],
    "categories": [{"id": 1, "name": "person", "supercategory": "person"}],
}


@pytest.fixture
def images(tmp_path):
    """COCO's folder, with two small JPEGs."""
    folder = tmp_path / "train2014"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        Image.new("RGB", (WIDTH, HEIGHT), (90, 60 * number, 120)).save(folder / name, "JPEG")
    return folder


def written(folder, name, rows):
    path = folder / name
    lines = (
        [json.dumps(row, ensure_ascii=False) + "\n" for row in rows] if name.endswith(".jsonl") else [json.dumps(rows)]
    )
    path.write_text("".join(lines), "utf-8")
    return path


def read_all(store, tally=None):
    return [sample for part in store.parts() for _, sample in part.read(tally)]


FILES = [
    ("REC_refcoco_unc_testA.jsonl", SHIKRA, "refcoco", "testA"),
    ("REC_refcoco+_unc_val.jsonl", SHIKRA, "refcoco+", "val"),
    ("REC_refcocog_umd_test.jsonl", SHIKRA, "refcocog", "test"),
    ("refcoco+_testB.jsonl", QWEN, "refcoco+", "testB"),
    ("refcocop_testA.json", VLM_R1, "refcoco+", "testA"),
    ("finetune_refcocog_val.json", MDETR, "refcocog", "val"),
]


@pytest.mark.parametrize(("name", "rows", "category", "split"), FILES)
def test_every_form_says_the_same(tmp_path, images, name, rows, category, split):
    store = open_store(written(tmp_path, name, rows), images)
    assert isinstance(store, RefCOCO)
    samples = read_all(pickle.loads(pickle.dumps(store)))
    assert [s.entity for s in samples] == [
        "the lady with the blue shirt",
        "lady  w back to us",
        'giraffe "on" left\u2028side',
    ]
    boxes = [(10.39, 29.99, 23.81, 47.74), (0.0, 1.5, 20.25, 40.0), (1.0, 2.0, 30.0, 40.0)]
    assert [s.box_px for s in samples] == [pytest.approx(box) for box in boxes]
    assert {(s.category, s.provenance["split"], s.split) for s in samples} == {(category, split, "seen")}
    assert [(s.provenance["row"], s.provenance["image"]) for s in samples] == [
        (0, NAMES[0]),
        (1, NAMES[0]),
        (2, NAMES[1]),
    ]
    assert samples[2].image == (images / NAMES[1]).read_bytes()
    assert samples[1].key == f"{category.replace('+', 'p')}-{split}-000001"
    assert "clipped" not in samples[0].provenance


def test_the_question_holds_the_expression(tmp_path, images):
    (sample, *_) = read_all(open_store(written(tmp_path, "refcoco_val.jsonl", QWEN), images))
    question = "Find and give the bounding box of <|object_ref_start|>the lady with the blue shirt<|object_ref_end|>"
    assert Question(sample).turns("direct") == (question,)


def test_rows_that_tell_their_set_outdo_the_file_name(tmp_path, images):
    datasets = ("refcoco", "refcoco+", "refgta")
    rows = {**MDETR, "images": [{**r, "dataset_name": n} for r, n in zip(MDETR["images"], datasets, strict=True)]}
    samples = read_all(open_store(written(tmp_path, "final_refexp_val.json", rows), images))
    assert [s.category for s in samples] == ["refcoco", "refcoco+", "refgta"]
    assert {s.category for s in read_all(RefCOCO(tmp_path / "final_refexp_val.json", images, "mine"))} == {"mine"}


@pytest.mark.parametrize(
    ("form", "box", "cut", "out"),
    [
        ("shikra", [40.5, 10, 64.36, 48], (40.5, 10.0, 64.0, 48.0), 0.36),
        ("shikra", [-0.5, -0.25, 10, 20], (0.0, 0.0, 10.0, 20.0), 0.5),
        ("mdetr", [50.0, 10.0, 14.0, 38.99], (50.0, 10.0, 64.0, 48.0), 0.99),
        ("mdetr", [0.0, 0.0, 64.0, 48.0], (0.0, 0.0, 64.0, 48.0), 0),
    ],
)
def test_less_than_a_pixel_is_cut_off_and_told(tmp_path, images, form, box, cut, out):
    if form == "shikra":
        path = written(tmp_path, "REC_refcoco_unc_val.jsonl", [{**SHIKRA[0], "bbox": box}])
    else:
        rows = {**MDETR, "images": MDETR["images"][:1], "annotations": [{"image_id": 60000, "bbox": box}]}
        path = written(tmp_path, "finetune_refcoco_val.json", rows)
    (sample,) = read_all(open_store(path, images))
    assert sample.box_px == pytest.approx(cut)
    assert sample.provenance.get("clipped", 0) == pytest.approx(out)


BAD = [
    (
        {"bbox": [40, 10, 65, 20]},
        "line 2: bbox: [40, 10, 65, 20] as [x1, y1, x2, y2] in pixels does not lie inside its 64x48 picture",
    ),
    ({"bbox": [40, 20, 24, 28]}, "line 2: bbox: [40, 20, 24, 28] as [x1, y1, x2, y2] in pixels has no area"),
    ({"bbox": [1, 2, 3]}, "line 2: bbox: [1, 2, 3] is not four numbers [x1, y1, x2, y2]"),
    ({"bbox": [[1, 2, 30, 40]]}, "line 2: bbox: [[1, 2, 30, 40]] is not four numbers"),
    ({"bbox": [1, 2, float("nan"), 40]}, "line 2: bbox:"),
    ({"expression": "  "}, "line 2: expression: '  ' must be text"),
    ({"expression": None}, "line 2: expression: is missing"),
    ({"img_path": "COCO_train2014_000000000009.jpg"}, "line 2: img_path: COCO_train2014_000000000009.jpg is not in"),
    ({"img_path": f"../train2014/{NAMES[0]}"}, "line 2: img_path:"),
    ({"width": 640}, "line 2: width: is 640, but that of"),
    ({"img_path": "broken.jpg"}, "line 2: image: is no picture"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_a_bad_row_is_named_and_passed_over(tmp_path, images, caplog, change, message):
    (images / "broken.jpg").write_bytes(b"no picture")
    path = written(tmp_path, "REC_refcoco_unc_val.jsonl", [SHIKRA[0], {**SHIKRA[1], **change}, SHIKRA[2]])
    tally = Tally()
    assert [s.provenance["row"] for s in read_all(open_store(path, images), tally)] == [0, 2]
    assert tally.num_bad == 1
    assert message in caplog.text


def test_a_cut_off_picture_is_passed_over(tmp_path, images, caplog):
    whole = (images / NAMES[0]).read_bytes()
    (images / NAMES[0]).write_bytes(whole[: len(whole) // 2])
    store = open_store(written(tmp_path, "REC_refcoco_unc_val.jsonl", SHIKRA), images)
    assert [s.provenance["row"] for s in read_all(store)] == [2]
    assert "line 1" in caplog.text


@pytest.mark.parametrize("annotations", [[], [{"image_id": 60000, "bbox": [1, 1, 5, 5]}] * 2])
def test_an_image_needs_exactly_one_annotation(tmp_path, images, caplog, annotations):
    rows = {**MDETR, "images": MDETR["images"][:1], "annotations": annotations}
    assert read_all(open_store(written(tmp_path, "finetune_refcoco_val.json", rows), images)) == []
    assert f"images[0]: bbox: '{len(annotations)} annotations' is not four numbers" in caplog.text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"img_path": "a.jpg"}\n', "form: is not a list of referring expressions"),
        ("a.jsonl", json.dumps(SHIKRA[0]) + "\n{", "line 2: json: cannot be read"),
        ("a.jsonl", "", "form: is not a list"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, images, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        open_store(tmp_path / name, images)


def test_the_folder_of_pictures_has_to_exist(tmp_path):
    with pytest.raises(DataError, match="images: is not a folder"):
        open_store(written(tmp_path, "REC_refcoco_unc_val.jsonl", SHIKRA), tmp_path / "nowhere")
