"""One damaged row of a published set costs that row and nothing else."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.io import savemat

from kvg.catalogue.examine import examine
from kvg.catalogue.folders import ImageFolder
from kvg.catalogue.project import ScanSettings
from kvg.catalogue.published import (
    CUB200,
    FGVCAircraft,
    Flowers102,
    Food101,
    INaturalist2017,
    StanfordCars,
    StanfordDogs,
)
from kvg.composites.backgrounds import Photographs
from kvg.errors import ConfigError, DataError

from .conftest import drawing, encoded
from .test_sources import faults_of, remarks_of, rows_of, write


def listed(source):
    """Refs of what is listed, with a box or without; what comes of opening them is not asked."""
    return [v.ref for v in source.listings() if hasattr(v, "entity")]


def refused(source, ref):
    """Field and reason of a listed picture that cannot be used."""
    [listing] = [v for v in source.listings() if v.ref == ref]
    record = examine("s", source, listing, ScanSettings()).record
    return record.ref, record.field


@pytest.mark.parametrize(
    "line", ["2", "2 x 4 40 40", "2 3 4 40", "2 3 4 40 40 9", "2 nan 4 40 40", "2 40 40 3 4", "\ufeff"]
)
def test_a_line_of_aircraft_boxes(tmp_path, line):
    photo = encoded(drawing(0))
    write(tmp_path, {f"data/images/{n}.jpg": photo for n in (1, 2)})
    write(tmp_path, {"data/images_box.txt": f"1 3 4 40 40\n{line}\n"})
    write(tmp_path, {f"data/images_variant_{part}.txt": "" for part in ("val", "test")})
    write(tmp_path, {"data/images_variant_train.txt": "1 707-320\n2 737-200\n3\n"})
    source = FGVCAircraft(tmp_path)
    assert listed(source) == ["data/images/1.jpg", "data/images/2.jpg", "data/images/3.jpg"]
    if line != "\ufeff":
        assert refused(source, "data/images/2.jpg") == ("data/images/2.jpg", "box")
    assert refused(source, "data/images/3.jpg") == ("data/images/3.jpg", "entity")


@pytest.mark.parametrize("line", ["2", "2 1 2 3", "2 x 2 30 40", "2 1 2 -30 40"])
def test_a_line_of_cub(tmp_path, line):
    photo = encoded(drawing(0))
    write(tmp_path, {f"images/001.Wren/{n}.jpg": photo for n in "ab"})
    write(tmp_path, {"images.txt": "1 001.Wren/a.jpg\n2 001.Wren/b.jpg\n7\n", "train_test_split.txt": "1 1\n2\n"})
    write(tmp_path, {"bounding_boxes.txt": f"1 1.0 2.0 30.0 40.0\n{line}\n"})
    source = CUB200(tmp_path)
    assert [row[0] for row in source_rows(source)] == ["images/001.Wren/a.jpg", "images/001.Wren/b.jpg"]
    assert refused(source, "images/001.Wren/b.jpg") == ("images/001.Wren/b.jpg", "box")
    assert list(faults_of(source)) == [("images.txt: '7'", "index")]


def source_rows(source):
    return [(v.ref, v.box) for v in source.listings() if hasattr(v, "entity")]


def test_names_of_food_that_do_not_fit_their_classes(tmp_path):
    files = {
        "meta/train.txt": "pie/1\n",
        "meta/test.txt": "",
        "meta/classes.txt": "pie\ntart\n",
        "meta/labels.txt": "Pie\n",
    }
    with pytest.raises(DataError, match="holds 1 names for 2 of"):
        rows_of(Food101(write(tmp_path, files)))


@pytest.mark.parametrize("image", [None, 5, {}, {"id": 1}, {"id": 1, "file_name": 5}, {"id": 1, "file_name": ""}])
def test_an_image_of_inaturalist(tmp_path, image):
    good = {"id": "0", "file_name": "train_val_images/Aves/Upupa epops/a.jpg", "license": "2"}
    record = {"images": [image, good, {"id": 5, "file_name": "x.jpg"}], "licenses": [{"id": 2, "name": "CC0"}, None, 5]}
    boxes = {"annotations": [None, 5, {"image_id": 0, "bbox": ["1", "2", "30", "40"]}, {"bbox": [1, 2, 3, 4]}]}
    write(tmp_path, {"train2017.json": json.dumps(record), "train_2017_bboxes.json": json.dumps(boxes)})
    source = INaturalist2017(tmp_path)
    assert [(row[0], row[3], row[5]) for row in rows_of(source)] == [(good["file_name"], (1, 2, 31, 42), "CC0")]
    assert len(faults_of(source)) == 1
    assert any("3 boxes belong to no picture" in text for text in remarks_of(source))
    assert any("1 pictures of supercategories that are not in `categories`" in text for text in remarks_of(source))


@pytest.mark.parametrize("bbox", [None, [], [1, 2, 3], "x", {}])
def test_a_box_of_inaturalist(tmp_path, bbox):
    images = [{"id": n, "file_name": f"train_val_images/Aves/Upupa epops/{n}.jpg"} for n in (1, 2)]
    boxes = {"annotations": [{"image_id": 1, "bbox": bbox}, {"image_id": 2, "bbox": [1, 2, 30, 40]}]}
    write(tmp_path, {"train2017.json": json.dumps({"images": images}), "train_2017_bboxes.json": json.dumps(boxes)})
    source = INaturalist2017(tmp_path)
    assert [row[0] for row in rows_of(source)] == [images[1]["file_name"]]
    assert faults_of(source).keys() == {(images[0]["file_name"], "bbox")}


@pytest.mark.parametrize(
    ("note", "field"),
    [(None, "annotation"), ("<a", "annotation"), ("", "annotation"), ("<a/>", "annotation"),
     ("<a><object><bndbox/></object></a>", "box"), ("<a><object><bndbox><xmin>x</xmin></bndbox></object></a>", "box")],
)  # fmt: skip
def test_a_note_of_a_dog(tmp_path, note, field):
    photo = encoded(drawing(0))
    sides = "<xmin>5</xmin><ymin>5</ymin><xmax>50</xmax><ymax>50</ymax>"
    write(tmp_path, {f"Images/n01-Pug/{name}.jpg": photo for name in ("1", "2", "._2")})
    write(tmp_path, {"Annotation/n01-Pug/1": f"<a><object><bndbox>{sides}</bndbox></object></a>"})
    if note is not None:
        write(tmp_path, {"Annotation/n01-Pug/2": note})
    source = StanfordDogs(tmp_path)
    assert listed(source)[0] == "Images/n01-Pug/1.jpg"
    assert ("Images/n01-Pug/._2.jpg", "hidden") in faults_of(source)
    if field == "annotation":
        assert ("Images/n01-Pug/2.jpg", "annotation") in faults_of(source)
    else:
        assert refused(source, "Images/n01-Pug/2.jpg") == ("Images/n01-Pug/2.jpg", "box")


def test_rows_of_cars(tmp_path):
    fields = [("bbox_x1", "O"), ("bbox_y1", "O"), ("bbox_x2", "O"), ("bbox_y2", "O"), ("class", "O"), ("fname", "O")]
    rows = [(3, 4, 40, 40, kind, f"{n}.jpg") for n, kind in ((1, 1), (2, 9), (3, 0))]
    rows += [(3, 4, "x", 40, 1, "4.jpg"), (3, 4, 40, 40, np.zeros((0,)), "5.jpg")]
    (tmp_path / "devkit").mkdir()
    savemat(tmp_path / "devkit/cars_meta.mat", {"class_names": np.array(["Hummer"], dtype=object)})
    savemat(tmp_path / "devkit/cars_train_annos.mat", {"annotations": np.array(rows, dtype=fields)})
    source = StanfordCars(tmp_path)
    assert [row[0] for row in source_rows(source)] == ["cars_train/1.jpg", "cars_train/4.jpg"]
    assert {ref.rpartition(" ")[2] for ref, field in faults_of(source) if field == "class"} == {"1", "2", "4"}
    write(tmp_path, {"cars_train/4.jpg": encoded(drawing(0))})
    assert refused(source, "cars_train/4.jpg") == ("cars_train/4.jpg", "box")
    (tmp_path / "devkit/cars_train_annos.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    with pytest.raises(DataError, match="cars_train_annos"):
        rows_of(source)


@pytest.mark.parametrize(
    "names", ['{"1": "rose"}', '{"1": "rose", "2": ""}', '{"1": "rose", "2": 5}', '{"1": "rose", "2": null}']
)
def test_a_flower_without_a_name(tmp_path, names):
    savemat(tmp_path / "imagelabels.mat", {"labels": np.array([[1, 2]], dtype=np.uint8)})
    savemat(tmp_path / "setid.mat", {name: np.array([[1]]) for name in ("trnid", "valid", "tstid")})
    source = Flowers102(tmp_path, write(tmp_path, {"names.json": names}) / "names.json")
    assert [row[0] for row in rows_of(source)] == ["jpg/image_00001.jpg"]
    assert faults_of(source).keys() == {("jpg/image_00002.jpg", "names")}


def test_a_name_beside_a_picture_that_is_no_text(tmp_path):
    photo = encoded(drawing(0))
    write(
        tmp_path,
        {"bird/a.png": photo, "bird/a.txt": b"\xff\xfe\x00", "bird/b.png": photo, "bird/b.txt": "Cafe\u0301\n"},
    )
    source = ImageFolder(tmp_path)
    assert [row[1] for row in rows_of(source)] == ["Caf\u00e9"]
    assert faults_of(source).keys() == {("bird/a.png", "text")}
    for settings in ({"exclude": "*.png"}, {"categories": ["bird"]}, {"categories": {"bird": None}}):
        with pytest.raises(ConfigError):
            ImageFolder(tmp_path, **settings)


def test_hidden_files_are_no_backgrounds(tmp_path):
    write(tmp_path, {name: encoded(drawing(0)) for name in ("a.jpg", "._a.jpg", "@eaDir/a.jpg", ".git/a.png")})
    assert [path.name for path in Photographs(tmp_path)._paths] == ["a.jpg"]
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(ConfigError, match="contains no pictures"):
        Photographs(tmp_path)
