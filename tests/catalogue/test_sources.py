"""Lists and folders of pictures, in their published layouts as miniatures with the published file formats."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.io import savemat

from kvg.catalogue.folders import ImageFolder
from kvg.catalogue.listing import Listing, Remark, Unusable
from kvg.catalogue.published import (
    CUB200,
    FGVCAircraft,
    Flowers102,
    Food101,
    INaturalist2017,
    StanfordCars,
    StanfordDogs,
)
from kvg.catalogue.tables import Coco, Parquet, Table
from kvg.errors import ConfigError, DataError

from .conftest import drawing, encoded

CORNERS = ("x1", "y1", "x2", "y2")


def told(source):
    """What a source lists; boxes as corners in its unit."""
    found = [v for v in source.listings() if isinstance(v, Listing)]
    return [(v.ref, v.entity, v.category, corners(v), v.part, v.licence) for v in found]


def corners(listing):
    form = listing.rules.form
    return None if listing.box is None else form.corners(form.numbers(listing.box, listing.ref, "box"))


def faults(source):
    """What it cannot list."""
    return {(v.ref, v.field): v.reason for v in source.listings() if isinstance(v, Unusable)}


def remarks(source):
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
    assert told(ImageFolder(tmp_path, exclude=["*/cartoon/*"], licence="CC0")) == [
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
    first, second = told(Table(path, columns={"path": "file"}, category="thing"))
    assert first[:3] + first[4:] == ("a.jpg", "Wren", "bird", "", "CC0")
    assert [float(v) for v in first[3]] == [1, 2, 30, 40.5]
    assert second == ("b, c.jpg", "Österreich 🦉", "thing", None, "", "")


def test_table_with_a_box_column(tmp_path):
    path = tmp_path / "list.jsonl"
    path.write_text('{"path": "a.jpg", "entity": "Wren", "category": "bird", "box": [1, 2, 30, 40], "part": "val"}\n')
    assert told(Table(path)) == [("a.jpg", "Wren", "bird", (1, 2, 30, 40), "val", "")]
    path.write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        told(Table(path))


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
    assert told(Coco(tmp_path / "a.json", tmp_path, {"Aves": "bird"}, "train")) == [
        ("1.jpg", "Wren", "bird", (10, 20, 40, 60), "train", "Attribution License"),
        ("2.jpg#2", "Wren", "bird", (0, 0, 5, 5), "train", "Attribution License"),
        ("2.jpg#3", "Wren", "bird", (9, 9, 14, 14), "train", "Attribution License"),
    ]
    source = Coco(tmp_path / "a.json", tmp_path, several="reject")
    assert [v[2] for v in told(source)] == ["Aves", "Fish"]
    assert faults(source).keys() == {("2.jpg#2", "several"), ("2.jpg#3", "several")}
    write(tmp_path, {"a.json": json.dumps({"images": []})})
    with pytest.raises(DataError, match="annotations: None must be a list"):
        told(Coco(tmp_path / "a.json", tmp_path))


def test_parquet(tmp_path):
    photo = encoded(drawing(0))
    info = {"info": {"features": {"label": {"names": ["apple_pie", "ramen"], "_type": "ClassLabel"}}}}
    table = pa.table({"image": [{"bytes": photo, "path": "x.jpg"}] * 3, "label": [1, 0, 9]})
    pq.write_table(
        table.replace_schema_metadata({"huggingface": json.dumps(info)}), tmp_path / "test-00000-of-00001.parquet"
    )
    source = Parquet(tmp_path, "food")
    assert told(source) == [
        ("test-00000-of-00001.parquet#0", "ramen", "food", None, "test", ""),
        ("test-00000-of-00001.parquet#1", "apple pie", "food", None, "test", ""),
    ]
    assert faults(source) == {
        ("test-00000-of-00001.parquet#2", "label"): "9 has no name among 2; correct it or `names`"
    }
    assert source.read("test-00000-of-00001.parquet#1") == photo
    with pytest.raises(DataError, match="name one of image, label"):
        told(Parquet(tmp_path, "food", label="fine_label"))
    pq.write_table(table, tmp_path / "test-00000-of-00001.parquet")
    with pytest.raises(DataError, match="without names"):
        told(Parquet(tmp_path, "food"))


def test_fgvc_aircraft(tmp_path):
    write(
        tmp_path,
        {
            "data/images_box.txt": "1025794 3 144 998 431\n1340192 9 173 1015 448\n0056978 1 1 10 10\n",
            "data/images_variant_train.txt": "1025794 707-320\n",
            "data/images_variant_val.txt": "1340192 737-200\n",
            "data/images_variant_test.txt": "0056978 Boeing 717\n",
        },
    )
    assert told(FGVCAircraft(tmp_path)) == [
        ("data/images/1025794.jpg", "707-320", "aircraft", (2, 143, 998, 431), "train", ""),
        ("data/images/1340192.jpg", "737-200", "aircraft", (8, 172, 1015, 448), "val", ""),
        ("data/images/0056978.jpg", "Boeing 717", "aircraft", (0, 0, 10, 10), "test", ""),
    ]
    with pytest.raises(DataError, match=r"images_family_train\.txt"):
        told(FGVCAircraft(tmp_path, "family"))
    with pytest.raises(ConfigError, match="'kind'"):
        FGVCAircraft(tmp_path, "kind")


def test_stanford_cars(tmp_path):
    fields = [("bbox_x1", "O"), ("bbox_y1", "O"), ("bbox_x2", "O"), ("bbox_y2", "O"), ("class", "O"), ("fname", "O")]
    rows = [(39, 116, 569, 375, 2, "00001.jpg"), (1, 1, 868, 587, 1, "00002.jpg")]
    (tmp_path / "devkit").mkdir()
    names = np.array(["AM General Hummer SUV 2000", "Acura RL Sedan 2012"], dtype=object)
    savemat(tmp_path / "devkit/cars_meta.mat", {"class_names": names})
    savemat(tmp_path / "devkit/cars_train_annos.mat", {"annotations": np.array(rows, dtype=fields)})
    train = [
        ("cars_train/00001.jpg", "Acura RL Sedan 2012", "car", (38, 115, 569, 375), "train", ""),
        ("cars_train/00002.jpg", "AM General Hummer SUV 2000", "car", (0, 0, 868, 587), "train", ""),
    ]
    assert told(StanfordCars(tmp_path)) == train
    savemat(tmp_path / "cars_test_annos_withlabels.mat", {"annotations": np.array(rows, dtype=fields)})
    assert told(StanfordCars(tmp_path))[2:] == [(v[0].replace("train", "test"), *v[1:4], "test", "") for v in train]


def test_food_101(tmp_path):
    write(
        tmp_path,
        {
            "meta/classes.txt": "apple_pie\nbeef_tartare\n",
            "meta/labels.txt": "Apple pie\nBeef tartare\n",
            "meta/train.txt": "apple_pie/1005649\n",
            "meta/test.txt": "beef_tartare/77\n",
        },
    )
    assert told(Food101(tmp_path)) == [
        ("images/apple_pie/1005649.jpg", "Apple pie", "food", None, "train", ""),
        ("images/beef_tartare/77.jpg", "Beef tartare", "food", None, "test", ""),
    ]


def test_inaturalist_2017(tmp_path):
    files = ["Aves/Upupa epops/a.jpg", "Reptilia/Vipera berus/b.jpg", "Insecta/Apis mellifera/c.jpg", "Aves/Two/d.jpg"]
    images = [{"id": n, "file_name": f"train_val_images/{name}", "license": 2} for n, name in enumerate(files)]
    record = {"images": images, "licenses": [{"id": 2, "name": "CC BY-NC"}], "annotations": [], "categories": []}
    boxes = [{"image_id": 0, "bbox": [1, 2, 3, 4]}, *({"image_id": 3, "bbox": [n, n, 5, 5]} for n in (1, 2))]
    write(
        tmp_path,
        {"train2017.json": json.dumps(record), "train_2017_bboxes.json": json.dumps({"annotations": boxes})},
    )
    assert told(INaturalist2017(tmp_path, names={"Upupa epops": "Hoopoe"})) == [
        ("train_val_images/Aves/Upupa epops/a.jpg", "Hoopoe", "bird", (1, 2, 4, 6), "train", "CC BY-NC"),
        ("train_val_images/Reptilia/Vipera berus/b.jpg", "Vipera berus", "reptilia", None, "train", "CC BY-NC"),
    ]


def test_stanford_dogs(tmp_path):
    box = (
        "<object><name>x</name><bndbox><xmin>{}</xmin><ymin>25</ymin><xmax>276</xmax><ymax>498</ymax></bndbox></object>"
    )
    write(
        tmp_path,
        {
            "Images/n02085620-Chihuahua/n02085620_7.jpg": b"",
            "Images/n02101556-clumber/n02101556_1.jpg": b"",
            "Images/n02105855-Shetland_sheepdog/n02105855_2.jpg": b"",
            "Annotation/n02085620-Chihuahua/n02085620_7": f"<annotation>{box.format(71)}</annotation>",
            "Annotation/n02101556-clumber/n02101556_1": f"<annotation>{box.format(1) * 2}</annotation>",
            "Annotation/n02105855-Shetland_sheepdog/n02105855_2": f"<annotation>{box.format(5)}</annotation>",
        },
    )
    assert told(StanfordDogs(tmp_path)) == [
        ("Images/n02085620-Chihuahua/n02085620_7.jpg", "Chihuahua", "dog", (71, 25, 276, 498), "", ""),
        ("Images/n02105855-Shetland_sheepdog/n02105855_2.jpg", "Shetland sheepdog", "dog", (5, 25, 276, 498), "", ""),
    ]
    assert faults(StanfordDogs(tmp_path)).keys() == {("Images/n02101556-clumber/n02101556_1.jpg", "several")}


def test_flowers_102(tmp_path):
    savemat(tmp_path / "imagelabels.mat", {"labels": np.array([[2, 1, 2]], dtype=np.uint8)})
    parts = {"trnid": np.array([[3]]), "valid": np.array([[1]]), "tstid": np.array([[2]])}
    savemat(tmp_path / "setid.mat", {name: ids.astype(np.uint16) for name, ids in parts.items()})
    write(tmp_path, {"names.json": '{"1": "pink primrose", "2": "hard-leaved pocket orchid"}'})
    with pytest.raises(DataError, match="cannot be opened"):
        Flowers102(tmp_path, tmp_path / "none.json")
    assert told(Flowers102(tmp_path, tmp_path / "names.json")) == [
        ("jpg/image_00001.jpg", "hard-leaved pocket orchid", "flower", None, "val", ""),
        ("jpg/image_00002.jpg", "pink primrose", "flower", None, "test", ""),
        ("jpg/image_00003.jpg", "hard-leaved pocket orchid", "flower", None, "train", ""),
    ]


def test_cub_200(tmp_path):
    write(
        tmp_path,
        {
            "images.txt": "1 001.Black_footed_Albatross/a.jpg\n2 036.Northern_Flicker/b.jpg\n",
            "bounding_boxes.txt": "1 60.0 27.0 325.0 304.0\n2 1.0 2.0 3.0 4.0\n",
            "train_test_split.txt": "1 0\n2 1\n",
        },
    )
    assert told(CUB200(tmp_path)) == [
        ("images/001.Black_footed_Albatross/a.jpg", "Black footed Albatross", "bird", (60, 27, 385, 331), "test", ""),
        ("images/036.Northern_Flicker/b.jpg", "Northern Flicker", "bird", (1, 2, 4, 6), "train", ""),
    ]
