"""Backgrounds fill their canvas, depend on their dice alone, and go on without a picture that is damaged."""

from __future__ import annotations

import pickle
import random

import numpy as np
import pytest
from PIL import Image

from kvg.composites.backgrounds import BACKGROUNDS, PALE, TEXTURES, Photographs, gradient
from kvg.errors import ConfigError, DataError
from tests.composites.test_tiles import photograph


@pytest.mark.parametrize("name", BACKGROUNDS)
@pytest.mark.parametrize("canvas", [(640, 480), (140, 140), (31, 203), (16, 16)])
def test_fills_any_canvas_and_depends_on_its_dice_alone(name, canvas):
    first, again = (BACKGROUNDS[name](canvas, random.Random(5)) for _ in range(2))
    assert (first.size, first.mode) == (canvas, "RGB")
    assert first.tobytes() == again.tobytes()
    assert name == "white" or BACKGROUNDS[name](canvas, random.Random(6)).tobytes() != first.tobytes()
    assert name not in PALE or np.asarray(first).max(-1).min() > 200


def test_a_gradient_runs_across_or_down():
    pictures = [np.asarray(gradient((60, 40), random.Random(s))).astype(int) for s in range(20)]
    across = [bool((p[0] == p[-1]).all()) for p in pictures]
    down = [bool((p[:, 0] == p[:, -1]).all()) for p in pictures]
    assert all(a != d for a, d in zip(across, down, strict=True))
    assert 4 < sum(across) < 16


def test_textures_have_detail_of_every_size_and_many_colours():
    pictures = [BACKGROUNDS["texture"]((320, 240), random.Random(s)) for s in range(40)]
    for picture in pictures:
        grey = np.asarray(picture.convert("L")).astype(float)
        assert grey.std() > 4
        assert np.asarray(picture.resize((8, 6), Image.Resampling.BOX).convert("L")).std() > 1.5  # large blotches
        assert np.abs(np.diff(grey, axis=0)).mean() > 0.1  # and small ones
    means = np.array([np.asarray(picture).mean((0, 1)) for picture in pictures])
    assert means.std(0).min() > 20
    assert len(TEXTURES) >= 5


@pytest.fixture
def folder(tmp_path):
    for number in range(4):
        (tmp_path / f"{number % 2}").mkdir(exist_ok=True)
        photograph(number, (900, 600)).save(tmp_path / f"{number % 2}/{number}.jpg", quality=95)
    return tmp_path


def test_photographs_are_crops_sharp_or_blurred(folder):
    made = Photographs(folder)
    edges = []
    for seed in range(60):
        picture = made((320, 240), random.Random(seed))
        assert picture.size == (320, 240)
        edges.append(np.abs(np.diff(np.asarray(picture.convert("L")).astype(int), axis=1)).mean())
    assert max(edges) > 4 * min(edges)
    again = pickle.loads(pickle.dumps(made))((320, 240), random.Random(7))
    assert again.tobytes() == made((320, 240), random.Random(7)).tobytes()


def test_little_memory_keeps_one_photograph(folder):
    small, large = Photographs(folder, cache_mb=0), Photographs(folder)
    for seed in range(8):
        assert small((64, 48), random.Random(seed)).tobytes() == large((64, 48), random.Random(seed)).tobytes()
    assert (len(small._kept), len(large._kept)) == (1, 4)


def test_a_damaged_photograph_is_reported_once_and_passed_over(folder, caplog):
    path = folder / "0/0.jpg"
    path.write_bytes(path.read_bytes()[:2000])
    made = Photographs(folder)
    for seed in range(20):
        made((64, 48), random.Random(seed))
    assert caplog.text.count("0.jpg: image: is cut off") == 1
    for other in folder.rglob("*.jpg"):
        other.write_bytes(b"")
    with pytest.raises(DataError, match="none of its pictures can be read"):
        Photographs(folder)((64, 48), random.Random(0))


def test_a_folder_without_pictures(tmp_path):
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ConfigError, match=r"background_folder: '.*' contains no pictures"):
            Photographs(root)
