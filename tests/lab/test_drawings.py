"""Drawings: inside their square, each trait visible at the lab's size, and no two tiles the same."""

from __future__ import annotations

import importlib
import random
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from kvg.benchmark import CATEGORIES
from kvg.lab.sketch import Sketch
from kvg.lab.tiles import draw_tile
from kvg.lab.traits import BUILDS, COLOURS, PARTS, PATTERNS, Traits
from kvg.lab.world import LabSource, TraitSource


def looks(category):
    """Every part with every build; colours and patterns take turns."""
    colours = list(COLOURS)
    for n, part in enumerate(PARTS[category]):
        for m, build in enumerate(BUILDS):
            pattern, colour = PATTERNS[(n + m) % 5], colours[(3 * n + m) % 11]
            accent = colour if pattern == "plain" else colours[(3 * n + m + 4) % 11]
            yield Traits(category, colour, pattern, accent, part, build)


@pytest.mark.parametrize("category", CATEGORIES)
def test_inside_the_square_in_every_pose(category):
    draw = importlib.import_module(f"kvg.lab.drawings.{category}").draw
    for traits in looks(category):
        for seed in range(2):
            sketch = Sketch(traits, random.Random(seed))
            draw(sketch)
            alpha = np.asarray(sketch.image.getchannel("A"))
            rim = np.concatenate([alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]])
            assert not rim.any(), f"{traits.text} touches the rim with seed {seed}"
            assert (alpha > 127).mean() > 0.05, f"{traits.text} is hardly there"


@pytest.mark.parametrize("category", CATEGORIES)
def test_tiles_are_cut_to_their_size(category):
    tile = draw_tile(next(looks(category)), random.Random(0), size=48)
    assert tile.mode == "RGBA"
    assert max(tile.size) == 48
    alpha = np.asarray(tile.getchannel("A")) > 127
    assert alpha.any(0).mean() > 0.9
    assert alpha.any(1).mean() > 0.9


def difference(one: Traits, other: Traits) -> float:
    """Mean absolute difference of the same pose on a grey ground at 48 px, in grey levels."""
    tiles = []
    for traits in (one, other):
        ground = Image.new("RGBA", (48, 48), (128, 128, 128, 255))
        tile = draw_tile(traits, random.Random(3), size=48)
        ground.alpha_composite(tile, ((48 - tile.width) // 2, (48 - tile.height) // 2))
        tiles.append(np.asarray(ground.convert("RGB"), dtype=float))
    return float(np.abs(tiles[0] - tiles[1]).mean())


@pytest.mark.parametrize("category", CATEGORIES)
def test_each_trait_shows(category):
    parts = PARTS[category]
    base = Traits(category, "red", "stripes", "white", parts[0], "medium")
    changes = {
        "colour": replace(base, colour="blue"),
        "accent": replace(base, accent="black"),
        "build": replace(base, build="slim"),
        **{pattern: replace(base, pattern=pattern) for pattern in ("spots", "top", "base")},
        "plain": replace(base, pattern="plain", accent="red"),
        **{part: replace(base, part=part) for part in parts[1:]},
    }
    assert difference(base, base) == 0
    hidden = {name: difference(base, other) for name, other in changes.items() if difference(base, other) < 1.5}
    assert hidden == {}


def drawings(source, entity):
    """All variants of an entity that a hundred draws bring up, as bytes."""
    rng = random.Random(0)
    tiles = (source.tile(entity, rng) for _ in range(100))
    return {tile.tobytes() + str(tile.size).encode() for tile in tiles}


def test_variants_differ_and_pools_are_disjoint():
    pools = [drawings(LabSource(variants=4, pool=pool), "Magpie") for pool in ("train", "val", "test")]
    assert [len(pool) for pool in pools] == [4, 4, 4]
    assert len(set.union(*pools)) == 12
    assert drawings(LabSource(variants=4, pool="train"), "Magpie") == pools[0]


def test_pretraining_draws_anew_what_a_card_looks_like():
    """Even a card's very traits come from another pool of drawings before stage 1."""
    note = ", ".join(LabSource().info("Magpie").traits)
    source = TraitSource(families=1, siblings=1, variants=4)
    own = next(e for e in source.entities("bird"))
    traits = source._traits["bird"][", ".join(source.info(own).traits)]
    magpie = Traits("bird", "black", "base", "white", "long tail", "medium")
    assert magpie.text == note
    source._traits["bird"][", ".join(source.info(own).traits)] = magpie
    assert traits != magpie
    assert not drawings(source, own) & drawings(LabSource(variants=4), "Magpie")
