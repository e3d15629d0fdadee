"""Fingerprints: alike for copies, apart for others; and near pairs as all pairs compared would give them."""

from __future__ import annotations

import io
import random
from itertools import combinations

import pytest
from PIL import Image, ImageEnhance

from kvg.catalogue.hashing import groups_of_copies, matches, near_pairs, perceptual_hash

from .conftest import drawing


def distance(one, other):
    """Bits of light and dark that differ."""
    return ((one ^ other) & (2**64 - 1)).bit_count()


def recompressed(image):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=40)
    return Image.open(io.BytesIO(file.getvalue())).convert("RGB")


CHANGES = {
    "mirrored": lambda image: recompressed(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
    "jpeg": recompressed,
    "half": lambda image: image.resize((image.width // 2, image.height // 2)),
    "double": lambda image: image.resize((image.width * 2, image.height * 2)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
}


@pytest.mark.parametrize("change", CHANGES)
def test_copies_are_near_and_others_are_far(change):
    pictures = [drawing(seed, (200, 150)) for seed in range(40)]
    hashes = [perceptual_hash(picture) for picture in pictures]
    changed = [perceptual_hash(CHANGES[change](picture)) for picture in pictures]
    assert sorted(distance(a, b) for a, b in zip(hashes, changed, strict=True))[36] <= 4  # nine of ten
    assert min(distance(a, b) for a, b in combinations(hashes, 2)) > 8


@pytest.mark.parametrize("change", CHANGES)
def test_copies_have_the_same_colours(change):
    for seed in range(40):
        picture = drawing(seed, (200, 150))
        one, other = (perceptual_hash(p) >> 64 for p in (picture, CHANGES[change](picture)))
        pairs = zip(one.to_bytes(12, "big"), other.to_bytes(12, "big"), strict=True)
        assert max(abs(a - b) for a, b in pairs) <= (38 if change == "brighter" else 4)


def shirt(colour):
    image = Image.new("RGB", (90, 90), "white")
    image.paste(colour, (20, 10, 70, 85))
    image.paste("black", (40, 20, 50, 30))
    return perceptual_hash(image)


def test_one_thing_in_two_colours_is_two_things():
    # Both as light as each other: 0.299 r + 0.587 g + 0.114 b = 76.
    red, blue = shirt((255, 0, 0)), shirt((0, 82, 250))
    assert distance(red, blue) <= 3
    assert groups_of_copies([red, blue, red], 3) == [0, 1, 0]
    assert groups_of_copies([red, shirt((250, 8, 10))], 3) == [0, 0]


def test_what_is_transparent_is_not_looked_at():
    image = drawing(0).convert("RGBA")
    image.putalpha(Image.new("L", image.size, 0))
    other = drawing(1).convert("RGBA")
    other.putalpha(Image.new("L", image.size, 0))
    assert perceptual_hash(image) == perceptual_hash(other)


@pytest.mark.parametrize("bits", [0, 1, 3, 8])
def test_near_pairs_are_those_of_all_pairs(bits):
    rng = random.Random(0)
    hashes = [rng.getrandbits(64) for _ in range(60)]
    for _ in range(60):
        value = rng.choice(hashes)
        for place in rng.sample(range(64), rng.randrange(bits + 2)):
            value ^= 1 << place
        hashes.append(value)
    expected = {(a, b) for a, b in combinations(range(120), 2) if distance(hashes[a], hashes[b]) <= bits}
    pairs = set(near_pairs(hashes, bits))
    assert pairs <= expected
    first = {value: hashes.index(value) for value in hashes}

    def by_value(pairs):
        return {tuple(sorted((first[hashes[a]], first[hashes[b]]))) for a, b in pairs}

    assert by_value(pairs) == by_value(expected)
    assert len(expected) > 5


def test_groups_join_through_others():
    assert groups_of_copies([0b0000, 0b1111 << 20, 0b0011, 0b1111], 2) == [0, 1, 0, 0]
    assert groups_of_copies([], 2) == []


def test_known_pictures_are_found():
    assert matches({"bench": 0b111}, [0b110, 1 << 40, 0b111], 1) == ["bench", "", "bench"]
