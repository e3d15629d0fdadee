"""Readers of published formats, predictions and texts, each with a small set that it reads without complaint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from kvg.types import Sample, SceneObject

from .cases import Case, picture, tool

THINK = "<think>Look: 1 (100,100),(400,400) grey. Conclusion: object 1.</think><answer>{}</answer>"
BOX = "(100,100),(400,400)"
NAMED = f"<|object_ref_start|>Merlin<|object_ref_end|><|box_start|>{BOX}<|box_end|>"
QUESTION = "Find and give the bounding box of <|object_ref_start|>Merlin<|object_ref_end|>"


def shard_files(num: int = 3) -> dict[str, Any]:
    """A shard with its manifest, as ``kvg-data convert`` writes them."""
    records: dict[str, Any] = {}
    for number in range(num):
        record = {
            "schema_version": 1, "key": f"k{number}", "width": 64, "height": 48, "category": "bird", "split": "seen",
            "knowledge": "known", "entity": "Merlin", "target": 0, "rationale": "Look: 1 <box:0>; 2 <box:1>.",
            "objects": [
                {"entity": "Merlin", "box_px": [4, 6, 20.5, 30], "note": "grey, plain"},
                {"entity": "Hobby", "box_px": [30, 6, 60, 40], "note": "brown, plain"},
            ],
            "provenance": {"index": number, "layout": "row", "licences": ["CC0"]},
        }  # fmt: skip
        records[f"k{number}.json"] = record
        records[f"k{number}.jpg"] = picture(number)
    return records


def lines() -> list[dict[str, Any]]:
    """Predictions of two birds, one right and one wrong, and a question of several choices."""
    objects = [
        {"entity": "Merlin", "box": [100, 100, 400, 400], "note": "grey"},
        {"entity": "Hobby", "box": [600, 600, 900, 900]},
    ]
    one = {
        "key": "k0", "set": "test", "category": "bird", "split": "seen", "knowledge": "known", "entity": "Merlin",
        "mode": "think", "answer": THINK.format(NAMED), "gt_bbox": [[100, 100, 400, 400]], "objects": objects,
        "target": 0, "codec": "absolute", "size": [64, 48, 56, 56], "image": "ab12", "num_tokens": 12,
        "finish_reason": "stop",
    }  # fmt: skip
    two = {
        **one,
        "key": "k1",
        "answer": BOX,
        "codec": "relative",
        "gt_bbox": [[600, 600, 900, 900]],
        "box": [1, 2, 3, 4],
    }
    two |= {"parser": "published-v2", "pattern": 1, "iou": 0.0, "correct": False, "artifact": "blur", "strength": 2}
    choice = {"key": "k2", "set": "fgvr", "category": "bird", "answer": "B", "options": ["Merlin", "Hobby"], "right": 1}
    return [one, two, {**one, "key": "k3"}, choice]


def shikra() -> list[dict[str, Any]]:
    """Referring expressions in their plainest form."""
    return [{"img_path": "a.jpg", "expression": f"left bird {n}", "bbox": [1, 2, 30.5, 40]} for n in range(3)]


def mdetr() -> dict[str, Any]:
    """Referring expressions in COCO's form."""
    return {
        "images": [
            {"id": n, "file_name": "a.jpg", "caption": "left bird", "width": 64, "height": 48} for n in range(3)
        ],
        "annotations": [{"id": n, "image_id": n, "category_id": 1, "bbox": [1, 2, 30, 40]} for n in range(3)],
        "categories": [{"id": 1, "name": "bird"}],
    }


def _sharegpt(old: bool = False) -> list[dict[str, Any]]:
    role, text, turns = ("from", "value", "conversations") if old else ("role", "content", "messages")
    names = ("human", "gpt") if old else ("user", "assistant")
    said = (f"<image>{QUESTION}", THINK.format(NAMED))
    return [
        {
            turns: [{role: name, text: value} for name, value in zip(names, said, strict=True)],
            "images": ["images/a.jpg"],
        }
        for _ in range(2)
    ]


