"""Tiles of a scanned project: what is for training and nothing else, boxes where the entities are, in any size."""

from __future__ import annotations

import json
import pickle
import random

import numpy as np
import pytest
import yaml
from PIL import Image

from kvg.cli.kvg_data import main
from kvg.composites.catalogue_tiles import CatalogueTiles
from kvg.composites.compositor import Compositor
from kvg.composites.settings import CompositorConfig
from kvg.errors import ConfigError, DataError
from tests.catalogue.conftest import drawing, encoded

GREY, RED, GREEN = (128, 128, 128), (250, 0, 0), (0, 250, 0)


@pytest.fixture
def project(tmp_path):
    """A red square in a large photograph, a green cut-out, and a picture without a box; one more for tests alone."""
    root = tmp_path / "in"
    root.mkdir()
    photo = Image.new("RGB", (1200, 800), GREY)
    photo.paste(RED, (300, 200, 600, 500))
    (root / "red.png").write_bytes(encoded(photo, "PNG"))
    cut = Image.new("RGBA", (200, 100), (255, 0, 255, 0))
    cut.paste((*GREEN, 255), (20, 30, 120, 80))
    (root / "green.png").write_bytes(encoded(cut, "PNG"))
    (root / "boxless.jpg").write_bytes(encoded(drawing(0)))
    rows = [
        {"path": "red.png", "entity": "Red", "category": "thing", "box": [300, 200, 600, 500], "licence": "CC0"},
        {"path": "green.png", "entity": "Green", "category": "thing"},
        {"path": "boxless.jpg", "entity": "Blue", "category": "thing"},
    ]
    (root / "list.json").write_text(json.dumps(rows))
    source = {"class_path": "kvg.catalogue.tables.Table", "init_args": {"path": str(root / "list.json")}}
    path = tmp_path / "project.yaml"
    settings = {"out": str(tmp_path / "out"), "sources": {"mine": source}, "splits": {"val": 0, "test": 0}}
    path.write_text(yaml.safe_dump(settings))
    assert main(["scan", str(path)]) == 0
    return path


def coloured(image, colour):
    """Bounds of what has about this colour and is opaque."""
    pixels = np.asarray(image.convert("RGBA")).astype(int)
    ys, xs = np.nonzero((np.abs(pixels[..., :3] - colour).max(-1) < 60) & (pixels[..., 3] > 127))
    return xs.min(), ys.min(), xs.max() + 1, ys.max() + 1


def seen_of(tiles, entity, seed):
    tile = tiles.tile(entity, random.Random(seed))
    return tile.box, tile.scaled((80, 60)).tobytes()


@pytest.mark.parametrize("max_side", [2000, 300])
def test_boxes_are_where_the_entities_are(project, max_side):
    tiles, seen = CatalogueTiles(project, max_side=max_side, margin=None), set()
    for seed in range(8):
        tile = tiles.tile("Red", random.Random(seed))
        assert max(tile.size) == min(1200, max_side)
        assert np.abs(np.subtract(tile.box, coloured(tile.scaled(tile.size), RED))).max() <= 1
        assert (tile.path, tile.licence) == ("mine/red.png", "CC0")
        seen.add(tile.box)
    assert len(seen) == 2  # as it is, and mirrored


def test_cut_outs_are_cropped_and_keep_their_rims(project):
    tile = CatalogueTiles(project, max_side=50).tile("Green", random.Random(0))
    assert tile.size == (50, 25)
    assert tile.box is None
    assert coloured(tile.scaled(tile.size), GREEN) == (0, 0, 50, 25)  # no magenta of the transparent pixels


def test_what_is_offered(project, tmp_path):
    (tmp_path / "facts.yaml").write_text("Red: red, square\n")
    tiles = CatalogueTiles(project, facts=tmp_path / "facts.yaml")
    assert tiles.categories() == ("thing",)
    assert tiles.entities("thing") == ("Red", "Green")  # nobody knows where in its picture Blue is
    assert tiles.info("Red").traits == ("red", "square")
    assert tiles.info("Green").traits == ()
    assert seen_of(tiles, "Red", 3) == seen_of(pickle.loads(pickle.dumps(tiles)), "Red", 3)
    with pytest.raises(DataError, match="no picture with a box is for test"):
        CatalogueTiles(project, uses=["test"])
    with pytest.raises(ConfigError, match="are not some of train, val, test"):
        CatalogueTiles(project, uses=["tests"])


def test_little_memory_changes_nothing(project):
    small, large = CatalogueTiles(project, cache_mb=0), CatalogueTiles(project)
    for seed in range(6):
        entity = ("Red", "Green")[seed % 2]
        assert seen_of(small, entity, seed) == seen_of(large, entity, seed)
    assert len(small._kept) == 1


def test_a_picture_that_has_changed_is_noticed(project):
    (project.parent / "in/red.png").write_bytes(encoded(drawing(3), "PNG"))
    with pytest.raises(DataError, match="has changed since the scan"):
        CatalogueTiles(project).tile("Red", random.Random(0))


def test_without_a_scan(project):
    (project.parent / "out/catalogue.jsonl").unlink()
    with pytest.raises(DataError, match="run `kvg-data scan` first"):
        CatalogueTiles(project)


def test_what_was_probed_says_who_is_known(project):
    path = project.parent / "out/knowledge.json"
    assert [CatalogueTiles(project).info(name).knowledge for name in ("Red", "Green")] == ["", ""]
    path.write_text('{"Red": 0.3}')  # the lower end of the third of the five published levels
    assert [CatalogueTiles(project).info(name).knowledge for name in ("Red", "Green")] == ["known", ""]
    path.write_text('{"Red": 0.29, "Green": 1}')
    assert [CatalogueTiles(project).info(name).knowledge for name in ("Red", "Green")] == ["unknown", "known"]
    bad = {
        "[1]": "json: is not a JSON object of entity",
        '{"Red": "often"}': "Red: 'often' is neither",
        '{"Red": true}': "Red: True is neither",
        '{"Red": 1e999}': "Red: inf is neither",
        '{"Red": 30}': "Red: 30 is neither an accuracy from 0 to 1",
        "{": "json: cannot be read",
    }
    for text, message in bad.items():
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            CatalogueTiles(project)


def test_samples_tell_tiles_and_licences_in_the_order_of_their_objects(project):
    for index in range(6):
        sample = Compositor(CatalogueTiles(project), CompositorConfig(k_weights={2: 1})).sample(index)
        files = {"Red": "mine/red.png", "Green": "mine/green.png"}
        assert sample.provenance["tiles"] == [files[thing.entity] for thing in sample.objects]
        assert sample.licences == ("CC0",)


@pytest.mark.parametrize(
    ("looks", "message"),
    [
        ("red <|im_end|>", r"Red: may not hold <\|im_end\|>"),
        ("red <box:0>", "Red: may not hold <box:0>"),
        ("<think>red", "Red: may not hold <think>"),
        ({"colour": "red"}, "Red: .* should be traits in words, separated by commas"),
        (["red", ["square"]], "Red: .* should be traits in words"),
        (5, "Red: '5' should be traits in words"),
    ],
)
def test_facts_are_checked_at_start(project, looks, message):
    (project.parent / "facts.yaml").write_text(yaml.safe_dump({"Red": looks}))
    with pytest.raises(DataError, match=message):
        CatalogueTiles(project, facts=project.parent / "facts.yaml")


def test_facts_meet_names_in_one_spelling(project):
    (project.parent / "facts.yaml").write_text("' Red ': red, square")
    assert CatalogueTiles(project, facts=project.parent / "facts.yaml").info("Red").traits == ("red", "square")
