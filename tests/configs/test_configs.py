"""Every config parses, builds what it names, and merges into exactly the settings on record."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kvg.composites.settings import CompositorConfig
from kvg.config.overlay_files import check_overlays
from kvg.config.settings import read_yaml, settings_of
from kvg.pipeline.compose import load_config
from kvg.pipeline.rationalize import build_teacher
from kvg.pipeline.settings.rationalize import RationaleSettings
from kvg.training.lightning_cli import KVGCLI

CONFIGS = Path(__file__).parents[2] / "configs"
DOCS = Path(__file__).parents[2] / "docs"
SNAPSHOTS = Path(__file__).parent / "snapshots"
ON_CPU = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.precision=32-true", "--trainer.logger=false"]


def c(*names: str) -> list[str]:
    return [part for name in names for part in ("-c", str(CONFIGS / f"{name}.yaml"))]


def overlays() -> Iterator[list[str]]:
    """Each file of the command `kvg` where it belongs: behind a stage, unless it is complete in itself."""
    for file in sorted(CONFIGS.rglob("*.yaml")):
        folder, name = file.parent.name, file.stem
        content = yaml.safe_load(file.read_text())
        if folder == "sweeps" or {"source", "sources", "steps", "teacher"} & set(content):
            continue  # made for kvg-data
        data = content.get("data", {})
        complete = "class_path" in content.get("model", {}) and "class_path" in data
        if complete:
            yield [f"{folder}/{name}"]
        elif folder == "client":
            yield [f"{folder}/{name}", "data/kvg_bench"]
        elif name.startswith("demo_"):
            yield [f"stage/{name.removeprefix('demo_')}", "backbone/lab", f"{folder}/{name}"]
        elif folder in ("backbone", "strategy", "slurm", "logger") or "class_path" in data:
            yield ["stage/cot_sft", f"{folder}/{name}"]
        else:
            stage = "grpo" if "grpo" in name or folder in ("loss", "engine") else "cot_sft"
            yield [f"stage/{stage}", f"{folder}/{name}"]


class Parser(KVGCLI):
    """Stops when the parsers are made and the first config is read."""

    def before_instantiate_classes(self) -> None:
        raise StopIteration


@pytest.fixture(scope="module")
def parser() -> Any:
    cli = Parser.__new__(Parser)
    with pytest.raises(StopIteration):
        cli.__init__(["fit", *c("stage/cot_sft")])
    return cli._subcommand_parsers["fit"]


ALL = list(overlays())


def test_the_folder_is_found() -> None:
    assert len(ALL) > 15
    assert len(COMPOSE) > 3


@pytest.mark.parametrize("names", ALL, ids="+".join)
def test_parses(names: list[str], parser: Any) -> None:
    check_overlays(c(*names))
    config = parser.parse_args(c(*names))
    assert config.model.class_path.startswith("kvg.modules.")


@pytest.mark.parametrize("file", sorted((CONFIGS / "teacher").glob("*.yaml")), ids=lambda file: file.stem)
def test_a_teacher_is_built(file: Path) -> None:
    settings = settings_of(RationaleSettings, {**read_yaml(file), "writer": "teacher"}, "rationalize")
    teacher = build_teacher(settings)
    assert teacher.client.model in (DOCS / "how-to/serve_a_teacher.md").read_text()


COMPOSE = [file for file in sorted(CONFIGS.rglob("*.yaml")) if "source" in yaml.safe_load(file.read_text())]


@pytest.mark.parametrize("file", COMPOSE, ids=lambda file: file.stem)
def test_compose_configs_name_what_there_is(file: Path) -> None:
    config = load_config(file)
    assert CompositorConfig(**config["compositor"])
    module, _, name = config["source"]["class_path"].rpartition(".")
    assert hasattr(importlib.import_module(module), name)


# Where merging could go wrong: a class swapped for another, lists, and everything that is published.
RECORDED = {
    "cot_sft-lab": ["stage/cot_sft", "backbone/lab", "data/lab"],
    "direct_sft-lab": ["stage/direct_sft", "backbone/lab", "data/lab"],
    "grpo-lab": ["stage/grpo", "backbone/lab", "data/lab"],
    "grpo-lab-dr_grpo": ["stage/grpo", "backbone/lab", "data/lab", "loss/dr_grpo"],
    "grpo-qwen2_5_vl-parquet-fsdp2": ["stage/grpo", "backbone/qwen2_5_vl", "data/grpo_parquet", "strategy/fsdp2"],
    "cot_sft-tiny-kvg_bench-ddp": ["stage/cot_sft", "backbone/tiny", "data/kvg_bench", "strategy/ddp"],
    "qwen2_vl_7b_cot_sft": ["experiment/qwen2_vl_7b_cot_sft"],
    "qwen2_vl_7b_grpo": ["experiment/qwen2_vl_7b_grpo"],
}


def flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = sorted(value)  # FSDP's policies are sets, whose order differs from process to process
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        yield name, value
        return
    for key, inner in items:
        yield from flat(inner, f"{name}.{key}" if name else str(key))


def spoken_of() -> set[str]:
    """Names of all settings that any of these files mentions; all others are the libraries' own."""
    names: set[str] = set()
    for overlay in {overlay for overlays in RECORDED.values() for overlay in overlays}:
        content = yaml.safe_load((CONFIGS / f"{overlay}.yaml").read_text())
        names |= {name.replace("+", "") for name, _ in flat(content)}
    return names


