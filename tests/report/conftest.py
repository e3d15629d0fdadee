from __future__ import annotations

import io
import json

import pytest
from PIL import Image

from kvg.report.cases import Case
from kvg.types import Sample, SceneObject

NOTES = ("grey, plain, crest, slim", "grey, white spots, crest, slim", "red, plain, long tail, broad")
NAMES = ("Hoopoe", "Merlin", "Osprey")
BOXES = ((0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 30.0, 10.0), (40.0, 0.0, 50.0, 10.0))


@pytest.fixture
def make_case():
    def build(key: str, right: bool = True, **changes) -> Case:
        fields = {
            "category": "bird",
            "split": "seen",
            "knowledge": "known",
            "entity": "Hoopoe",
            "text": "",
            "box_px": (0.0, 0.0, 10.0, 10.0) if right else (20.0, 0.0, 30.0, 10.0),
            "target_px": (0.0, 0.0, 10.0, 10.0),
            "iou": 1.0 if right else 0.0,
        }
        return Case(key, **{**fields, **changes})

    return build


@pytest.fixture
def make_sample():
    def build(key: str, target: int = 0, **changes) -> Sample:
        buffer = io.BytesIO()
        Image.new("RGB", (56, 28), (200, 210, 220)).save(buffer, "PNG")
        objects = tuple(SceneObject(*fields) for fields in zip(NAMES, BOXES, NOTES, strict=True))
        fields = {"category": "bird", "split": "seen", "knowledge": "known", **changes}
        return Sample(key=key, image=buffer.getvalue(), width=56, height=28, objects=objects, target=target, **fields)

    return build


@pytest.fixture
def write_run(tmp_path):
    """A folder with predictions as ``kvg test`` writes them."""

    def write(name: str, cases, file: str = "predictions.jsonl"):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        fields = ("key", "category", "split", "knowledge", "entity", "text", "box_px", "target_px")
        lines = [json.dumps({field: getattr(case, field) for field in fields}) for case in cases]
        (folder / file).write_text("\n".join(lines) + "\n", "utf-8")
        return folder

    return write
