"""A scene by hand."""

from __future__ import annotations

import pytest

from kvg.types import Sample, SceneObject


@pytest.fixture
def pair():
    """Two objects, far from alike; the second is the target."""
    left = SceneObject("x", (0.0, 0.0, 56.0, 33.0), ("red", "white spots", "crest", "slim"))
    right = SceneObject("x", (70.0, 0.0, 140.0, 140.0), ("blue", "plain", "long tail", "broad"))
    return Sample("k", b"", 140, 140, "bird", "seen", (left, right), 1)
