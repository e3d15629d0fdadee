"""Settings with which no composite can be made are refused by name."""

from __future__ import annotations

import pytest

from kvg.composites.compositor import Compositor
from kvg.errors import ConfigError, DataError
from tests.composites.conftest import config


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
