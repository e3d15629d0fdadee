"""Photographs cut around their boxes: the box stays on the entity to the pixel, and no object is too small."""

from __future__ import annotations

import io
import json
import random

import numpy as np
import pytest
import yaml
from PIL import Image

from kvg.cli.kvg_data import main
from kvg.composites.catalogue_tiles import CatalogueTiles
from kvg.composites.compositor import Compositor
from kvg.composites.cropping import Cut, tightened
from kvg.composites.settings import CompositorConfig
from kvg.composites.tiles import Picture, Tile
from kvg.errors import ConfigError, DataError

GREY, RED, WHITE = (128, 128, 128), (250, 0, 0), (255, 255, 255)
# (size of the photograph, box of the red entity in it): small in the middle, in corners, thin both ways, all of it.
PHOTOGRAPHS = {
    "small": ((1200, 800), (600, 400, 660, 450)),
    "corner": ((900, 900), (0, 0, 70, 60)),
    "far corner": ((640, 480), (600, 440, 640, 480)),
    "ski": ((800, 600), (250, 300, 550, 308)),
    "pole": ((600, 800), (300, 200, 308, 500)),
    "tiny": ((500, 400), (250, 200, 262, 212)),
    "large": ((400, 300), (20, 30, 380, 280)),
    "whole": ((300, 200), (0, 0, 300, 200)),
}


def photograph(name):
    size, box = PHOTOGRAPHS[name]
    image = Image.new("RGB", size, GREY)
    image.paste(RED, box)
    return image


def extent_of_red(image):
    """Bounds of what is nearer to red than to grey."""
    pixels = np.asarray(image.convert("RGB")).astype(int)
    ys, xs = np.nonzero(pixels[..., 0] - pixels[..., 1] > 125)
    return xs.min(), ys.min(), xs.max() + 1, ys.max() + 1


@pytest.fixture
def project(tmp_path):
    """Every photograph as PNG, scanned; two sources and categories of their own for what must not be mirrored."""
    root = tmp_path / "in"
    root.mkdir()
    rows = []
    for name, (_, box) in PHOTOGRAPHS.items():
        image = photograph(name)
        image.putpixel((image.width - 1, 0), (len(rows), 9, 9))  # no two are copies
        image.save(root / f"{name}.png")
        rows.append({"path": f"{name}.png", "entity": name, "category": "thing", "box": box})
    (root / "list.json").write_text(json.dumps(rows))
    source = {"class_path": "kvg.catalogue.tables.Table", "init_args": {"path": str(root / "list.json")}}
    settings = {
        "out": str(tmp_path / "out"),
        "sources": {"mine": source},
        "splits": {"val": 0, "test": 0, "copy_distance": 0, "two_names": "keep"},  # all are red on grey
    }
    path = tmp_path / "project.yaml"
    path.write_text(yaml.safe_dump(settings))
    assert main(["scan", str(path)]) == 0
    return path


@pytest.mark.parametrize("name", PHOTOGRAPHS)
@pytest.mark.parametrize("margin", [(0, 0), (0.1, 0.5), (3, 3)])
def test_a_cut_keeps_the_box_on_the_entity_to_the_pixel(name, margin):
    size, box = PHOTOGRAPHS[name]
    cut, tile = Cut(margin, least=40), Tile(Picture(photograph(name)), tuple(map(float, box)))
    for seed in range(4):
        rng = random.Random(seed)
        made = cut.draw(tile, rng).mirror(rng)
        assert extent_of_red(made.scaled(made.size)) == made.box  # a whole pixel each, so it is exact
        assert made.box[2] - made.box[0] == box[2] - box[0]
        assert min(made.size) >= min(40, *size)
    widest = cut.widest(tile.box, size)
    assert made.size[0] <= widest[2] - widest[0] + 1


