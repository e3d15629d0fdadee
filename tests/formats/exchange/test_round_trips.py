"""Shards to the format of another tool and back: boxes, pictures, and what each format keeps."""

from __future__ import annotations

import json

import pytest

from kvg.cli.convert import FORMS, FROM
from kvg.formats.exchange.registry import FORMATS
from kvg.pipeline.convert import LEFT_OUT
from kvg.pipeline.exchange_sources import SOURCE_FORMS, Input

from .conftest import HEIGHT, WIDTH, build

START = {
    "coco": "annotations.json",
    "yolo": "data.yaml",
    "label-studio": "tasks.json",
    "fiftyone": "labels.json",
    "jsonl-paligemma": "annotations.jsonl",
    "jsonl-florence2": "annotations.jsonl",
    "jsonl-qwen2.5-vl": "annotations.jsonl",
    "jsonl-qwen3-vl": "annotations.jsonl",
    "listing": "listing.jsonl",
}
WHOLE = ("coco", "label-studio", "fiftyone")  # these keep everything
# Largest distance that the format itself allows, in pixels of x and y.
ROUNDED = {
    "jsonl-paligemma": (WIDTH / 1024, HEIGHT / 1024),  # a box at the rim loses a whole step
    "jsonl-florence2": (WIDTH / 1000 / 2 + 1e-6, HEIGHT / 1000 / 2 + 1e-6),
    "jsonl-qwen2.5-vl": (0.5, 0.5),
    "jsonl-qwen3-vl": (WIDTH / 1000 / 2 + 1e-6, HEIGHT / 1000 / 2 + 1e-6),
}


def test_the_command_line_names_all_formats():
    assert set(FORMS) == set(LEFT_OUT)
    assert set(FROM) == set(SOURCE_FORMS)
    assert set(START) == set(FORMATS)


@pytest.mark.parametrize("form", WHOLE)
def test_nothing_is_lost(form, shards, tmp_path, convert, read, samples):
    assert convert(shards, tmp_path / "there", form) == 0
    assert convert(tmp_path / "there" / START[form], tmp_path / "back", "shards", "--from", form) == 0
    assert read(tmp_path / "back") == samples


@pytest.mark.parametrize("form", START)
def test_the_number_of_pictures_is_known_with_the_first_one(form, shards, tmp_path, convert):
    """A progress bar needs it."""
    assert convert(shards, tmp_path / "there", form) == 0
    source = Input(tmp_path / "there" / START[form], form)
    assert source.num_expected() is None
    next(source.annotated())
    assert source.num_expected() == 4


@pytest.mark.parametrize("form", [form for form in START if form not in WHOLE])
def test_boxes_pictures_and_names_come_back(form, shards, tmp_path, convert, read, samples, capsys):
    assert convert(shards, tmp_path / "there", form) == 0
    assert f"{form} cannot store {LEFT_OUT[form]}" in capsys.readouterr().out
    source, category = tmp_path / "there" / START[form], [] if form == "listing" else ["--category", "bird"]
    assert convert(source, tmp_path / "back", "shards", "--from", form, *category) == 0
    after = read(tmp_path / "back")
    assert len(after) == 12  # no form names a target, so each object of a picture is a question
    limits = ROUNDED.get(form, (0.0, 0.0)) * 2
    for number, sample in enumerate(after):
        before = samples[number // 3]
        assert sample.image == before.image
        assert sample.key == f"{before.key}-{number % 3}"
        assert [o.entity for o in sample.objects] == [o.entity for o in before.objects]
        for one, other in zip(before.objects, sample.objects, strict=True):
            distances = [abs(a - b) for a, b in zip(one.box_px, other.box_px, strict=True)]
            assert all(d <= limit for d, limit in zip(distances, limits, strict=True)), (one, other)


@pytest.mark.parametrize("form", START)
def test_the_target_alone(form, shards, tmp_path, convert, read, samples):
    assert convert(shards, tmp_path / "there", form, "--target-only") == 0
    source = tmp_path / "there" / START[form]
    assert convert(source, tmp_path / "back", "shards", "--from", form, "--category", "bird") == 0
    after = read(tmp_path / "back")
    assert [(s.key, s.entity) for s in after] == [(s.key, s.entity) for s in samples]
    assert all(len(s.objects) == 1 and not s.rationale for s in after)


def test_one_format_to_the_next(shards, tmp_path, convert, samples):
    """COCO to YOLO to COCO: pictures stay pictures, they do not become questions."""
    assert convert(shards, tmp_path / "1", "coco") == 0
    assert convert(tmp_path / "1" / "annotations.json", tmp_path / "2", "yolo", "--from", "coco") == 0
    assert convert(tmp_path / "2" / "data.yaml", tmp_path / "3", "coco", "--from", "yolo") == 0
    one, three = (json.loads((tmp_path / n / "annotations.json").read_text("utf-8")) for n in "13")
    assert [image["file_name"] for image in three["images"]] == [image["file_name"] for image in one["images"]]
    assert [a["bbox"] for a in three["annotations"]] == [a["bbox"] for a in one["annotations"]]


def test_texts_that_these_formats_write(tmp_path, samples):
    """Each answer of JSON lines by hand: 17/203*1024 = 85.75, 13/97*1024 = 137.2, 101/203*1024 = 509.5, ..."""
    from kvg.formats.exchange.samples import only_target, picture_of

    picture = only_target(picture_of(samples[1]))  # (17, 13, 101, 59)
    expected = {
        "jsonl-paligemma": "<loc0137><loc0086><loc0623><loc0509> Mérlin ♂",
        "jsonl-florence2": "Mérlin ♂<loc_83><loc_134><loc_497><loc_608>",
        "jsonl-qwen2.5-vl": '[{"bbox_2d": [17, 13, 101, 59], "label": "Mérlin ♂"}]',
        "jsonl-qwen3-vl": '[{"bbox_2d": [84, 134, 498, 608], "label": "Mérlin ♂"}]',
    }
    for form, suffix in expected.items():
        FORMATS[form].write([picture], tmp_path)
        line = json.loads((tmp_path / "annotations.jsonl").read_text("utf-8"))
        assert line["suffix"] == suffix
        assert line["image"] == "k0001.png"
    assert line["prefix"].startswith('Locate every object that matches the description "Mérlin ♂"')


def test_tiny_boxes_keep_an_area(tmp_path, convert, read):
    from kvg.shards.writer import ShardWriter
    from kvg.types import SceneObject

    with ShardWriter(tmp_path / "tiny") as writer:
        writer.write(build(0, objects=(SceneObject("dot", (202.9, 96.9, 203.0, 97.0)),), target=0, rationale=""))
    for number, form in enumerate(ROUNDED):
        assert convert(tmp_path / "tiny", tmp_path / form, form) == 0
        source = tmp_path / form / START[form]
        assert convert(source, tmp_path / f"back-{number}", "shards", "--from", form, "--category", "x") == 0
        assert len(read(tmp_path / f"back-{number}")) == 1
