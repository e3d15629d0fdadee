from __future__ import annotations

import base64
import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from kvg.errors import DataError
from kvg.report.pictures import SIDE, picture_of, read_pictures
from kvg.shards.writer import ShardWriter


def mark_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def opened(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


@pytest.fixture
def stored(tmp_path, make_sample):
    def store(name, samples):
        with ShardWriter(tmp_path / name) as writer:
            for sample in samples:
                writer.write(sample)
        return str(tmp_path / name)

    return store


def test_a_small_picture_stays_as_it_is_and_a_large_one_is_shrunk(make_sample, encoded):
    small, large = make_sample("a"), make_sample("b", encoded((9, 99, 199), (1600, 800), "PNG"), (1600, 800))
    kept = picture_of(small, "m")
    assert base64.b64decode(kept.uri.partition(",")[2]) == small.image
    assert kept.is_small
    shrunk = picture_of(large, "m")
    assert shrunk.uri.startswith("data:image/jpeg;base64,")
    assert opened(shrunk.uri).size == (SIDE, SIDE // 2)
    assert (shrunk.width, shrunk.height) == (1600, 800)  # the page draws it with the sides of the stored one
    assert not shrunk.is_small


def test_a_hundred_and_twenty_photographs_stay_below_fifteen_megabytes(make_sample):
    """Smoothed noise is harder to compress than photographs are."""
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)).resize(
        (1280, 960), Image.Resampling.BICUBIC
    )
    grain = np.clip(np.asarray(noise, np.int16) + rng.integers(-12, 12, (960, 1280, 1)), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(grain).save(file, "JPEG", quality=95)
    found = picture_of(make_sample("a", file.getvalue(), (1280, 960)), "m")
    assert len(found.uri) * 120 < 15e6


def test_transparent_and_indexed_pictures_get_a_white_ground(make_sample):
    file = io.BytesIO()
    Image.new("RGBA", (1000, 1000), (255, 0, 0, 0)).save(file, "PNG")
    found = picture_of(make_sample("a", file.getvalue(), (1000, 1000)), "m")
    assert opened(found.uri).getpixel((5, 5)) == (255, 255, 255)


def test_a_broken_picture_is_told_and_not_embedded(make_sample, encoded):
    cut = encoded((1, 2, 3), (64, 64))[:-40]
    assert picture_of(make_sample("a", cut, (64, 64)), "m").uri == ""


def test_pictures_are_found_by_key_and_checked_by_checksum(stored, make_sample, make_case, encoded):
    samples = [make_sample(f"k{n}", encoded((n, n, n))) for n in range(4)]
    path = stored("set", samples)
    cases = [
        make_case("k0", image=mark_of(samples[0].image)),
        make_case("k1"),  # does not tell
        make_case("k2", image="0" * 16),  # was asked about another picture
        make_case("k9"),
        make_case("k3", artifact="blur", strength=1),  # the stored picture is not what was seen
    ]
    found = read_pictures([("", path)], cases)
    assert list(found.by_case) == [cases[0].id, cases[1].id]
    assert found.by_case[cases[0].id].mark == mark_of(samples[0].image)
    assert (found.num_missing, found.num_other) == (1, 1)


def test_the_name_of_a_set_tells_keys_apart(stored, make_sample, make_case, encoded):
    red, blue = encoded((255, 0, 0)), encoded((0, 0, 255))
    paths = [("x", stored("x", [make_sample("k0", red)])), ("y", stored("y", [make_sample("k0", blue)]))]
    cases = [make_case("k0", set="y"), make_case("k0", set="x")]
    found = read_pictures(paths, cases)
    assert [found.by_case[case.id].mark for case in cases] == [mark_of(blue), mark_of(red)]


def test_a_set_that_was_not_asked_is_refused(stored, make_sample, make_case):
    path = stored("set", [make_sample("k0")])
    with pytest.raises(DataError, match=r"set: key: these sets are not the sets of the runs \(none of the keys"):
        read_pictures([("", path)], [make_case("other")])
    with pytest.raises(DataError, match="same keys, but other pictures"):
        read_pictures([("", path)], [make_case("k0", image="0" * 16)])