def test_margins_are_shares_of_the_root_of_the_area_and_drawn_anew_for_each_side():
    # The root of 300 x 12 is 60: a margin of 0.5 is 30 pixels on every side.
    assert Cut((0.5, 0.5), 1).widest((250.0, 300.0, 550.0, 312.0), (800, 600)) == (220, 270, 580, 342)
    tile, cut = Tile(Picture(photograph("small")), (600.0, 400.0, 660.0, 450.0)), Cut((0.0, 1.0), 1)
    rooms = set()
    for seed in range(20):
        made = cut.draw(tile, random.Random(seed))
        rooms.add((made.box[0], made.box[1], made.size[0] - made.box[2], made.size[1] - made.box[3]))
    assert len(rooms) == 20
    assert max(max(one) for one in rooms) <= 55  # the root of 3000 is 54.8
    assert len({len(set(one)) for one in rooms} - {1}) >= 1


@pytest.mark.parametrize(
    ("box", "window"),
    [
        ((100.0, 100.0, 110.0, 110.0), (73, 73, 137, 137)),  # 64 pixels around its middle
        ((0.0, 0.0, 10.0, 10.0), (0, 0, 64, 64)),
        ((190.0, 190.0, 200.0, 200.0), (136, 136, 200, 200)),
        ((20.5, 20.5, 100.5, 100.5), (20, 20, 101, 101)),
    ],
)
def test_the_least_side_of_a_cut(box, window):
    assert Cut((0.0, 0.0), 64).widest(box, (200, 200)) == window


def test_the_least_side_where_the_photograph_has_no_more():
    assert Cut((0.0, 0.0), 64).widest((10.0, 10.0, 20.0, 12.0), (50, 30)) == (0, 0, 50, 30)


def test_less_room_around_a_box():
    tile = Tile(Picture(photograph("small")), (600.0, 400.0, 660.0, 450.0))
    assert tightened(tile, 0.0).size == (60, 50)
    half = tightened(tile, 0.5)
    assert (half.size, half.box) == ((630, 425), (300.0, 200.0, 360.0, 250.0))
    assert extent_of_red(half.scaled(half.size)) == half.box
    mirrored = tightened(Tile(tile.picture, (540.0, 400.0, 600.0, 450.0), mirrored=True), 0.5)
    assert extent_of_red(mirrored.scaled(mirrored.size)) == mirrored.box == (270.0, 200.0, 330.0, 250.0)


# Of a picture that is kept at 100 pixels and pasted at more than twice that size edges are known to a few pixels.
@pytest.mark.parametrize(("max_side", "slack"), [(2000, 0), (100, 3)])
def test_boxes_in_composites_of_cut_photographs_fit_to_the_pixel(project, max_side, slack):
    config = CompositorConfig(
        k_weights={2: 1, 4: 1, 6: 1},
        backgrounds={"white": 1},
        image_format="png",
        layouts={"horizontal": 1, "vertical": 1, "grid": 1, "random": 1, "overlapping": 1},
        min_object_px=3,
    )
    compositor = Compositor(CatalogueTiles(project, max_side=max_side), config)
    for index in range(25):
        sample = compositor.sample(index)
        pixels = np.asarray(Image.open(io.BytesIO(sample.image)).convert("RGB")).astype(int)
        red = pixels[..., 0] - pixels[..., 1] > 125
        for thing in sample.objects:
            x1, y1, x2, y2 = map(int, thing.box_px)
            # The box is full of red; the lines just outside of it are not, unless they lie on another object's box.
            assert red[y1:y2, x1:x2].mean() > (0.8 if slack else 0.97) or sample.provenance["layout"] == "overlapping"
            red[max(0, y1 - slack) : y2 + slack, max(0, x1 - slack) : x2 + slack] = False
        assert not red.any()


def test_shares_of_objects_that_are_tiny_with_and_without_a_cut(project):
    def shares(**tiles):
        config = CompositorConfig(k_weights={4: 1}, image_format="png")
        compositor = Compositor(CatalogueTiles(project, **tiles), config)
        samples = [compositor.sample(index) for index in range(20)]
        areas = [(o.box_px[2] - o.box_px[0]) * (o.box_px[3] - o.box_px[1]) for s in samples for o in s.objects]
        return np.mean([area < 0.01 * 640 * 480 for area in areas])

    assert shares(margin=None) > 0.5
    assert shares() < 0.35  # skis, poles and a tiny thing are left


