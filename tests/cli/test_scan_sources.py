"""`kvg-data scan` on lists as people bring them: what is used, what is not and why, and what it says of the whole."""

from __future__ import annotations

import json
import random
import unicodedata

import numpy as np
import pytest
import yaml
from PIL import Image, ImageDraw

from kvg.catalogue.entry import open_entry, read_catalogue
from kvg.cli.kvg_data import main
from kvg.composites.catalogue_tiles import CatalogueTiles
from kvg.pipeline.settings.project import load_project
from tests.catalogue.conftest import drawing, encoded

TABLE, COCO = "kvg.catalogue.tables.Table", "kvg.catalogue.tables.Coco"


def project(tmp_path, name="made", **sections):
    path = tmp_path / f"{name}.yaml"
    splits = {"val": 0, "test": 0}
    path.write_text(yaml.safe_dump({"out": str(tmp_path / name), "splits": splits, **sections}))
    return path


def lines(tmp_path, rows, name="made", splits=None, **settings):
    """A project whose one source is a list of JSON lines in ``in``."""
    (tmp_path / "in").mkdir(exist_ok=True)
    path = tmp_path / "in/l.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    source = {"class_path": TABLE, "init_args": {"path": str(path), **settings}}
    return project(tmp_path, name, sources={"mine": source}, **({"splits": splits} if splits else {}))


def entries(tmp_path, name="made"):
    return {entry.ref: entry for entry in read_catalogue(tmp_path / name / "catalogue.jsonl")}


def rejected(tmp_path, name="made"):
    found = map(json.loads, (tmp_path / name / "rejected.jsonl").read_text().splitlines())
    return {record["ref"]: (record["field"], record["reason"]) for record in found}


def report(tmp_path, name="made"):
    return json.loads((tmp_path / name / "scan.json").read_text())


def put(tmp_path, name, image, kind="PNG", **options):
    (tmp_path / "in").mkdir(exist_ok=True)
    (tmp_path / "in" / name).write_bytes(encoded(image, kind, **options))


def test_one_empty_path_of_a_csv_costs_one_row(tmp_path, capsys):
    put(tmp_path, "b.jpg", drawing(0), "JPEG")
    (tmp_path / "in/l.csv").write_text("path,entity,category\n,Wren,bird\nb.jpg,Hobby,bird\n")
    source = {"class_path": TABLE, "init_args": {"path": str(tmp_path / "in/l.csv")}}
    assert main(["scan", str(project(tmp_path, sources={"mine": source}))]) == 0
    assert list(entries(tmp_path)) == ["b.jpg"]
    [(ref, (field, _))] = rejected(tmp_path).items()
    assert (ref.endswith("l.csv line 2"), field) == (True, "path")
    assert "1 left out (path 1)" in capsys.readouterr().out
    assert report(tmp_path)["rejected"] == {"path": 1}


# Boxes of a 200 x 100 picture in x, y, width, height; the last two also lie in it as two corners.
WIDE = [[120, 40, 60, 30], [100, 50, 90, 40], [150, 10, 40, 80], [90, 60, 80, 30], [130, 20, 60, 10], [80, 80, 70, 15]]
BY_CHANCE = [[10, 10, 60, 70], [20, 5, 90, 60]]


@pytest.mark.parametrize("num_wrong", [6, 2])
def test_a_list_in_another_form_is_not_half_believed(tmp_path, capsys, num_wrong):
    boxes = WIDE[:num_wrong] + BY_CHANCE * (4 if num_wrong == 2 else 1)
    rows = []
    for number, box in enumerate(boxes):
        put(tmp_path, f"{number}.jpg", drawing(number, (200, 100)), "JPEG")
        rows.append({"path": f"{number}.jpg", "entity": "Wren", "category": "bird", "box": box})
    told = (
        f"mine: {num_wrong} of {len(boxes)} boxes do not lie inside their pictures as xyxy in pixels; all would as xywh"
    )
    if num_wrong == 6:
        rows.append({"path": "boxless.jpg", "entity": "Wren", "category": "bird"})
        put(tmp_path, "boxless.jpg", drawing(99))
    assert main(["scan", str(lines(tmp_path, rows))]) == 0
    assert told in capsys.readouterr().out
    assert report(tmp_path)["suspicions"][0].startswith(told)
    assert "state box_unit: pixels and box_format: xywh" in report(tmp_path)["suspicions"][0]
    if num_wrong == 6:
        assert list(entries(tmp_path)) == ["boxless.jpg"]
        assert rejected(tmp_path)["7.jpg"][1].startswith("lies inside its picture by chance: 6 of 8 boxes do not")
    else:
        assert len(entries(tmp_path)) == 8
    assert main(["scan", str(lines(tmp_path, rows, "right", box_format="xywh"))]) == 0
    found = [entry.box_px for entry in entries(tmp_path, "right").values() if entry.box_px]
    assert found == [(x, y, x + w, y + h) for x, y, w, h in boxes]
    assert report(tmp_path, "right")["suspicions"] == []


