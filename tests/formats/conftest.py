from __future__ import annotations

import io

import pytest
from PIL import Image

from kvg.types import Sample, SceneObject


def build(number: int, **changes) -> Sample:
    buffer = io.BytesIO()
    Image.new("RGB", (200, 100), (40 * number % 256, 90, 120)).save(buffer, "JPEG")
    # Multiples of 0.2 and 0.1 pixels are whole steps of the 0-1000 grid, so these boxes survive the text exactly.
    objects = (SceneObject("Osprey", (20.0, 10.0, 80.0, 60.0)), SceneObject("Merlin", (100.2, 20.1, 180.0, 90.0)))
    fields = {
        "key": f"k{number:04d}",
        "image": buffer.getvalue(),
        "width": 200,
        "height": 100,
        "category": "bird",
        "split": "seen",
        "objects": objects,
        "target": number % 2,
        "rationale": "Look: 1 <box:0> brown; 2 <box:1> grey. Conclusion: object 2.",
    }
    return Sample(**{**fields, **changes})


@pytest.fixture
def make_sample():
    return build
