"""Which entities a composite shows, and where: boxes are those of the pixels."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from kvg.composites.compositor import Compositor
from kvg.composites.layouts import PUBLISHED
from kvg.composites.sources import EntityInfo
from kvg.composites.tiles import Tile
from tests.composites.conftest import COLOURS, config, pixels


@pytest.mark.parametrize("layout", PUBLISHED)
def test_boxes_frame_the_pixels_of_their_entity(source, layout):
    compositor = Compositor(source, config(layouts={layout: 1}, k_weights={2: 1, 3: 1, 4: 1}))
    for index in range(12):
        sample = compositor.sample(index)
        image = pixels(sample)
        for scene_object in sample.objects:
            close = np.abs(image - COLOURS[scene_object.entity]).sum(-1) < 120
            ys, xs = np.nonzero(close)
            found = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
            # Bicubic reduction softens the outermost row or column of pixels.
            assert np.abs(np.subtract(found, scene_object.box_px)).max() <= 2


def test_snapped_boxes_lie_on_the_grid_and_inside(source):
    compositor = Compositor(
        source, config(canvas_sizes=[(140, 140)], gap=4, snap_px=7, layouts={"grid": 1, "random": 1})
    )
    for index in range(40):
        for scene_object in compositor.sample(index).objects:
            x1, y1, x2, y2 = scene_object.box_px
            assert all(value % 7 == 0 for value in (x1, y1, x2, y2))
            assert 0 <= x1 < x2 <= 140
            assert 0 <= y1 < y2 <= 140


def test_box_inside_a_photograph_is_carried_along(source):
    class Photo(type(source)):
        def tile(self, entity, rng):
            image = Image.new("RGBA", (100, 80), (200, 200, 200, 255))
            image.paste((*COLOURS[entity], 255), (20, 10, 60, 50))
            return Tile.of(image, box=(20.0, 10.0, 60.0, 50.0))

    for snap in (None, 5):
        sample = Compositor(Photo(), config(snap_px=snap, k_weights={2: 1}, layouts={"horizontal": 1})).sample(3)
        image = pixels(sample)
        for scene_object in sample.objects:
            close = np.abs(image - COLOURS[scene_object.entity]).sum(-1) < 60
            ys, xs = np.nonzero(close)
            found = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
            assert np.abs(np.subtract(found, scene_object.box_px)).max() <= 2
        assert (np.abs(image - 200).sum(-1) < 12).sum() > 5000  # the rest of the photograph is there too


def test_a_sample_depends_on_seed_and_index_alone(source):
    compositor = Compositor(source, config(seed=7))
    third = compositor.sample(3)
    compositor.sample(0)
    random.seed(1)
    assert Compositor(source, config(seed=7)).sample(3) == third
    assert Compositor(source, config(seed=8)).sample(3).image != third.image
    assert compositor.sample(4).image != third.image


def test_entities_differ_and_the_target_is_among_them(source):
    compositor = Compositor(source, config(k_weights={2: 1, 4: 1, 6: 1}))
    for index in range(40):
        sample = compositor.sample(index)
        names = [o.entity for o in sample.objects]
        assert len(set(names)) == len(names) <= 4  # the category has four, whatever k says
        assert (sample.category, sample.split, sample.knowledge) == ("disc", "seen", "known")
        assert sample.objects[sample.target].traits == (sample.entity.lower(), "round")


def test_weights_and_neighbours_are_obeyed(source):
    always = Compositor(source, config(k_weights={2: 1}, neighbour_prob=1.0, targets=["Red"]))
    assert all({o.entity for o in always.sample(i).objects} == {"Red", "Green"} for i in range(20))
    never = Compositor(source, config(k_weights={2: 3, 3: 1}, neighbour_prob=0.0, targets=["Red"]))
    samples = [never.sample(i) for i in range(200)]
    others = Counter(o.entity for s in samples for o in s.objects if o.entity != "Red")
    assert set(others) == {"Green", "Blue", "Black"}
    assert 0.15 < sum(len(s.objects) == 3 for s in samples) / 200 < 0.35


def test_every_place_is_asked_for(source):
    compositor = Compositor(source, config(k_weights={3: 1}))
    counts = Counter(compositor.sample(i).target for i in range(150))
    assert all(counts[place] > 25 for place in range(3))


def test_split_chooses_categories(source):
    compositor = Compositor(source, config(categories=None, split="unseen"))
    assert {compositor.sample(i).category for i in range(10)} == {"other"}


def test_look_alikes_never_meet(source):
    class Twins(type(source)):
        def info(self, entity):
            return EntityInfo("disc", "seen", "", ("red",) if entity in ("Red", "Green") else (entity,))

    for neighbour_prob in (0.0, 1.0):
        compositor = Compositor(Twins(), config(targets=["Red"], neighbour_prob=neighbour_prob))
        assert all("Green" not in [o.entity for o in compositor.sample(i).objects] for i in range(20))
