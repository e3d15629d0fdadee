"""Readers of the data engine: sources of pictures, project files, the catalogue."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import savemat

from kvg.catalogue.entry import Entry, values_of

from .cases import Case, picture, source
from .formats import image


def coco() -> dict[str, Any]:
    """COCO's annotations, one picture with two boxes."""
    boxes = [(1, [8, 8, 20, 20]), (2, [5, 5, 20, 30]), (2, [30, 5, 20, 30]), (3, [1, 1, 40, 40])]
    return {
        "info": {"year": 2014},
        "licenses": [{"id": 4, "name": "CC0", "url": "http://a"}],
        "images": [{"id": n, "file_name": f"{n}.jpg", "license": 4, "width": 64, "height": 48} for n in (1, 2, 3)],
        "annotations": [
            {"id": i, "image_id": n, "category_id": 7, "bbox": box, "iscrowd": 0, "area": 9.0}
            for i, (n, box) in enumerate(boxes)
        ],
        "categories": [{"id": 7, "name": "Wren", "supercategory": "Aves"}],
    }


def _mat(**arrays: Any) -> bytes:
    file = io.BytesIO()
    savemat(file, arrays)
    return file.getvalue()


def _pictures(*names: str) -> dict[str, bytes]:
    return {name: picture(number) for number, name in enumerate(names)}


PROJECT = {
    "seed": 0,
    "out": "OUT",
    "sources": {"mine": {"class_path": "kvg.catalogue.tables.Table", "init_args": {"path": "ROOT/list.jsonl"}}},
    "scan": {"min_side": 0, "max_pixels": 64_000_000},
    "splits": {"unseen": [], "held_out": 0.0, "val": 0, "test": 0, "copy_distance": 0},
    "exclude": [],
    "compose": {"sets": {"train": {"num": 2, "uses": ["train"]}}, "facts": None, "compositor": {}},
    "rationalize": {"sets": None, "writer": "cards", "max_attempts": 3},
}  # fmt: skip


def _project(folder: Path) -> int:
    from kvg.cli.kvg_data import main

    path = folder / "project.yaml"
    path.write_bytes(
        path.read_bytes().replace(b"OUT", str(folder / "out").encode()).replace(b"ROOT", str(folder / "in").encode())
    )
    code = main(["scan", str(path)])
    return code or main(["compose", str(path)]) or main(["rationalize", str(path)])


def _scanned(folder: Path) -> int:
    """Commands behind ``scan`` on its damaged files."""
    from kvg.cli.kvg_data import main

    project = json.loads(json.dumps(PROJECT).replace("OUT", str(folder / "out")).replace("ROOT", str(folder / "in")))
    project["compose"]["facts"] = str(folder / "facts.yaml")
    project["splits"] = {"val": 0, "test": 0, "copy_distance": 0}
    path = folder / "made.yaml"
    path.write_text(json.dumps(project))
    return main(["compose", str(path)]) or main(["rationalize", str(path)])


def catalogue_entries() -> list[dict[str, Any]]:
    names = {"Merlin": 0, "Hobby": 1, "Wren": 2}
    entries = []
    for name, number in names.items():
        data = picture(number)
        entry = Entry(
            source="mine", ref=f"bird/{name}/{number}.jpg", entity=name, category="bird", width=64, height=48,
            sha256=hashlib.sha256(data).hexdigest(), fingerprint=f"{number:040x}", box_px=(8.0, 8.0, 30.0, 30.0),
            box_from="given", split="seen", use="train",
        )  # fmt: skip
        entries.append(values_of(entry))
    return entries


BIRDS = {f"in/bird/{name}/{number}.jpg": picture(number) for number, name in enumerate(("Merlin", "Hobby", "Wren"))}

BIRDS["in/list.jsonl"] = [
    {"path": f"bird/{name}/{number}.jpg", "entity": name, "category": "bird", "box": [8, 8, 28, 30]}
    for number, name in enumerate(("Merlin", "Hobby", "Wren"))
]