def test_a_list_that_loses_all_its_pictures_to_another_form_is_told_of_it(tmp_path, capsys):
    rows = []
    for number, box in enumerate(WIDE[:6]):
        put(tmp_path, f"{number}.jpg", drawing(number, (200, 100)), "JPEG")
        rows.append({"path": f"{number}.jpg", "entity": "Wren", "category": "bird", "box": box})
    assert main(["scan", str(lines(tmp_path, rows))]) == 2
    assert "all would as xywh in pixels: state box_unit: pixels and box_format: xywh" in capsys.readouterr().err


def test_one_wrong_box_says_nothing_of_the_others(tmp_path):
    rows = []
    for number, box in enumerate([[10, 10, 150, 90], [50, 20, 190, 90], [30, 20, 500, 90], [100, 60, 150, 95]]):
        put(tmp_path, f"{number}.jpg", drawing(number, (200, 100)), "JPEG")
        rows.append({"path": f"{number}.jpg", "entity": "Wren", "category": "bird", "box": box})
    assert main(["scan", str(lines(tmp_path, rows))]) == 0
    assert report(tmp_path)["suspicions"] == []
    assert len(entries(tmp_path)) == 3


@pytest.mark.parametrize("turned", range(1, 9))
def test_boxes_of_raw_pixels_are_turned_with_the_picture(tmp_path, turned):
    image = Image.new("RGB", (120, 90), (128, 128, 128))
    image.paste((250, 0, 0), (20, 10, 70, 40))
    exif = Image.Exif()
    exif[0x0112] = turned
    put(tmp_path, "a.png", image, exif=exif)
    row = {"path": "a.png", "entity": "Red", "category": "thing", "box": [20, 10, 50, 30]}
    path = lines(tmp_path, [row], boxes_of="raw", box_format="xywh")
    assert main(["scan", str(path)]) == 0
    entry = entries(tmp_path)["a.png"]
    upright = np.asarray(open_entry(load_project(path).build_sources(), entry, 10**8)).astype(int)
    ys, xs = np.nonzero(np.abs(upright - (250, 0, 0)).max(-1) < 60)
    assert entry.box_px == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    assert (entry.width, entry.height) == ((120, 90) if turned < 5 else (90, 120))


def objects(tmp_path, **settings):
    """COCO's annotations of a picture with three squares, the last two of which overlap, and of one with one square."""
    image = drawing(3, (300, 200))
    boxes = {"Red": (20, 40, 60, 60), "Green": (150, 30, 60, 60), "Blue": (190, 30, 60, 60)}
    colours = {"Red": (250, 0, 0), "Green": (0, 250, 0), "Blue": (0, 0, 250)}
    for name, (x, y, w, h) in boxes.items():
        ImageDraw.Draw(image).rectangle((x, y, x + w - 1, y + h - 1), fill=colours[name])
    put(tmp_path, "1.png", image)
    put(tmp_path, "2.png", drawing(4, (300, 200)))
    kinds = [{"id": n, "name": name, "supercategory": "thing"} for n, name in enumerate(boxes)]
    notes = [{"id": 10 + n, "image_id": 1, "category_id": n, "bbox": box} for n, box in enumerate(boxes.values())]
    notes += [{"id": 20, "image_id": 2, "category_id": 0, "bbox": [5, 5, 100, 100]}]
    images = [{"id": n, "file_name": f"{n}.png"} for n in (1, 2, 3)]
    (tmp_path / "in/a.json").write_text(json.dumps({"images": images, "annotations": notes, "categories": kinds}))
    settings = {"path": str(tmp_path / "in/a.json"), "root": str(tmp_path / "in"), **settings}
    return project(tmp_path, sources={"mine": {"class_path": COCO, "init_args": settings}})