def _convert(name: str, *more: str) -> Callable[[Path], Any]:
    return tool("convert", "--in", "{}/" + name, "--to", "shards", "--out", "{}/out", "--overwrite", *more)


def _call(function: str, *names: str) -> Callable[[Path], Any]:
    """Calls ``module:function`` with the paths of files."""

    def run(folder: Path) -> None:
        import importlib

        module, _, attribute = function.partition(":")
        getattr(importlib.import_module(module), attribute)(*(folder / name for name in names))

    return run


def _levels(folder: Path) -> None:
    from kvg.evaluation.figures.levels import read_levels

    read_levels([folder / "levels.json"])


def _exposure(folder: Path) -> None:
    from kvg.evaluation.figures.exposure import exposure_of

    exposure_of(["Merlin"], [folder / "cot-sft-bird.json"], [folder / "cards.jsonl"])


def _knowledge(folder: Path) -> None:
    from kvg.rewards.knowledge import KnowledgeReward

    KnowledgeReward(accuracies=str(folder / "levels.json"))


def _decode(folder: Path) -> None:
    from kvg.pictures import check_complete, picture_size, read_rgb, standard_picture

    for path in sorted(folder.glob("*.*")):
        data = path.read_bytes()
        for read in (standard_picture, picture_size, check_complete, read_rgb):
            read(data, path.name)


def image(number: int = 0) -> dict[str, Any]:
    return {"bytes": picture(number), "path": None}


