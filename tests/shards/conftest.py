from __future__ import annotations

import io
import random

import pytest
from PIL import Image

from kvg.shards.writer import ShardWriter
from kvg.types import Sample, SceneObject


def build(number: int, **changes) -> Sample:
    buffer = io.BytesIO()
    noise = random.Random(number).randbytes(64 * 48 * 3)
    Image.frombytes("RGB", (64, 48), noise).save(buffer, "JPEG", quality=90)
    objects = (
        SceneObject("Osprey", (4, 6, 20, 30), ("brown", "plain")),
        SceneObject("Merlin", (30.5, 6, 60, 40), ("grey", "plain")),
    )
    fields = {
        "key": f"k{number:04d}",
        "image": buffer.getvalue(),
        "width": 64,
        "height": 48,
        "category": "bird",
        "split": "seen",
        "objects": objects,
        "target": number % 2,
        "rationale": "Look: 1 <box:0>; 2 <box:1>.",
        "knowledge": "known",
        "provenance": {"index": number},
    }
    return Sample(**{**fields, **changes})


@pytest.fixture
def make_sample():
    return build


@pytest.fixture
def write_set(tmp_path):
    def write(num: int, per_shard: int = 5, name: str = "set"):
        with ShardWriter(tmp_path / name, per_shard, seed=3, config={"num": num}) as writer:
            for number in range(num):
                writer.write(build(number))
        return tmp_path / name

    return write
