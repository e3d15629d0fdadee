"""A small KVG-Bench and answers to it in three units, with verdicts by hand."""

from __future__ import annotations

import importlib.util
import io
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2] / "docs" / "integrations"
WIDTH, HEIGHT = 640, 480
# True box (100,100),(500,500) on the grid. Right, IoU (300*400)/(400*400) = 0.75, wrong, and no box.
ON_GRID = [(100, 100, 500, 500), (200, 100, 500, 500), (600, 600, 900, 900), None]
IOUS = [1.0, 0.75, 0.0, 0.0]
CATEGORIES = ["bird", "dog", "bird", "dog"]


def answers(width: float, height: float) -> list[str]:
    """The answers as JSON, in a unit in which the picture has these sides."""
    texts = []
    for box in ON_GRID:
        if box is None:
            texts.append("I cannot see it.")
            continue
        numbers = [round(v * side / 1000) for v, side in zip(box, (width, height) * 2, strict=True)]
        texts.append(f'```json\n[{{"bbox_2d": {numbers}, "label": "Merlin"}}]\n```')
    return texts


@pytest.fixture
def bench(tmp_path):
    """``kvg-bench.parquet`` with four questions."""
    rows = []
    for number, category in enumerate(CATEGORIES):
        buffer = io.BytesIO()
        Image.new("RGB", (WIDTH, HEIGHT), (40 * number, 90, 120)).save(buffer, "JPEG")
        name = f"<|object_ref_start|>Merlin {number}<|object_ref_end|>"
        row = {"question_id": f"{category}/{number}", "category": category, "image": {"bytes": buffer.getvalue()}}
        row["question"] = f"Find and give the bounding box of {name}"
        rows.append({**row, "answer": f"{name}<|box_start|>(100,100),(500,500)<|box_end|>"})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "kvg-bench.parquet")
    return tmp_path / "kvg-bench.parquet"


@pytest.fixture
def rows(bench):
    return pq.read_table(bench).to_pylist()


@pytest.fixture
def load_file():
    """Imports a file of ``docs/integrations`` under a name of its own."""

    def load(name: str):
        spec = importlib.util.spec_from_file_location(f"integration_{Path(name).stem}", ROOT / name)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module

    return load