@pytest.mark.parametrize("name", RECORDED)
def test_merges_into_the_settings_on_record(name: str, parser: Any) -> None:
    config = yaml.safe_load(parser.dump(parser.parse_args(c(*RECORDED[name])), skip_unset=False))
    named = spoken_of()
    lines = "".join(f"{key}: {value}\n" for key, value in flat(config) if key in named)
    record = SNAPSHOTS / f"{name}.txt"
    if os.environ.get("KVG_RECORD"):
        record.write_text(lines)
    assert lines == record.read_text(), "run with KVG_RECORD=1 if the change is meant, and read the diff"


def build(names: list[str], *more: str) -> KVGCLI:
    tiny = ["--model.backbone.checkpoint=tiny", "--model.backbone.dtype=float32"]
    return KVGCLI([*c(*names), *tiny, *ON_CPU, *more], run=False)


@pytest.mark.parametrize(
    "names",
    [
        ["stage/cot_sft", "backbone/tiny", "data/lab"],
        ["stage/direct_sft", "backbone/qwen2_vl_2b", "data/sharegpt"],
        ["stage/grpo", "backbone/qwen2_vl_7b", "data/grpo_parquet"],
        ["stage/grpo", "backbone/qwen2_5_vl", "data/kvg_bench"],
        ["experiment/qwen2_vl_7b_cot_sft"],
        ["experiment/qwen2_vl_7b_grpo"],
    ],
    ids="+".join,
)
def test_builds(names: list[str]) -> None:
    cli = build(names, "--trainer.strategy=auto")
    assert cli.datamodule.processor is cli.model.backbone.processor
    assert not any(p.requires_grad for p in cli.model.backbone.model.model.visual.blocks.parameters()) or (
        "experiment/qwen2_vl_7b_grpo" in names  # v2's stage 2 set no flag that freezes the tower
    )


@pytest.mark.parametrize(
    ("strategy", "devices", "kind"),
    [("single", 1, "SingleDeviceStrategy"), ("ddp", 2, "DDPStrategy"), ("fsdp2", 2, "FSDP2Strategy")],
)
def test_builds_the_strategy(strategy: str, devices: int, kind: str) -> None:
    cli = build(["stage/cot_sft", "backbone/tiny", f"strategy/{strategy}"], f"--trainer.devices={devices}")
    assert type(cli.trainer.strategy).__name__ == kind


def test_paper_batch_sizes() -> None:
    """16 samples a step in stage 1, 16 prompts a step in stage 2, as published for v2."""
    for name in ("qwen2_vl_7b_cot_sft", "qwen2_vl_7b_grpo"):
        config = yaml.safe_load((CONFIGS / f"experiment/{name}.yaml").read_text())
        trainer = config["trainer"]
        assert trainer["devices"] * trainer["accumulate_grad_batches"] * config["data"]["init_args"]["batch_size"] == 16
