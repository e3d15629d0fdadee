"""The published sets of the data engine, each as a miniature in its own file layout."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.io import savemat

from kvg.catalogue.published import (
    CUB200,
    FGVCAircraft,
    Flowers102,
    Food101,
    INaturalist2017,
    StanfordCars,
    StanfordDogs,
)
from kvg.errors import ConfigError, DataError

from .test_sources import faults_of, rows_of, write


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
    assert rows_of(FGVCAircraft(tmp_path)) == [
        ("data/images/1025794.jpg", "707-320", "aircraft", (2, 143, 998, 431), "train", ""),
        ("data/images/1340192.jpg", "737-200", "aircraft", (8, 172, 1015, 448), "val", ""),
        ("data/images/0056978.jpg", "Boeing 717", "aircraft", (0, 0, 10, 10), "test", ""),
    ]
    with pytest.raises(DataError, match=r"images_family_train\.txt"):
        rows_of(FGVCAircraft(tmp_path, "family"))
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
    assert rows_of(StanfordCars(tmp_path)) == train
    savemat(tmp_path / "cars_test_annos_withlabels.mat", {"annotations": np.array(rows, dtype=fields)})
    assert rows_of(StanfordCars(tmp_path))[2:] == [(v[0].replace("train", "test"), *v[1:4], "test", "") for v in train]


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
    assert rows_of(Food101(tmp_path)) == [
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
    assert rows_of(INaturalist2017(tmp_path, names={"Upupa epops": "Hoopoe"})) == [
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
    assert rows_of(StanfordDogs(tmp_path)) == [
        ("Images/n02085620-Chihuahua/n02085620_7.jpg", "Chihuahua", "dog", (71, 25, 276, 498), "", ""),
        ("Images/n02105855-Shetland_sheepdog/n02105855_2.jpg", "Shetland sheepdog", "dog", (5, 25, 276, 498), "", ""),
    ]
    assert faults_of(StanfordDogs(tmp_path)).keys() == {("Images/n02101556-clumber/n02101556_1.jpg", "several")}


def test_flowers_102(tmp_path):
    savemat(tmp_path / "imagelabels.mat", {"labels": np.array([[2, 1, 2]], dtype=np.uint8)})
    parts = {"trnid": np.array([[3]]), "valid": np.array([[1]]), "tstid": np.array([[2]])}
    savemat(tmp_path / "setid.mat", {name: ids.astype(np.uint16) for name, ids in parts.items()})
    write(tmp_path, {"names.json": '{"1": "pink primrose", "2": "hard-leaved pocket orchid"}'})
    with pytest.raises(DataError, match="cannot be opened"):
        Flowers102(tmp_path, tmp_path / "none.json")
    assert rows_of(Flowers102(tmp_path, tmp_path / "names.json")) == [
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
    assert rows_of(CUB200(tmp_path)) == [
        ("images/001.Black_footed_Albatross/a.jpg", "Black footed Albatross", "bird", (60, 27, 385, 331), "test", ""),
        ("images/036.Northern_Flicker/b.jpg", "Northern Flicker", "bird", (1, 2, 4, 6), "train", ""),
    ]