def test_each_object_of_a_picture_is_cut_out(tmp_path, capsys):
    path = objects(tmp_path)
    assert main(["scan", str(path)]) == 0
    found = entries(tmp_path)
    assert list(found) == ["1.png#10", "2.png"]
    reasons = rejected(tmp_path)
    assert {ref: field for ref, (field, _) in reasons.items()} == {
        "1.png#11": "overlap",  # a third of each is covered by the other
        "1.png#12": "overlap",
        "3.png": "annotations",
    }
    assert "is covered by another object's to 33%, more than max_overlap 0.2" in reasons["1.png#11"][1]
    assert "3 left out (annotations 1, overlap 2)" in capsys.readouterr().out
    red = found["1.png#10"]  # 60 x 60 at (20, 40), with a margin of 9
    assert (red.cut_px, red.box_px, red.width, red.height) == ((11, 31, 89, 109), (9, 9, 69, 69), 78, 78)
    picture = np.asarray(open_entry(load_project(path).build_sources(), red, 10**8))
    assert (picture[9:69, 9:69] == (250, 0, 0)).all()
    tiles = CatalogueTiles(path)
    reds = {tiles.tile("Red", random.Random(seed)).path for seed in range(20)}
    assert reds == {"mine/1.png#10", "mine/2.png"}
    assert main(["scan", str(objects(tmp_path, max_overlap=0.5, margin=1.0))]) == 0
    green = entries(tmp_path)["1.png#11"]
    assert green.cut_px == (90, 0, 270, 150)  # the other one cannot be cut off, since it reaches into the box
    assert entries(tmp_path)["1.png#10"].cut_px == (0, 0, 140, 160)


def test_pictures_with_several_objects_are_left_out_by_name(tmp_path):
    assert main(["scan", str(objects(tmp_path, several="reject"))]) == 0
    assert list(entries(tmp_path)) == ["2.png"]
    assert [ref for ref, (field, _) in rejected(tmp_path).items() if field == "several"] == [
        "1.png#10", "1.png#11", "1.png#12",
    ]  # fmt: skip


def test_a_benchmark_picture_is_found_behind_the_cuts_of_it(tmp_path):
    path = objects(tmp_path)
    (tmp_path / "bench").mkdir()
    Image.open(tmp_path / "in/1.png").resize((150, 100)).save(tmp_path / "bench/x.jpg")
    for name, data in (("._x.jpg", b"AppleDouble"), ("broken.jpg", b"nothing")):
        (tmp_path / "bench" / name).write_bytes(data)
    settings = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**settings, "exclude": [str(tmp_path / "bench")]}))
    assert main(["scan", str(path)]) == 0
    assert list(entries(tmp_path)) == ["2.png"]
    assert "x.jpg, which must not be trained on" in rejected(tmp_path)["1.png#10"][1]
    hidden, broken = report(tmp_path)["remarks"]
    assert hidden.startswith("exclude: 1 hidden or system files")
    assert "1 pictures" in broken
    assert "broken.jpg" in broken


def test_hidden_and_system_files_are_counted(tmp_path, capsys):
    root = tmp_path / "in"
    for number, name in enumerate(
        ("bird/Wren/1.jpg", "bird/Wren/._1.jpg", "bird/Wren/.trash-0.jpg", "bird/.ipynb_checkpoints/1.jpg",
         "__MACOSX/bird/Wren/1.jpg", "@eaDir/bird/1.jpg", "bird/Wren/Thumbs.db", "$RECYCLE.BIN/a.jpg")
    ):  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encoded(drawing(0 if "trash" in name else number)))
    source = {"class_path": "kvg.catalogue.folders.ImageFolder", "init_args": {"root": str(root)}}
    assert main(["scan", str(project(tmp_path, sources={"mine": source}))]) == 0
    assert list(entries(tmp_path)) == ["bird/Wren/1.jpg"]  # not displaced by its copy in the trash
    assert "7 left out (hidden 7)" in capsys.readouterr().out


