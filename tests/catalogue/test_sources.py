"""Lists and folders of pictures, in their published layouts as miniatures with the published file formats."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kvg.catalogue.folders import ImageFolder
from kvg.catalogue.listing import Listing, Remark, Unusable
from kvg.catalogue.tables import Coco, Parquet, Table
from kvg.errors import DataError

from .conftest import drawing, encoded

CORNERS = ("x1", "y1", "x2", "y2")


def rows_of(source):
    """What a source lists; boxes as corners in its unit."""
    listings = [v for v in source.listings() if isinstance(v, Listing)]
    return [(v.ref, v.entity, v.category, corners(v), v.part, v.licence) for v in listings]


def corners(listing):
    form = listing.rules.form
    return None if listing.box is None else form.corners(form.numbers(listing.box, listing.ref, "box"))


def faults_of(source):
    """What it cannot list."""
    return {(v.ref, v.field): v.reason for v in source.listings() if isinstance(v, Unusable)}


def remarks_of(source):
    return [v.text for v in source.listings() if isinstance(v, Remark)]


def write(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def test_image_folder(tmp_path):
    photo = encoded(drawing(0))
    write(
        tmp_path,
        {
            "bird/hoopoe/1.jpg": photo,
            "bird/hoopoe/2.JPG": photo,
            "bird/magpie.png": photo,
            "bird/magpie.txt": "A Eurasian magpie (adult), in snow.\nmore\n",
            "sea_shell/whelk/a.webp": photo,
            "sea_shell/whelk/cartoon/b.png": photo,
            "sea_shell/notes.md": "no picture",
        },
    )
    assert rows_of(ImageFolder(tmp_path, exclude=["*/cartoon/*"], licence="CC0")) == [
        ("bird/hoopoe/1.jpg", "hoopoe", "bird", None, "", "CC0"),
        ("bird/hoopoe/2.JPG", "hoopoe", "bird", None, "", "CC0"),
        ("bird/magpie.png", "Eurasian magpie", "bird", None, "", "CC0"),
        ("sea_shell/whelk/a.webp", "whelk", "sea shell", None, "", "CC0"),
    ]
    flat = ImageFolder(tmp_path / "bird", {".": "birds"})
    assert [v.entity for v in flat.listings()] == ["hoopoe", "hoopoe", "Eurasian magpie"]
    assert flat.read("hoopoe/1.jpg") == photo
    with pytest.raises(DataError, match="is not a folder"):
        ImageFolder(tmp_path, {"fish": "fish"})


def test_what_a_list_names_outside_its_folder_is_not_opened(tmp_path):
    write(tmp_path, {"in/list.csv": "path,entity,category\n../secret.jpg,Key,key\n", "secret.jpg": b"secret"})
    source = Table(tmp_path / "in/list.csv")
    with pytest.raises(DataError, match="leads out of"):
        source.read("../secret.jpg")
    with pytest.raises(DataError, match="leads out of"):
        source.read(str(tmp_path / "secret.jpg"))
    with pytest.raises(DataError, match="is no path"):
        source.read("a\0b.jpg")


@pytest.mark.parametrize("kind", ["csv", "json", "jsonl"])
def test_table(tmp_path, kind):
    rows = [
        {
            "file": "a.jpg",
            "entity": "Wren",
            "category": "bird",
            "licence": "CC0",
            "x1": 1,
            "y1": 2,
            "x2": 30,
            "y2": 40.5,
        },
        {"file": "b, c.jpg", "entity": "Österreich 🦉", "category": "", **dict.fromkeys(["licence", *CORNERS], "")},
    ]
    path = tmp_path / f"list.{kind}"
    if kind == "csv":
        with path.open("w", newline="", encoding="utf-8-sig") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    else:
        text = json.dumps(rows) if kind == "json" else "\n".join(json.dumps(row) for row in rows)
        path.write_text(text, "utf-8")
    first, second = rows_of(Table(path, columns={"path": "file"}, category="thing"))
    assert first[:3] + first[4:] == ("a.jpg", "Wren", "bird", "", "CC0")
    assert [float(v) for v in first[3]] == [1, 2, 30, 40.5]
    assert second == ("b, c.jpg", "Österreich 🦉", "thing", None, "", "")


def test_table_with_a_box_column(tmp_path):
    path = tmp_path / "list.jsonl"
    path.write_text('{"path": "a.jpg", "entity": "Wren", "category": "bird", "box": [1, 2, 30, 40], "part": "val"}\n')
    assert rows_of(Table(path)) == [("a.jpg", "Wren", "bird", (1, 2, 30, 40), "val", "")]
    path.write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        rows_of(Table(path))


def test_coco(tmp_path):
    record = {
        "licenses": [{"id": 4, "name": "Attribution License", "url": "http://a"}],
        "images": [
            {"id": 1, "file_name": "1.jpg", "license": 4, "width": 96, "height": 64},
            {"id": 2, "file_name": "2.jpg", "license": 4, "width": 96, "height": 64},
            {"id": 3, "file_name": "3.jpg", "width": 96, "height": 64},
        ],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 7, "bbox": [10, 20, 30, 40]},
            {"id": 2, "image_id": 2, "category_id": 7, "bbox": [0, 0, 5, 5]},
            {"id": 3, "image_id": 2, "category_id": 7, "bbox": [9, 9, 5, 5]},
            {"id": 4, "image_id": 3, "category_id": 8, "bbox": [1, 1, 2, 2]},
        ],
        "categories": [
            {"id": 7, "name": "Wren", "supercategory": "Aves"},
            {"id": 8, "name": "Trout", "supercategory": "Fish"},
        ],
    }
    write(tmp_path, {"a.json": json.dumps(record)})
    assert rows_of(Coco(tmp_path / "a.json", tmp_path, {"Aves": "bird"}, "train")) == [
        ("1.jpg", "Wren", "bird", (10, 20, 40, 60), "train", "Attribution License"),
        ("2.jpg#2", "Wren", "bird", (0, 0, 5, 5), "train", "Attribution License"),
        ("2.jpg#3", "Wren", "bird", (9, 9, 14, 14), "train", "Attribution License"),
    ]
    source = Coco(tmp_path / "a.json", tmp_path, several="reject")
    assert [v[2] for v in rows_of(source)] == ["Aves", "Fish"]
    assert faults_of(source).keys() == {("2.jpg#2", "several"), ("2.jpg#3", "several")}
    write(tmp_path, {"a.json": json.dumps({"images": []})})
    with pytest.raises(DataError, match="annotations: None must be a list"):
        rows_of(Coco(tmp_path / "a.json", tmp_path))


def test_parquet(tmp_path):
    photo = encoded(drawing(0))
    info = {"info": {"features": {"label": {"names": ["apple_pie", "ramen"], "_type": "ClassLabel"}}}}
    table = pa.table({"image": [{"bytes": photo, "path": "x.jpg"}] * 3, "label": [1, 0, 9]})
    pq.write_table(
        table.replace_schema_metadata({"huggingface": json.dumps(info)}), tmp_path / "test-00000-of-00001.parquet"
    )
    source = Parquet(tmp_path, "food")
    assert rows_of(source) == [
        ("test-00000-of-00001.parquet#0", "ramen", "food", None, "test", ""),
        ("test-00000-of-00001.parquet#1", "apple pie", "food", None, "test", ""),
    ]
    assert faults_of(source) == {
        ("test-00000-of-00001.parquet#2", "label"): "9 has no name among 2; correct it or `names`"
    }
    assert source.read("test-00000-of-00001.parquet#1") == photo
    with pytest.raises(DataError, match="name one of image, label"):
        rows_of(Parquet(tmp_path, "food", label="fine_label"))
    pq.write_table(table, tmp_path / "test-00000-of-00001.parquet")
    with pytest.raises(DataError, match="without names"):
        rows_of(Parquet(tmp_path, "food"))
