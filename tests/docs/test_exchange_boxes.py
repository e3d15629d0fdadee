"""docs/how-to/exchange_boxes.md does what it says."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import yaml
from PIL import Image

from kvg.formats.stores import open_store
from kvg.types import Sample
from tests.docs.pages import programs


def project(folder: Path) -> None:
    """Two pictures with boxes, as project.yaml of the page."""
    rows = []
    for number, name in enumerate(("merlin", "hobby")):
        image = Image.effect_noise((200, 100), 50 + number).convert("RGB")
        image.save(folder / f"{name}.jpg", quality=95)
        rows.append({"path": f"{name}.jpg", "entity": name, "category": "bird", "box": [20, 10, 120, 90]})
    (folder / "list.json").write_text(json.dumps(rows))
    source = {"class_path": "kvg.catalogue.tables.Table", "init_args": {"path": "list.json"}}
    (folder / "project.yaml").write_text(yaml.safe_dump({"out": "birds", "sources": {"mine": source}}))


def predictions(path: Path) -> None:
    """A run on ``samples`` in which every answer is right."""
    from kvg.evaluation.records.question import Question
    from kvg.text.box_codec import ImageSize, RelativeCodec

    codec, lines = RelativeCodec(), []
    for sample in read("samples"):
        size = ImageSize(sample.width, sample.height, sample.width, sample.height)
        lines.append(json.dumps(Question(sample).line(codec.encode(sample.box_px, size), "direct", codec, size)) + "\n")
    path.write_text("".join(lines), "utf-8")


def read(folder: str) -> list[Sample]:
    return [sample for part in open_store(folder).parts() for _, sample in part.read(None)]


def test_the_page(tmp_path, monkeypatch, run_block):
    monkeypatch.chdir(tmp_path)
    project(tmp_path)
    names, output = {}, []
    for block in programs("docs/how-to/exchange_boxes.md"):
        if "--from predictions" in block.text:
            predictions(tmp_path / "predictions.jsonl")
        if "detections" in block.text and importlib.util.find_spec("supervision") is None:
            continue
        output.append(run_block(block, names))
    assert len(output) >= 8
    assert read("again") == read("samples")
    (line,) = (json.loads(line) for line in (tmp_path / "birds/corrected_boxes.jsonl").read_text().splitlines())
    assert (line["ref"], line["box_px"]) == ("merlin.jpg", [24.0, 10.0, 114.0, 90.0])  # 12% and 57% of 200 pixels
    scored = [json.loads(line) for line in (tmp_path / "scored.jsonl").read_text("utf-8").splitlines()]
    assert len(scored) == 6
    assert all(case["correct"] for case in scored)
    listing = (tmp_path / "corrected/listing.jsonl").read_text().splitlines()
    assert len(listing) == 2