def test_one_name_in_several_spellings(tmp_path, capsys):
    names = [
        "Caf\u00e9 racer",
        unicodedata.normalize("NFD", "Caf\u00e9 racer"),
        " Caf\u00e9\u00a0 racer",
        "Hobby",
        "hobby",
    ]
    rows = []
    for number, name in enumerate(names):
        put(tmp_path, f"{number}.jpg", drawing(number), "JPEG")
        rows.append({"path": f"{number}.jpg", "entity": name, "category": "B\u00e9b\u00e9"})
    splits = {"val": 0, "test": 0, "unseen": [unicodedata.normalize("NFD", "B\u00e9b\u00e9")]}
    assert main(["scan", str(lines(tmp_path, rows, splits=splits))]) == 0
    found = entries(tmp_path).values()
    assert {entry.entity for entry in found} == {"Caf\u00e9 racer", "Hobby", "hobby"}
    assert {entry.split for entry in found} == {"unseen"}
    told = "1 entities are written in different capitals, and count as several: 'Hobby' (1) and 'hobby' (1)"
    assert report(tmp_path)["suspicions"] == [told]
    assert f"suspicion: {told}" in capsys.readouterr().out


def test_a_path_in_another_form_of_unicode_finds_its_file(tmp_path):
    put(tmp_path, unicodedata.normalize("NFD", "\u00e9.jpg"), drawing(0), "JPEG")
    assert main(["scan", str(lines(tmp_path, [{"path": "\u00e9.jpg", "entity": "E", "category": "b"}]))]) == 0
    assert list(entries(tmp_path)) == ["\u00e9.jpg"]


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"splits": {"unseen": "bird"}}, "splits.unseen: 'bird' should be a list"),
        ({"splits": {"val": "x"}}, "splits.val: 'x' should be a number"),
        ({"splits": {"val": None}}, "splits.val: "),
        ({"splits": {"copy_distance": 2.5}}, "splits.copy_distance: 2.5 should be a whole number"),
        ({"splits": {"copy_change": 300}}, "splits.copy_change: 300 is not within 0-255"),
        ({"splits": {"two_names": "guess"}}, "splits.two_names: 'guess'"),
        ({"scan": {"min_side": True}}, "scan.min_side: True should be a whole number"),
        ({"scan": []}, "scan: [] should be a mapping of `name: value` lines"),
        ({"exclude": "bench"}, "exclude: 'bench' should be a list"),
        ({"exclude": 5}, "exclude: 5 should be a list"),
        ({"out": ["x"]}, "out: ['x'] should be a path"),
        ({"seed": True}, "seed: True"),
        ({"sources": {"a": {"class_path": TABLE, "init_args": {"path": 5}}}}, "sources.a.init_args"),
        ({"sources": {"a": {"class_path": TABLE, "init_args": ["x"]}}}, "sources.a.init_args"),
        ({"sources": {"a": None}}, "sources.a"),
    ],
)
def test_mistyped_settings(tmp_path, capsys, sections, message):
    put(tmp_path, "a.jpg", drawing(0))
    source = {
        "class_path": "kvg.catalogue.folders.ImageFolder",
        "init_args": {"root": str(tmp_path), "categories": {"in": "b"}},
    }
    assert main(["scan", str(project(tmp_path, **{"sources": {"mine": source}, **sections}))]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "path,entity,category\n"])
def test_a_list_without_rows_is_named(tmp_path, capsys, text):
    (tmp_path / "l.csv").write_text(text)
    source = {"class_path": TABLE, "init_args": {"path": str(tmp_path / "l.csv")}}
    assert main(["scan", str(project(tmp_path, sources={"mine": source}))]) == 2
    assert "l.csv holds no row" in capsys.readouterr().err


@pytest.mark.parametrize("pattern", ["", "/x", "../*.parquet"])
def test_a_pattern_that_leads_elsewhere(tmp_path, capsys, pattern):
    (tmp_path / "in").mkdir()
    (tmp_path / "x.parquet").write_bytes(b"")
    settings = {"root": str(tmp_path / "in"), "category": "bird", "pattern": pattern}
    source = {"class_path": "kvg.catalogue.tables.Parquet", "init_args": settings}
    assert main(["scan", str(project(tmp_path, sources={"mine": source}))]) == 2
    assert "pattern" in capsys.readouterr().err
