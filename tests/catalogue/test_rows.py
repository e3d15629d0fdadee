"""One bad row of any list is left out by name, and the rest is kept; boxes are read in the form that is declared."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kvg.catalogue.listing import BoxRules
from kvg.catalogue.tables import Coco, Parquet, Table
from kvg.errors import ConfigError, DataError

from .conftest import drawing, encoded
from .test_sources import faults_of, remarks_of, rows_of

GOOD = {"path": "b.jpg", "entity": "Hobby", "category": "bird", "box": [1, 2, 30, 40]}
MISTYPED = [None, "", "  ", 5, 0, True, [], {}, ["Wren"], float("nan"), 10**30, "\ud800"]


def table(tmp_path, rows, name="l.json", **settings):
    path = tmp_path / name
    if name.endswith(".json"):
        path.write_text(json.dumps(rows))
    elif name.endswith(".jsonl"):
        path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    else:
        path.write_bytes(rows.encode())
    return Table(path, **settings)


@pytest.mark.parametrize("name", ["l.json", "l.jsonl"])
@pytest.mark.parametrize("field", ["path", "entity", "category"])
@pytest.mark.parametrize("value", MISTYPED, ids=repr)
def test_a_needed_field(tmp_path, name, field, value):
    source = table(tmp_path, [{**GOOD, "path": "a.jpg", field: value}, GOOD], name)
    assert [row[0] for row in rows_of(source)] == ["b.jpg"]
    [(ref, at)] = faults_of(source)
    assert at == field
    assert "l.json" in ref if field == "path" else ref == "a.jpg"


@pytest.mark.parametrize("field", ["part", "licence"])
@pytest.mark.parametrize("value", [5, True, [], {}, "\ud800"], ids=repr)
def test_a_field_that_may_be_missing_may_not_be_mistyped(tmp_path, field, value):
    source = table(tmp_path, [{**GOOD, field: value}, {**GOOD, "path": "a.jpg", field: None}])
    assert [row[0] for row in rows_of(source)] == ["a.jpg"]
    assert faults_of(source).keys() == {("b.jpg", field)}


@pytest.mark.parametrize(
    "box", [[], {}, 0, False, True, "none", [1, 2, 3], [1, 2, "x", 4], [1, None, 3, 4], [[1], 2, 3, 4], "[1, 2",
            [float("nan"), 2, 30, 40], [10**400, 2, 30, 40], [0.1, 0.2, 0.3, 0.4]], ids=repr,
)  # fmt: skip
def test_a_box(tmp_path, box):
    source = table(tmp_path, [{**GOOD, "box": box}, {**GOOD, "path": "a.jpg"}])
    assert [row[0] for row in rows_of(source)] == ["a.jpg"]
    assert [ref for ref, _ in faults_of(source)] == ["b.jpg"]


@pytest.mark.parametrize("row", [None, 5, "text", [], ["a.jpg", "Wren"], True])
def test_a_row_that_is_no_object(tmp_path, row):
    for name in ("l.json", "l.jsonl"):
        source = table(tmp_path, [row, GOOD] if name == "l.json" else [json.dumps(row), GOOD], name)
        assert [row[0] for row in rows_of(source)] == ["b.jpg"]
        assert [field for _, field in faults_of(source)] == ["row"]


def test_a_damaged_line_of_json_lines_is_one_row(tmp_path):
    source = table(tmp_path, ['{"path": "a.jpg", ', GOOD], "l.jsonl")
    assert [row[0] for row in rows_of(source)] == ["b.jpg"]
    assert [ref.endswith("l.jsonl line 1") for ref, _ in faults_of(source)] == [True]


def test_the_rows_of_a_csv(tmp_path):
    text = (
        "path,entity,category,x1,y1,x2,y2\n"
        ",Wren,bird,,,,\n"
        "b.jpg,Hobby,bird,1,2,30,40\n"
        "c.jpg,Great, Tit,bird,1,2,30,40,9\n"  # a comma that nobody quoted
        "d.jpg,Merlin\n"  # short
        'e.jpg,"Great\nTit",bird\n'
        "f.jpg,Wren,bird,1,2\n"  # half a box
        "g.jpg,Wren \u2028 x,bird\n"
        "\n"
    )
    source = table(tmp_path, text, "l.csv")
    assert [row[:2] for row in rows_of(source)] == [("b.jpg", "Hobby"), ("e.jpg", "Great Tit"), ("g.jpg", "Wren x")]
    assert {(ref.rpartition("/")[2], field) for ref, field in faults_of(source)} == {
        ("l.csv line 2", "path"),
        ("l.csv line 4", "row"),
        ("d.jpg", "category"),
        ("f.jpg", "box"),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path;entity;category\na.jpg;Wren;bird\n", "csv: separates its cells by ';'; save it with commas"),
        ("path\tentity\tcategory\na.jpg\tWren\tbird\n", "separates its cells by '\\\\t'"),
        ("a.jpg,Wren,bird\nb.jpg,Hobby,bird\n", "has no column 'category', 'entity', 'path'; its first line holds"),
        ("path,entity,path,category\na,b,c,d\n", "header: names 'path' twice"),
        ('path,entity,category\na.jpg,"Wren,bird\n', "csv: cannot be read"),
    ],
)
def test_a_csv_that_is_wrong_as_a_whole(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        rows_of(table(tmp_path, text, "l.csv"))


@pytest.mark.parametrize("text", ['{"path": "a.jpg"}', "5", "null", '"x"', "[", ""])
def test_a_json_that_is_no_list(tmp_path, text):
    (tmp_path / "l.json").write_text(text)
    with pytest.raises(DataError, match=r"l\.json"):
        rows_of(Table(tmp_path / "l.json"))


@pytest.mark.parametrize(
    ("unit", "order", "box"),
    [
        ("pixels", "xywh", [20, 10, 40, 30]),
        ("pixels", "cxcywh", [40, 25, 40, 30]),
        ("relative_1000", "xyxy", [20, 10, 60, 40]),
        ("unit", "xyxy", [0.2, 0.1, 0.6, 0.4]),
    ],
)
def test_a_declared_form(tmp_path, unit, order, box):
    for value in (box, [str(v) for v in box]):
        [listing] = table(tmp_path, [{**GOOD, "box": value}], box_unit=unit, box_format=order).listings()
        scale = {"pixels": 1, "unit": 100, "relative_1000": 1}[unit]
        corners = listing.rules.form.corners(listing.rules.form.numbers(listing.box, "", ""))
        assert [v * scale for v in corners] == pytest.approx([20, 10, 60, 40])


def test_boxes_in_columns_of_their_form(tmp_path):
    text = "path,entity,category,x,y,width,height\na.jpg,Wren,bird,20,10,40,30\n"
    assert rows_of(table(tmp_path, text, "l.csv", box_format="xywh"))[0][3] == (20, 10, 60, 40)
    assert rows_of(table(tmp_path, text, "l.csv"))[0][3] is None
    assert "x, y look like boxes and are not read" in remarks_of(table(tmp_path, text, "l.csv"))[0]
    text = 'path,entity,category,bbox\na.jpg,Wren,bird,"[20, 10, 60, 40]"\n'
    assert rows_of(table(tmp_path, text, "l.csv", columns={"box": "bbox"}))[0][3] == (20, 10, 60, 40)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"box_unit": "percent"}, "box_unit: 'percent' is none of"),
        ({"box_format": "ltrb"}, "box_format: 'ltrb' is none of"),
        ({"boxes_of": "both"}, "boxes_of: 'both' is none of upright, raw"),
        ({"several": "all"}, "several: 'all' is none of crop, reject"),
        ({"margin": -1}, "margin: -1 is no number from 0"),
        ({"max_overlap": "x"}, "max_overlap: 'x' is no number"),
        ({"columns": {"name": "entity"}}, "columns: 'name' is none of ours"),
    ],
)
def test_settings_of_a_list(tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        table(tmp_path, [GOOD], **settings)


def test_rows_of_one_picture_with_several_boxes_are_its_objects(tmp_path):
    rows = [GOOD, {**GOOD, "path": "a.jpg"}, {**GOOD, "entity": "Wren", "box": [50, 2, 60, 40]}]
    first, second, alone = table(tmp_path, rows).listings()
    assert (first.ref, first.entity, first.others) == ("b.jpg#1", "Hobby", ([50, 2, 60, 40],))
    assert (second.ref, second.entity, second.others) == ("b.jpg#2", "Wren", ([1, 2, 30, 40],))
    assert (alone.ref, alone.others) == ("a.jpg", None)
    source = table(tmp_path, rows, several="reject")
    assert [row[0] for row in rows_of(source)] == ["a.jpg"]
    assert faults_of(source).keys() == {("b.jpg#1", "several"), ("b.jpg#2", "several")}


def coco(tmp_path, annotations, images=None, categories=None, **settings):
    record = {
        "images": images or [{"id": n, "file_name": f"{n}.jpg"} for n in (1, 2)],
        "annotations": annotations,
        "categories": categories or [{"id": 7, "name": "Wren", "supercategory": "bird"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(record))
    return Coco(tmp_path / "a.json", tmp_path, **settings)


ONE = {"id": 11, "image_id": 1, "category_id": 7, "bbox": [5, 5, 50, 40]}
OTHER = {"id": 12, "image_id": 2, "category_id": 7, "bbox": [5, 5, 50, 40]}


@pytest.mark.parametrize(
    ("damage", "field"),
    [
        *(({"bbox": v}, "bbox") for v in ([], None, 5, "x", [1, 2, 3], [1, 2, "x", 4], {}, [0.1, 0.1, 0.5, 0.5])),
        *(({"category_id": v}, "category_id") for v in (8, None, "seven", [], {}, True, 7.5)),
        *(({"iscrowd": v}, "iscrowd") for v in (1, True, "1")),
    ],
    ids=repr,
)
def test_one_damaged_annotation(tmp_path, damage, field):
    source = coco(tmp_path, [{**ONE, **damage}, OTHER])
    assert [row[0] for row in rows_of(source)] == ["2.jpg"]
    [(ref, at)] = faults_of(source)
    assert (ref, at) == ("1.jpg#11", field)


@pytest.mark.parametrize("value", [None, 5, "x", [], {}, {"id": 11}, {**ONE, "image_id": 9}, {**ONE, "image_id": []}])
def test_an_annotation_of_no_picture(tmp_path, value):
    source = coco(tmp_path, [value, OTHER])
    assert [row[0] for row in rows_of(source)] == ["2.jpg"]
    assert [field for ref, field in faults_of(source) if "annotation" in ref] in (["annotation"], ["image_id"])
    assert ("1.jpg", "annotations") in faults_of(source)  # nothing is left that tells what is on it


def test_ids_and_numbers_in_quotes(tmp_path):
    annotations = [{"id": "11", "image_id": "1", "category_id": "7", "bbox": ["5", "5", "50", "40"]}, OTHER]
    images = [{"id": 1, "file_name": "1.jpg"}, {"id": "2", "file_name": "2.jpg"}]
    source = coco(tmp_path, annotations, images)
    assert [(row[0], row[3]) for row in rows_of(source)] == [("1.jpg", (5, 5, 55, 45)), ("2.jpg", (5, 5, 55, 45))]
    assert faults_of(source) == {}


@pytest.mark.parametrize("value", [None, 5, [], {}, {"id": 2}, {"id": 2, "file_name": 5}, {"file_name": "2.jpg"}])
def test_a_damaged_image(tmp_path, value):
    source = coco(tmp_path, [ONE, OTHER], images=[{"id": 1, "file_name": "1.jpg"}, value])
    assert [row[0] for row in rows_of(source)] == ["1.jpg"]
    assert faults_of(source)


@pytest.mark.parametrize("value", [None, 5, [], {"id": 8}, {"id": 8, "name": ["x"]}, {"name": "Hobby"}])
def test_a_damaged_category(tmp_path, value):
    categories = [{"id": 7, "name": "Wren", "supercategory": "bird"}, value]
    source = coco(tmp_path, [ONE, {**OTHER, "category_id": 8}], categories=categories)
    assert [row[0] for row in rows_of(source)] == ["1.jpg"]
    assert any(ref == "2.jpg#12" for ref, _ in faults_of(source))


def test_pictures_without_annotations_are_counted(tmp_path):
    assert faults_of(coco(tmp_path, [ONE])).keys() == {("2.jpg", "annotations")}


def test_what_is_not_asked_for_is_counted(tmp_path):
    source = coco(tmp_path, [ONE, OTHER], supercategories={"fish": "fish"})
    assert rows_of(source) == []
    assert remarks_of(source)[0].endswith("supercategories that are not in `supercategories`: bird 2")


@pytest.mark.parametrize("text", ["[]", "5", '{"images": 5, "annotations": [], "categories": []}', "{}", "{"])
def test_a_file_that_is_not_cocos(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=r"a\.json"):
        list(Coco(tmp_path / "a.json", tmp_path).listings())


def test_rows_of_parquet(tmp_path):
    photo = {"bytes": encoded(drawing(0)), "path": "x.jpg"}
    labels = ["Wren", None, "", "Red_kite"]
    boxes = [[5, 5, 50, 40], None, None, [1, 2, 3]]
    pq.write_table(pa.table({"image": [photo] * 4, "label": labels, "place": boxes}), tmp_path / "train-0.parquet")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache/old.parquet").write_bytes(b"")
    source = Parquet(tmp_path, "bird", box="place", box_format="xywh")
    assert rows_of(source) == [("train-0.parquet#0", "Wren", "bird", (5, 5, 55, 45), "train", "")]
    assert faults_of(source).keys() == {
        (".cache", "hidden"),
        ("train-0.parquet#1", "label"),
        ("train-0.parquet#2", "label"),
        ("train-0.parquet#3", "place"),
    }
    for kind, values in ((pa.bool_(), [True]), (pa.float64(), [1.5]), (pa.list_(pa.int64()), [[1]])):
        pq.write_table(pa.table({"image": [photo], "label": pa.array(values, kind)}), tmp_path / "train-0.parquet")
        odd = Parquet(tmp_path, "bird", names=["a", "b"])
        assert ("train-0.parquet#0", "label") in faults_of(odd)
    for ref in ("train-0.parquet#9", "train-0.parquet#x", "none.parquet#0", "train-0.parquet"):
        with pytest.raises(DataError):
            odd.read(ref)


def test_rules_are_checked():
    with pytest.raises(ConfigError, match="boxes_of"):
        BoxRules(of="left")