CASES: dict[str, Case] = {
    "folder": Case(
        {**BIRDS, "in/bird/owl.jpg": picture(5), "in/bird/owl.txt": b"a Barn Owl (white)\n"},
        ("in/bird/Merlin/0.jpg", "in/bird/owl.jpg", "in/bird/owl.txt"),
        source("kvg.catalogue.folders.ImageFolder", root="@in"),
    ),
    "table csv": Case(
        {
            **_pictures("a.jpg", "b.jpg"),
            "l.csv": [
                {"path": p, "entity": e, "category": "bird", "x1": 8, "y1": 8, "x2": 30, "y2": 30}
                for p, e in (("a.jpg", "Wren"), ("b.jpg", "Hobby"))
            ],
        },
        ("l.csv",),
        source("kvg.catalogue.tables.Table", path="@l.csv"),
    ),
    "table json": Case(
        {
            **_pictures("a.jpg", "b.jpg"),
            "l.json": [
                {"path": p, "entity": e, "category": "bird", "box": [8, 8, 30, 30], "licence": "CC0"}
                for p, e in (("a.jpg", "Wren"), ("b.jpg", "Hobby"))
            ],
        },
        ("l.json",),
        source("kvg.catalogue.tables.Table", path="@l.json"),
    ),
    "table lines": Case(
        {
            **_pictures("a.jpg", "b.jpg"),
            "l.jsonl": [
                {"path": p, "entity": e, "category": "bird", "box": [8, 8, 30, 30], "part": "val"}
                for p, e in (("a.jpg", "Wren"), ("b.jpg", "Hobby"))
            ],
        },
        ("l.jsonl",),
        source("kvg.catalogue.tables.Table", path="@l.jsonl"),
    ),
    "coco": Case(
        {**_pictures("1.jpg", "2.jpg", "3.jpg"), "c.json": coco()},
        ("c.json",),
        source("kvg.catalogue.tables.Coco", path="@c.json", root="@."),
    ),
    "parquet": Case(
        {"p/train-0.parquet": {"image": [image(0), image(1)], "label": ["Wren", "Hobby"]}},
        ("p/train-0.parquet",),
        source("kvg.catalogue.tables.Parquet", root="@p", category="bird"),
    ),
    "fgvc": Case(
        {
            **{f"data/images/{n}.jpg": picture(n) for n in (1, 2, 3)},
            "data/images_box.txt": b"1 3 4 40 40\n2 9 10 40 40\n3 1 1 10 10\n",
            "data/images_variant_train.txt": b"1 707-320\n",
            "data/images_variant_val.txt": b"2 737-200\n",
            "data/images_variant_test.txt": b"3 Boeing 717\n",
        },
        ("data/images_box.txt", "data/images_variant_train.txt"),
        source("kvg.catalogue.published.FGVCAircraft", root="@."),
    ),
    "cub": Case(
        {
            "images/001.Albatross/a.jpg": picture(),
            "images/036.Flicker/b.jpg": picture(1),
            "images.txt": b"1 001.Albatross/a.jpg\n2 036.Flicker/b.jpg\n",
            "bounding_boxes.txt": b"1 6.0 7.0 32.0 30.0\n2 1.0 2.0 30.0 40.0\n",
            "train_test_split.txt": b"1 0\n2 1\n",
        },
        ("images.txt", "bounding_boxes.txt", "train_test_split.txt"),
        source("kvg.catalogue.published.CUB200", root="@."),
    ),
    "food": Case(
        {
            "images/pie/1.jpg": picture(),
            "images/tart/2.jpg": picture(1),
            "meta/classes.txt": b"pie\ntart\n",
            "meta/labels.txt": b"Pie\nTart\n",
            "meta/train.txt": b"pie/1\n",
            "meta/test.txt": b"tart/2\n",
        },
        ("meta/classes.txt", "meta/labels.txt", "meta/train.txt"),
        source("kvg.catalogue.published.Food101", root="@."),
    ),
    "inaturalist": Case(
        {
            "train_val_images/Aves/Upupa epops/a.jpg": picture(),
            "train2017.json": {
                "images": [{"id": 0, "file_name": "train_val_images/Aves/Upupa epops/a.jpg", "license": 2}],
                "licenses": [{"id": 2, "name": "CC BY-NC"}],
                "annotations": [],
                "categories": [],
            },
            "train_2017_bboxes.json": {"annotations": [{"image_id": 0, "bbox": [1, 2, 30, 40]}]},
        },
        ("train2017.json", "train_2017_bboxes.json"),
        source("kvg.catalogue.published.INaturalist2017", root="@."),
    ),
    "dogs": Case(
        {
            "Images/n02085620-Chihuahua/n02085620_7.jpg": picture(),
            "Annotation/n02085620-Chihuahua/n02085620_7": b"<annotation><object><bndbox><xmin>5</xmin><ymin>5</ymin>"
            b"<xmax>30</xmax><ymax>40</ymax></bndbox></object></annotation>",
        },
        ("Annotation/n02085620-Chihuahua/n02085620_7",),
        source("kvg.catalogue.published.StanfordDogs", root="@."),
    ),
    "cars": Case(
        {
            "cars_train/00001.jpg": picture(),
            "devkit/cars_meta.mat": _mat(class_names=np.array(["AM General Hummer SUV 2000"], dtype=object)),
            "devkit/cars_train_annos.mat": _mat(
                annotations=np.array(
                    [(3, 4, 40, 40, 1, "00001.jpg")],
                    dtype=[(f, "O") for f in ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")],
                )
            ),
        },
        ("devkit/cars_meta.mat", "devkit/cars_train_annos.mat"),
        source("kvg.catalogue.published.StanfordCars", root="@."),
    ),
    "flowers": Case(
        {
            "jpg/image_00001.jpg": picture(),
            "names.json": {"1": "pink primrose", "2": "orchid"},
            "imagelabels.mat": _mat(labels=np.array([[2]], dtype=np.uint8)),
            "setid.mat": _mat(trnid=np.array([[1]]), valid=np.zeros((1, 0)), tstid=np.zeros((1, 0))),
        },
        ("names.json", "imagelabels.mat", "setid.mat"),
        source("kvg.catalogue.published.Flowers102", root="@.", names="@names.json"),
    ),
    "project": Case({**BIRDS, "project.yaml": PROJECT}, ("project.yaml",), _project),
    "catalogue and facts": Case(
        {
            **BIRDS,
            "out/catalogue.jsonl": catalogue_entries(),
            "facts.yaml": {"Merlin": "grey back, streaked", "Hobby": "red legs", "Wren": "small"},
        },
        ("out/catalogue.jsonl", "facts.yaml"),
        _scanned,
    ),
}