@pytest.mark.parametrize("layout", ["horizontal", "vertical", "grid", "random", "overlapping"])
def test_no_object_is_smaller_than_asked_for(project, layout):
    config = CompositorConfig(k_weights={2: 1, 3: 1}, layouts={layout: 1}, min_object_px=8, min_object_share=0.01)
    compositor = Compositor(CatalogueTiles(project), config)
    num_made, reasons = 0, set()
    for index in range(40):
        try:
            sample = compositor.sample(index)
        except DataError as error:
            reasons.add((error.where, error.field))
            continue
        num_made += 1
        for thing in sample.objects:
            x1, y1, x2, y2 = thing.box_px
            assert min(x2 - x1, y2 - y1) >= 8
            assert (x2 - x1) * (y2 - y1) >= 0.01 * sample.width * sample.height
    assert num_made >= 8
    # A ski fits no column, and a pole no row.
    assert reasons <= {("mine/ski.png", "object size"), ("mine/pole.png", "object size")}


def test_what_is_too_small_is_left_out_and_counted(project, tmp_path, capsys, caplog):
    settings = yaml.safe_load(project.read_text())
    compositor = {"layouts": {"horizontal": 1}, "k_weights": {3: 1}, "min_object_px": 12, "canvas_sizes": [[300, 200]]}
    settings["compose"] = {"sets": {"train": {"num": 30}}, "compositor": compositor}
    project.write_text(yaml.safe_dump(settings))
    assert main(["compose", str(project)]) == 0
    out = capsys.readouterr().out
    assert "left out" in out
    assert "object size (mine/ski.png" in out
    # Three columns of (300 - 4 * 8) // 3 = 89 or 90 pixels, and 90 * 8 / 300 is 2.4.
    assert "ski has 90 x 2 pixels at best (min_object_px is 12" in caplog.text
    settings["compose"]["compositor"]["min_object_px"] = 290
    project.write_text(yaml.safe_dump(settings))
    assert main(["compose", str(project)]) == 2
    assert "no composite could be made" in capsys.readouterr().err


def tiles_of(project, num=30, **settings):
    """Whether each of some tiles is mirrored, and where it was cut."""
    tiles = CatalogueTiles(project, **settings)
    made = [tiles.tile("small", random.Random(seed)) for seed in range(num)]
    return [tile.mirrored for tile in made], [tile.window for tile in made]


@pytest.mark.parametrize(
    "switch", [{"mirror": False}, {"unmirrored_sources": ["mine"]}, {"unmirrored_categories": ["thing"]}]
)
def test_mirroring_can_be_switched_off_and_nothing_else_changes(project, switch):
    usual, places = tiles_of(project)
    assert 5 < sum(usual) < 25
    assert tiles_of(project, **switch) == ([False] * 30, places)


def test_groups_that_are_not_there(project):
    with pytest.raises(ConfigError, match=r"unmirrored_categories: 'coin' is none of thing"):
        CatalogueTiles(project, unmirrored_categories=["coin"])
    with pytest.raises(ConfigError, match=r"unmirrored_sources: 'yours' is none of mine"):
        CatalogueTiles(project, unmirrored_sources=["yours"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"margin": (-1, 0)}, "source.margin"),
        ({"margin": (2, 1)}, "source.margin"),
        ({"margin": (1,)}, "source.margin"),
        ({"min_cut_px": 0}, "source.min_cut_px: 0 must be at least 1"),
        ({"max_side": 0}, "source.max_side: 0 must be at least 1"),
    ],
)
def test_settings_that_cannot_work(project, settings, message):
    with pytest.raises(ConfigError, match=message):
        CatalogueTiles(project, **settings)
