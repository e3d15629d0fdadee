from __future__ import annotations

import io
import random
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from kvg.composites.compositor import Compositor
from kvg.composites.layouts import PUBLISHED
from kvg.composites.settings import CompositorConfig
from kvg.composites.sources import EntityInfo
from kvg.composites.tiles import Tile
from kvg.config.settings import settings_of
from kvg.errors import ConfigError, DataError

COLOURS = {"Red": (220, 0, 0), "Green": (0, 160, 0), "Blue": (0, 0, 220), "Black": (0, 0, 0)}


def config(**changes):
    settings = {
        "canvas_sizes": [(300, 200)],
        "image_format": "png",
        "backgrounds": {"white": 1},
        "categories": ["disc"],
    }
    return settings_of(CompositorConfig, {**settings, **changes}, "compositor")


def pixels(sample) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(sample.image)).convert("RGB")).astype(int)


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


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"layouts": {"spiral": 1}}, "compositor.layouts"),
        ({"k_weights": {}}, "compositor.k_weights"),
        ({"k_weights": {2: -1}}, "compositor.k_weights"),
        ({"backgrounds": {"white": 0}}, "compositor.backgrounds"),
        ({"image_format": "gif"}, "compositor.image_format"),
        ({"fill": (0.9, 0.5)}, "compositor.fill"),
        ({"neighbour_prob": 1.5}, "compositor.neighbour_prob"),
        ({"snap_px": 0}, "compositor.snap_px"),
        ({"canvas_sizes": []}, "compositor.canvas_sizes"),
        ({"categories": ["bird"]}, "compositor.categories"),
        ({"targets": ["Purple"]}, "compositor"),
        ({"targets": ["Red", "Purple"]}, "compositor.targets"),
    ],
)
def test_settings_that_cannot_work(source, changes, field):
    with pytest.raises(ConfigError) as caught:
        Compositor(source, config(**changes))
    assert caught.value.field == field


def test_a_category_of_one_entity_is_refused(source):
    class Lonely(type(source)):
        def entities(self, category):
            return ("Red",)

    with pytest.raises(DataError, match="category disc: entities: has 1"):
        Compositor(Lonely(), config())


def test_too_small_a_canvas_is_refused(source):
    with pytest.raises(ConfigError, match="is too small for 4 tiles"):
        Compositor(source, config(canvas_sizes=[(20, 20)], k_weights={4: 1}, gap=6)).sample(0)


def test_overlapping_boxes_frame_what_can_be_seen(source):
    compositor = Compositor(
        source, config(layouts={"overlapping": 1}, max_overlap=0.3, k_weights={3: 1, 4: 1}, canvas_sizes=[(400, 300)])
    )
    changed = off = 0
    for index in range(40):
        sample = compositor.sample(index)
        image, seen = pixels(sample), {}
        for thing in sample.objects:
            close = np.abs(image - COLOURS[thing.entity]).sum(-1) < 120
            ys, xs = np.nonzero(close)
            found = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
            # Where a sliver is left between two others, its tip has the colours of all three.
            assert np.abs(np.subtract(found, thing.box_px)).max() <= 6
            off += np.abs(np.subtract(found, thing.box_px)).max() > 2
            x1, y1, x2, y2 = thing.box_px
            seen[thing.entity] = close.sum() / (np.pi / 4 * max(x2 - x1, y2 - y1) ** 2)
            changed += abs((x2 - x1) - (y2 - y1)) > 3  # a disc of which a side is hidden
        # A disc as large as the longer side of its box shows all but 0.3 of itself, and some are partly hidden.
        assert min(seen.values()) > 0.66
    assert changed > 10
    assert off < 10


def test_no_overlap_is_possible_without_any(source):
    compositor = Compositor(source, config(layouts={"overlapping": 1}, max_overlap=0.0, k_weights={4: 1}))
    for index in range(10):
        boxes = [thing.box_px for thing in compositor.sample(index).objects]
        for i, a in enumerate(boxes):
            for b in boxes[:i]:
                assert min(a[2], b[2]) <= max(a[0], b[0]) or min(a[3], b[3]) <= max(a[1], b[1])


