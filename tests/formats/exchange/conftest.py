"""A set of samples with boxes that no grid holds exactly, and commands on it."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from kvg.cli.kvg_data import main
from kvg.formats.stores import open_store
from kvg.shards.writer import ShardWriter
from kvg.types import Sample, SceneObject

WIDTH, HEIGHT = 203, 97  # primes: hardly any pixel is a round share of a side


def encoded(image, kind="JPEG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def build(number: int, **changes) -> Sample:
    image = Image.new("RGB", (WIDTH, HEIGHT), (40 * number % 256, 90, 120))
    objects = (
        SceneObject("Osprey", (0.0, 0.0, 203.0, 96.0), ("white", "black spots")),
        SceneObject("Mérlin ♂", (17.0, 13.0, 101.0, 59.0)),
        SceneObject("no", (101.25, 20.5, 180.125, 90.0)),  # a word that YAML takes for False
    )
    fields = {
        "key": f"k{number:04d}",
        "image": encoded(image, "PNG" if number % 2 else "JPEG"),
        "width": WIDTH,
        "height": HEIGHT,
        "category": "bird",
        "split": "seen",
        "objects": objects,
        "target": number % 3,
        "rationale": "Look: 1 <box:0> brown; 2 <box:1> grey.",
        "knowledge": "known",
        "licences": ("CC0",),
        "question_id": f"bird/{number}",
        "provenance": {"seed": 3, "layout": "row"},
    }
    return Sample(**{**fields, **changes})


@pytest.fixture
def samples():
    return [build(number) for number in range(4)]


@pytest.fixture
def shards(tmp_path, samples):
    with ShardWriter(tmp_path / "shards", 3) as writer:
        for sample in samples:
            writer.write(sample)
    return tmp_path / "shards"


@pytest.fixture
def convert():
    def run(source, out, form, *more):
        return main(["convert", "--in", str(source), "--out", str(out), "--to", form, *map(str, more)])

    return run


@pytest.fixture
def read():
    def run(path):
        return [sample for part in open_store(path).parts() for _, sample in part.read(None)]

    return run
