"""Readers of checkpoints, adapters, sets of shards and settings."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from .cases import Case, tool
from .catalogues import BIRDS, PROJECT, catalogue_entries
from .formats import shard_files

OVERLAY: dict[str, Any] = {
    "trainer": {"max_steps": 2, "precision": "32-true", "callbacks": [{"class_path": "callbacks.StageProgress"}]},
    "model": {
        "init_args": {"warmup": 0.1, "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-4}}}
    },
    "data": {"init_args": {"train": "none", "batch_size": 2}},
}
EXPERIMENT: dict[str, Any] = {
    "out": "runs/none",
    "seeds": [0, 1],
    "prepare": {
        "test": {
            "run": "kvg-data compose --config configs/lab/test.yaml --out {out}/test --num 4",
            "makes": "{out}/test",
        }
    },
    "fit": {
        "configs": ["configs/stage/cot_sft.yaml", "configs/backbone/tiny.yaml"],
        "settings": {"trainer.max_steps": 3},
    },
    "axes": {"size": {"small": {}, "large": {"fit": {"settings": {"data.batch_size": 2}}}}},
    "predict": {"configs": ["configs/stage/cot_sft.yaml"], "settings": {"data.mode": "think"}},
    "compare": {"baseline": "small", "by": ["split"], "curves": ["val/iou_acc"]},
}


def _content(path: Path) -> Any:
    data = path.read_bytes()
    return json.loads(data) if path.suffix == ".json" and len(data) < 20_000 else data


@cache
def _exported() -> dict[str, Any]:
    from kvg.backbones.backbone import Backbone

    with tempfile.TemporaryDirectory() as folder:
        Backbone("tiny").export(Path(folder), "think")
        return {path.name: _content(path) for path in sorted(Path(folder).iterdir())}


@cache
def _adapted() -> dict[str, Any]:
    from peft import LoraConfig, get_peft_model

    from kvg.backbones.backbone import Backbone

    with tempfile.TemporaryDirectory() as folder:
        model = get_peft_model(Backbone("tiny").model, LoraConfig(r=2, target_modules=r".*language_model.*q_proj"))
        model.save_pretrained(folder)
        files = {f"adapter/{path.name}": _content(path) for path in sorted(Path(folder).iterdir())}
    return {**files, **{f"base/{name}": value for name, value in _exported().items()}}


def _load(folder: Path) -> None:
    from kvg.backbones.backbone import Backbone

    backbone = Backbone(str(folder))
    backbone.processor.chat("Who is that?")


def _load_adapted(folder: Path) -> None:
    from kvg.backbones.backbone import Backbone

    path = folder / "adapter/adapter_config.json"
    try:
        settings = json.loads(path.read_text())
        settings["base_model_name_or_path"] = str(folder / "base")
        path.write_text(json.dumps(settings))
    except (ValueError, TypeError):
        pass  # too damaged to be pointed at its base
    Backbone(str(folder / "adapter"))


def _overlaid(folder: Path) -> int:
    from kvg.cli.kvg import main

    configs = ("configs/stage/cot_sft.yaml", "configs/backbone/tiny.yaml", str(folder / "overlay.yaml"))
    try:
        return main(["fit", *(arg for config in configs for arg in ("-c", config)), "--print_config"])
    except SystemExit as stop:  # with which the parser ends once it has printed
        return int(stop.code or 0)


def _experiment(folder: Path) -> None:
    from kvg.workflow.sweep_config import load_experiment

    load_experiment(folder / "trial.yaml")


def _boxed(folder: Path) -> None:
    from kvg.catalogue.boxing import boxed_entries
    from kvg.pipeline.settings.project import load_project

    project = json.loads(json.dumps(PROJECT).replace("OUT", str(folder / "out")).replace("ROOT", str(folder / "in")))
    path = folder / "made.yaml"
    path.write_text(json.dumps(project))
    list(boxed_entries(load_project(path)))


def _set() -> dict[str, Any]:
    """A whole set of shards, as its writer leaves it."""
    from kvg.shards.reader import read_shard
    from kvg.shards.writer import ShardWriter

    from .cases import content

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "one.tar").write_bytes(content("one.tar", shard_files()))
        with ShardWriter(folder / "set", 2) as writer:
            for sample in read_shard(folder / "one.tar"):
                writer.write(sample)
        return {f"set/{path.name}": _content(path) for path in sorted((folder / "set").iterdir())}


SETTINGS = ("config.json", "generation_config.json", "preprocessor_config.json", "tokenizer_config.json", "kvg.json")

CASES: dict[str, Case] = {
    "checkpoint settings": Case(_exported, SETTINGS, _load),
    "checkpoint texts": Case(_exported, ("chat_template.jinja", "tokenizer.json", "model.safetensors"), _load),
    "adapter": Case(_adapted, ("adapter/adapter_config.json", "adapter/adapter_model.safetensors"), _load_adapted),
    "set": Case(_set, (), tool("verify", "{}/set")),
    "overlay": Case({"overlay.yaml": OVERLAY}, ("overlay.yaml",), _overlaid),
    "experiment": Case({"trial.yaml": EXPERIMENT}, ("trial.yaml",), _experiment),
    "boxes": Case(
        {
            **BIRDS,
            "out/catalogue.jsonl": catalogue_entries(),
            "out/bad_boxes.jsonl": [
                {
                    "source": "mine",
                    "ref": "bird/Merlin/0.jpg",
                    "box_px": [8.0, 8.0, 30.0, 30.0],
                    "saved": 1.0,
                    "bad": True,
                }
            ],
            "out/boxes.jsonl": [
                {
                    "source": "mine",
                    "ref": "bird/Hobby/1.jpg",
                    "entity": "Hobby",
                    "sha256": catalogue_entries()[1]["sha256"],
                    "box_px": [8.0, 8.0, 30.0, 30.0],
                    "box_from": "model",
                    "iou": 0.9,
                    "rule": "",
                    "reason": "",
                }
            ],
        },
        ("out/catalogue.jsonl", "out/bad_boxes.jsonl", "out/boxes.jsonl"),
        _boxed,
    ),
}
