"""What makes composites varied, such as overlap, clutter and quality, leaves their boxes right."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from kvg.composites.compositor import Compositor
from tests.composites.conftest import COLOURS, config, pixels


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
