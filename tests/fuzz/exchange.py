"""Readers of other tools' formats, each with a small set that it reads without complaint."""

from __future__ import annotations

from typing import Any

from .cases import Case, picture, tool

CATALOGUE = {"source": "s", "ref": "a.jpg", "sha256": "ab", "entity": "Merlin", "box_px": [1.0, 2.0, 31.0, 42.0]}
FACTS = {"category": "bird", "split": "seen", "rationale": "1 <box:0>", "target": 0, "labels": ["Merlin", "Hobby"]}


def _coco() -> dict[str, Any]:
    return {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 64, "height": 48, "kvg": FACTS}],
        "categories": [{"id": 1, "name": "Merlin", "supercategory": "bird"}, {"id": 2, "name": "Hobby"}],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": n, "bbox": [1, 2, 30, 40], "attributes": {"traits": ["grey"]}}
            for n in (1, 2)
        ],
    }


def _tasks(facts: dict[str, Any]) -> list[dict[str, Any]]:
    value = {"x": 10, "y": 10, "width": 50, "height": 50.5, "rotation": 0, "rectanglelabels": ["Merlin"]}
    region = {"id": "a", "type": "rectanglelabels", "original_width": 64, "original_height": 48, "image_rotation": 0}
    region |= {"value": value, "meta": {"kvg": {"category": "bird", "traits": ["grey"]}}}
    annotation = {"result": [region], "was_cancelled": False, "updated_at": "2026-01-01"}
    task = {"data": {"image": "/data/local-files/?d=images/a.jpg", "kvg": facts}, "annotations": [annotation]}
    return [{**task, "predictions": [{"result": [region], "score": 0.5}]}]


def _fiftyone() -> dict[str, Any]:
    box = {"label": 0, "bounding_box": [0.1, 0.1, 0.5, 0.5], "confidence": 0.5, "attributes": {"category": "bird"}}
    return {"classes": ["Merlin"], "labels": {"a": [box]}, "kvg": {"a": {"split": "seen"}}}


def _read(name: str, form: str, *more: str) -> Any:
    options = ("--from", form, "--category", "bird", "--out", "{}/out", "--overwrite", *more)
    return tool("convert", "--in", "{}/" + name, "--to", "shards", *options)


def _line(suffix: str) -> list[dict[str, Any]]:
    return [{"image": "a.jpg", "prefix": "detect Merlin", "suffix": suffix}]


_JSON = '[{"bbox_2d": [5, 6, 30, 40], "label": "Merlin"}]'
_IMAGE = {"a.jpg": picture()}
_IMAGES = {"images/a.jpg": picture()}
_JSONL = {
    "jsonl-paligemma": "<loc0100><loc0200><loc0500><loc0600> Merlin ; <loc0100><loc0200><loc0500><loc0700> Hobby",
    "jsonl-florence2": "Merlin<loc_50><loc_99><loc_400><loc_500>",
    "jsonl-qwen2.5-vl": f"```json\n{_JSON}\n```",
    "jsonl-qwen3-vl": _JSON,
}

CASES: dict[str, Case] = {
    "coco": Case({"c.json": _coco(), **_IMAGES}, ("c.json",), _read("c.json", "coco")),
    "coco results": Case(
        {
            "c.json": _coco(),
            "predictions.json": [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 40], "score": 0.5}],
            **_IMAGES,
        },
        ("predictions.json",),
        tool(
            "convert",
            "--in",
            "{}/c.json",
            "--from",
            "coco",
            "--to",
            "predictions",
            "--out",
            "{}/p.jsonl",
            "--overwrite",
        ),
    ),
    "yolo": Case(
        {
            "data.yaml": {"train": "images", "val": "images", "names": {0: "Merlin"}},
            "labels/a.txt": b"0 0.5 0.5 0.2 0.4\n",
            **_IMAGES,
        },
        ("data.yaml", "labels/a.txt"),
        _read("data.yaml", "yolo"),
    ),
    "label studio": Case({"t.json": _tasks(FACTS), **_IMAGES}, ("t.json",), _read("t.json", "label-studio")),
    "corrections": Case(
        {"t.json": _tasks({"catalogue": CATALOGUE}), **_IMAGES},
        ("t.json",),
        tool(
            *("convert", "--in", "{}/t.json", "--from", "label-studio", "--to", "corrections"),
            *("--out", "{}/c.jsonl", "--overwrite"),
        ),
    ),
    "fiftyone": Case(
        {"labels.json": _fiftyone(), "data/a.jpg": picture()}, ("labels.json",), _read("labels.json", "fiftyone")
    ),
    "listing": Case(
        {"l.jsonl": [{"path": "a.jpg", "entity": "Merlin", "category": "bird", "box": [1, 2, 30, 40]}], **_IMAGE},
        ("l.jsonl",),
        _read("l.jsonl", "listing"),
    ),
    **{
        form: Case(
            {"annotations.jsonl": _line(suffix), **_IMAGE}, ("annotations.jsonl",), _read("annotations.jsonl", form)
        )
        for form, suffix in _JSONL.items()
    },
}