def test_clutter_has_no_box_and_is_of_no_category_asked_for(source):
    asked = []

    class Watched(type(source)):
        def tile(self, entity, rng):
            asked.append(entity)
            return super().tile(entity, rng)

    settings = {"categories": None, "k_weights": {2: 1}, "canvas_sizes": [(400, 300)], "layouts": {"grid": 1}}
    bare = Compositor(source, config(**settings))
    full = Compositor(Watched(), config(**settings, clutter=(4, 4)))
    more = 0
    for index in range(30):
        del asked[:]
        sample, plain = full.sample(index), bare.sample(index)
        assert [(o.entity, o.box_px) for o in sample.objects] == [(o.entity, o.box_px) for o in plain.objects]
        others = [entity for entity in asked if entity not in [o.entity for o in sample.objects]]
        assert all(source.info(entity).category != sample.category for entity in others)
        more += len(others)
        changed = np.abs(pixels(sample) - pixels(plain)).sum(-1) > 30
        for thing in sample.objects:
            x1, y1, x2, y2 = map(int, thing.box_px)
            middle = changed[(y1 + y2) // 2 - 5 : (y1 + y2) // 2 + 5, (x1 + x2) // 2 - 5 : (x1 + x2) // 2 + 5]
            assert not middle.any()  # it lies below
        smallest = min((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (o.box_px for o in sample.objects))
        assert 0 < changed.sum() < 4 * 0.31 * smallest  # four, each of at most 0.55 of its side
    assert more > 30


def test_a_soft_rim_leaves_the_box_where_it_was(source):
    settings = {"k_weights": {2: 1}, "layouts": {"grid": 1}, "snap_px": 7}
    hard = Compositor(source, config(**settings))
    soft = Compositor(source, config(**settings, augmentations={"feather": [1.5, 1.5]}))
    for index in range(6):
        before, after = hard.sample(index), soft.sample(index)
        for thing in after.objects:
            x1, y1, x2, y2 = map(int, thing.box_px)
            ys, xs = np.nonzero(np.abs(pixels(after)[y1 - 5 : y2 + 5, x1 - 5 : x2 + 5] - 255).sum(-1) > 90)
            found = (xs.min() - 5, ys.min() - 5, xs.max() - 4 - (x2 - x1), ys.max() - 4 - (y2 - y1))
            assert np.abs(found).max() <= 1
        assert before.image != after.image


def test_same_scale_makes_areas_alike(source):
    def spread(compositor):
        ratios = []
        for index in range(20):
            areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (o.box_px for o in compositor.sample(index).objects)]
            ratios.append(max(areas) / min(areas))
        return ratios

    settings = {"k_weights": {4: 1}, "layouts": {"random": 1}, "canvas_sizes": [(600, 400)], "fill": (0.5, 1.0)}
    assert max(spread(Compositor(source, config(**settings, same_scale=1.0)))) < 1.2
    assert max(spread(Compositor(source, config(**settings)))) > 2


ALL_ON = {
    "snap_px": None,
    "clutter": (1, 4),
    "same_scale": 0.5,
    "layouts": {"overlapping": 1, "grid": 1},
    "backgrounds": {"texture": 1, "white": 1},
    "image_format": "jpeg",
    "quality": (60, 95),
    "chroma": "4:2:0",
    "categories": None,
    "augmentations": {
        "feather": [0.5, 1.5],
        "border": [0, 8],
        "harmony": [0, 0.5],
        "gain": [0.9, 1.1],
        "gamma": [0.8, 1.2],
        "noise": [0, 5],
        "tile_jpeg": 0.5,
        "picture_noise": [0, 3],
    },
}


def test_with_everything_on_a_sample_depends_on_seed_and_index_alone(source):
    compositor = Compositor(source, config(**ALL_ON))
    made = [compositor.sample(index) for index in range(12)]
    again = Compositor(source, config(**ALL_ON))
    assert [again.sample(index) for index in reversed(range(12))] == made[::-1]
    tables = {tuple(Image.open(io.BytesIO(s.image)).quantization[0]) for s in made}
    assert len(tables) > 4  # one for each quality drawn


def test_quality_and_chroma_reach_the_file(source):
    def size(**changes):
        return len(Compositor(source, config(image_format="jpeg", **changes)).sample(1).image)

    assert size(quality=95) > size(quality=60)
    assert size(chroma="4:4:4") > size(chroma="4:2:0")
    assert size(quality=(70, 70)) == size(quality=70)


def test_photographs_as_backgrounds(source, tmp_path):
    Image.new("RGB", (300, 200), (10, 90, 200)).save(tmp_path / "sky.png")
    made = Compositor(source, config(backgrounds={"photograph": 1}, background_folder=str(tmp_path))).sample(0)
    assert made.provenance["background"] == "photograph"
    assert tuple(pixels(made)[1, 1]) == (10, 90, 200)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"backgrounds": {"photograph": 1}}, "compositor.background_folder"),
        ({"layouts": {"overlapping": 1}, "snap_px": 7}, "compositor.snap_px"),
        ({"augmentations": {"fether": [0, 1]}}, "compositor.augmentations.fether"),
        ({"augmentations": {"noise": 3}}, "compositor.augmentations.noise"),
        ({"augmentations": 3}, "compositor.augmentations"),
        ({"quality": (90, 80)}, "compositor.quality"),
        ({"quality": 0}, "compositor.quality"),
        ({"quality": "high"}, "compositor.quality"),
        ({"clutter": 3}, "compositor.clutter"),
        ({"clutter": (3, 1)}, "compositor.clutter"),
        ({"chroma": "4:1:0"}, "compositor.chroma"),
        ({"max_overlap": 1.2}, "compositor.max_overlap"),
        ({"same_scale": -1}, "compositor.same_scale"),
        ({"fill": 0.5}, "compositor.fill"),
    ],
)
def test_newer_settings_that_cannot_work(source, changes, field):
    with pytest.raises(ConfigError) as caught:
        Compositor(source, config(**changes))
    assert caught.value.field == field