CASES: dict[str, Case] = {
    "score": Case({"p.jsonl": lines()}, ("p.jsonl",), tool("score", "{}/p.jsonl", "--out", "{}/judged.jsonl")),
    "score published": Case(
        {"p.jsonl": lines()},
        ("p.jsonl",),
        tool("score", "{}/p.jsonl", "--out", "{}/j.jsonl", "--parser", "published-v3"),
    ),
    "compare": Case(
        {"a.jsonl": lines()[:3], "b.jsonl": lines()[:3]},
        ("a.jsonl", "b.jsonl"),
        tool("compare", "{}/a.jsonl", "{}/b.jsonl", "--out", "{}/out"),
    ),
    "report": Case(
        {"a/predictions.jsonl": lines()}, ("a/predictions.jsonl",), tool("report", "--runs", "a={}/a", "--out", "{}/o")
    ),
    "shards": Case(
        {"set/00000.tar": shard_files()},
        ("set/00000.tar",),
        _call("tests.fuzz.formats:read_shard_file", "set/00000.tar"),
    ),
    "sharegpt": Case(
        {"cot-sft-bird.json": _sharegpt(), "images/a.jpg": picture()},
        ("cot-sft-bird.json",),
        _convert("cot-sft-bird.json"),
    ),
    "sharegpt, older": Case(
        {"sft-bird.json": _sharegpt(True), "images/a.jpg": picture()}, ("sft-bird.json",), _convert("sft-bird.json")
    ),
    "grpo": Case(
        {
            "grpo-bird.parquet": {
                "image": [image()] * 2,
                "problem": [QUESTION] * 2,
                "solution": [f"<answer>{NAMED}</answer>"] * 2,
            }
        },
        ("grpo-bird.parquet",),
        _convert("grpo-bird.parquet"),
    ),
    "verl": Case(
        {
            "verl-grpo-bird.parquet": {
                "prompt": [[{"role": "user", "content": f"<image>{QUESTION}"}]] * 2,
                "images": [[{"bytes": picture()}]] * 2,
                "data_source": ["kvg"] * 2,
                "reward_model": [{"style": "rule", "ground_truth": NAMED}] * 2,
            }
        },
        ("verl-grpo-bird.parquet",),
        _convert("verl-grpo-bird.parquet"),
    ),
    "kvg-bench": Case(
        {
            "b.parquet": {
                "question_id": ["bird/1", "bird/2"],
                "category": ["bird"] * 2,
                "question": [QUESTION] * 2,
                "answer": [NAMED] * 2,
                "image": [{"bytes": picture()}] * 2,
            }
        },
        ("b.parquet",),
        _convert("b.parquet"),
    ),
    "shikra": Case(
        {"refcoco_val.jsonl": shikra(), "a.jpg": picture()}, ("refcoco_val.jsonl",), _convert("refcoco_val.jsonl")
    ),
    "vlm-r1": Case(
        {
            "refcoco_val.json": [
                {
                    "image": "a.jpg",
                    "normal_caption": "left bird",
                    "solution": [1, 2, 30, 40],
                    "width": 64,
                    "height": 48,
                    "dataset": "refcocop",
                }
            ]
            * 2,
            "a.jpg": picture(),
        },
        ("refcoco_val.json",),
        _convert("refcoco_val.json"),
    ),
    "mdetr": Case(
        {"refcoco_val.json": mdetr(), "a.jpg": picture()}, ("refcoco_val.json",), _convert("refcoco_val.json")
    ),
    "foci": Case(
        {
            "dog-120.json": {
                "Merlin": [{"image": "a.jpg", "options": ["Merlin", "Hobby"], "groundtruth": "Merlin"}] * 2
            },
            "a.jpg": picture(),
        },
        ("dog-120.json",),
        _convert("dog-120.json"),
    ),
    "labels": Case(
        {
            "l.csv": [
                {"image": "a.jpg", "label": name, "options": "Merlin|Hobby", "category": "bird"}
                for name in ("Merlin", "Hobby")
            ],
            "a.jpg": picture(),
        },
        ("l.csv",),
        _convert("l.csv"),
    ),
    "labels as lines": Case(
        {
            "l.jsonl": [{"path": "a.jpg", "label": name, "category": "bird"} for name in ("Merlin", "Hobby")],
            "a.jpg": picture(),
        },
        ("l.jsonl",),
        _convert("l.jsonl"),
    ),
    "names as lines": Case(
        {
            "l.jsonl": [{"image": "a.jpg", "entity": "Merlin", "category": "bird", "bbox": [1, 2, 30.5, 40]}] * 2,
            "a.jpg": picture(),
        },
        ("l.jsonl",),
        _convert("l.jsonl", "--box-unit", "pixels"),
    ),
    "pictures": Case(
        {
            "a.jpg": picture(),
            "b.png": picture(1, kind="PNG"),
            "c.tiff": picture(2, kind="TIFF"),
            "d.webp": picture(3, kind="WEBP"),
            "e.gif": picture(4, kind="GIF"),
        },
        ("a.jpg", "b.png", "c.tiff", "d.webp", "e.gif"),
        _decode,
    ),
    "levels": Case(
        {"levels.json": {"Merlin": {"knowledge_category": "mostly correct"}, "Hobby": 0.4}}, ("levels.json",), _levels
    ),
    "accuracies": Case({"levels.json": {"Merlin": 0.2, "Hobby": 0.4}}, ("levels.json",), _knowledge),
    "exposure": Case(
        {"cot-sft-bird.json": _sharegpt(), "images/a.jpg": picture(), "cards.jsonl": [{"text": "The Merlin is grey."}]},
        ("cot-sft-bird.json", "cards.jsonl"),
        _exposure,
    ),
    "replay": Case(
        {"r.jsonl": [{"text": "The Merlin is grey."}, {"prompt": "What is grey?", "completion": "The Merlin."}]},
        ("r.jsonl",),
        _call("data_modules.recipe:load_replay", "r.jsonl"),
    ),
}


def read_shard_file(path: Path) -> None:
    """All samples of a tar, each through the checks of a reader."""
    from kvg.shards.reader import Tally, read_shard

    samples: list[Sample] = list(read_shard(path, Tally()))
    assert all(isinstance(thing, SceneObject) for sample in samples for thing in sample.objects)
