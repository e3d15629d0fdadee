"""What is wrong on the command line or in a config is said in one line, with exit code 2, before training starts."""

from __future__ import annotations

import argparse
import importlib
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from kvg.cli import kvg_data as data_door
from kvg.cli.kvg import main
from kvg.config.parser_errors import explain

STAGE = ["fit", "-c", "configs/stage/cot_sft.yaml", "-c", "configs/backbone/tiny.yaml", "--trainer.accelerator=cpu"]
NO_MODEL = ["--model.backbone.checkpoint=/nowhere"]  # a fault named before it is found before a model is loaded


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    for name, text in {
        "list.yaml": "- 1\n",
        "broken.yaml": "trainer: {max_steps: 1\n",
        "toplevel.yaml": "trainr: {max_steps: 1}\n",
        "trainer.yaml": "trainer: {max_stepz: 1}\n",
        "model.yaml": "model: {init_args: {warmupp: 0.1}}\n",
        "backbone.yaml": "model: {init_args: {backbone: {init_args: {chekpoint: lab}}}}\n",
        "data.yaml": "data: {init_args: {trian: x}}\n",
        "no_class.yaml": "model: {class_path: kvg.modules.cot_sft.Nothing}\n",
    }.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "damaged.ckpt").write_bytes(b"PK\x03\x04 cut off")
    torch.save({"state_dict": {"backbone.other.weight": torch.zeros(2)}}, tmp_path / "other.ckpt")
    return tmp_path


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["fot"], "fot: no such command; there are fit, validate, test, predict"),
        (
            ["fit", "-c", "configs/stage/cot.yaml"],
            r"-c configs/stage/cot\.yaml: no such file; .* holds cot_sft\.yaml, ",
        ),
        (["fit", "-c", "TMP/list.yaml"], "list.yaml: must be a mapping"),
        (["fit", "-c", "TMP/broken.yaml"], "broken.yaml: is not YAML: .*line 2"),
        (["fit", "-c", "TMP/toplevel.yaml"], "toplevel.yaml: trainr: unknown setting; there are .*trainer"),
        (["fit", "-c", "configs/backbone/lab.yaml"], "model.class_path: is not set yet; put the stage's config before"),
        (["fit"], "model: is missing; begin with the config of a stage"),
        ([*STAGE, "-c", "TMP/trainer.yaml"], "trainer.max_stepz: unknown setting"),
        ([*STAGE, "-c", "TMP/model.yaml"], r"warmupp: unknown setting of kvg\.modules\.cot_sft\.CoTSFTModule"),
        ([*STAGE, "-c", "TMP/backbone.yaml"], r"chekpoint: unknown setting of kvg\.backbones\.backbone"),
        ([*STAGE, "-c", "TMP/data.yaml"], r"trian: unknown setting of data_modules\.CoTSFTDataModule"),
        ([*STAGE, "-c", "TMP/no_class.yaml"], "model: .*kvg.modules.cot_sft.Nothing.*has no attribute 'Nothing'"),
        ([*STAGE, "--trainer.max_stepz=3"], "trainer.max_stepz: unknown setting"),
        ([*STAGE, "--trainer.max_steps=many"], "trainer.max_steps: Expected a <class 'int'>. Got value: many"),
        ([*STAGE, "--model.warmup=2"], "model.warmup: 2.0 must be a number of at least 0 and below 1"),
        ([*STAGE, "--model.optimizer.lr=-1"], "model.optimizer: Invalid learning rate: -1"),
        ([*STAGE, "--model.backbone.checkpoint=TMP"], r"backbone\.checkpoint: '.*' has no config\.json"),
        (
            [*STAGE, *NO_MODEL, "--trainer.precision=16-mixed"],
            r"trainer\.precision: '16-mixed' .* in training; use bf16-",
        ),
        ([*STAGE, *NO_MODEL, "--trainer.precision=16"], "trainer.precision: '16' is not supported in training"),
        ([*STAGE, *NO_MODEL, "--trainer.precision=64-true"], "trainer.precision: '64-true' is not supported"),
        (
            [*STAGE, *NO_MODEL, "--trainer.precision=transformer-engine"],
            r"'transformer-engine' .* bf16-true or 32-true",
        ),
        ([*STAGE, *NO_MODEL, "--trainer.precision=half"], "trainer.precision: .*Literal"),
        (
            [*STAGE, *NO_MODEL, "--trainer.plugins+=lightning.pytorch.plugins.HalfPrecision"],
            "HalfPrecision is not supp",
        ),
        ([*STAGE, "--trainer.strategy=fsdp"], "trainer.strategy: 'fsdp' is FSDP1, .*; use configs/strategy/fsdp2.yaml"),
        (
            [*STAGE, "--trainer.strategy=lightning.pytorch.strategies.FSDPStrategy"],
            "trainer.strategy: '.*FSDPStrategy' is FSDP1",
        ),
        ([*STAGE, "--trainer.strategy=nowhere"], "trainer: You selected an invalid strategy name: .*nowhere"),
        ([*STAGE, "--data.train=TMP/none"], "none: folder: does not exist"),
        ([*STAGE, "--ckpt_path=TMP/none.ckpt"], "ckpt_path: '.*none.ckpt' does not exist"),
        ([*STAGE, "--ckpt_path=TMP/damaged.ckpt"], "ckpt_path: '.*damaged.ckpt' is damaged or not a checkpoint"),
        ([*STAGE, "--ckpt_path=TMP/other.ckpt"], r"ckpt_path: does not fit this model: 1 .*\(backbone.other.weight"),
    ],
    ids=lambda value: value[-1].rpartition("/")[2] if isinstance(value, list) else "",
)
def test_a_fault_is_one_line(
    args: list[str],
    said: str,
    faulty: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    lab_shards: Callable[..., str],
) -> None:
    given = [arg.replace("TMP", str(faulty)) for arg in args]
    if {"--model.backbone.checkpoint=TMP", "--ckpt_path=TMP/other.ckpt"} & {*args}:
        given.append(f"--data.train={lab_shards(tmp_path / 'set', 1)}")  # for data is looked at first
    if len(given) > 1 and given[1:2] == ["-c"] and "stage" in given[2]:
        given += [f"--trainer.default_root_dir={tmp_path}/run"]
    assert main(given) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("kvg: ")]
    assert len(lines) == 1
    assert re.search(said, lines[0])
    assert not (tmp_path / "run" / "export").exists()


def test_no_arguments_show_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage: kvg" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["kvg.cli.kvg", "kvg.cli.kvg_data"])
def test_help_imports_nothing_heavy(module: str) -> None:
    code = (
        f"import sys; from {module} import main; assert main(['--help']) == 0; "
        "print([m for m in ('torch', 'lightning', 'transformers', 'numpy', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "usage: kvg" in done.stdout


def test_shipped_configs_are_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["fit", "-c", "configs/stage/grpo.yaml", "--print_config"])
    assert stop.value.code == 0
    assert "class_path: kvg.modules.grpo.GRPOModule" in capsys.readouterr().out


def test_a_config_of_ones_own_goes_before_a_shipped_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs" / "stage").mkdir(parents=True)
    (tmp_path / "configs" / "stage" / "grpo.yaml").write_text("mine: 1\n")
    assert main(["fit", "-c", "configs/stage/grpo.yaml"]) == 2
    assert "grpo.yaml: mine: unknown setting" in capsys.readouterr().err


def test_explain_keeps_messages_it_does_not_know() -> None:
    assert explain("something new") == ("settings", "something new")


def test_data_door_lists_every_command_and_refuses_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert data_door.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"    {name}" in shown for name in data_door.COMMANDS)
    assert data_door.main(["nonsense"]) == 2
    assert "invalid choice: 'nonsense'" in capsys.readouterr().err


@pytest.mark.parametrize("name", data_door.COMMANDS)
def test_every_data_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert data_door.main([name, "--help"]) == 0
    assert f"usage: kvg-data {name}" in capsys.readouterr().out


@pytest.mark.parametrize("name", data_door.COMMANDS)
def test_the_example_of_every_data_command_is_one(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    data_door.main([name, "--help"])
    example = data_door.EXAMPLES[name]
    assert f"example: {example}" in " ".join(capsys.readouterr().out.split())
    program, command, *arguments = example.split()
    parser = argparse.ArgumentParser()
    importlib.import_module(f"kvg.cli.{name}").add_arguments(parser)
    parser.parse_args(arguments)  # exits where the command has no such argument
    assert (program, command) == ("kvg-data", name)


def test_the_data_door_finds_shipped_configs_from_anywhere_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Path(data_door.shipped("configs/lab/test.yaml")).is_file()
    assert data_door.shipped("configs/lab/nowhere.yaml") == "configs/lab/nowhere.yaml"
    own = tmp_path / "configs/lab/test.yaml"
    own.parent.mkdir(parents=True)
    own.touch()
    assert data_door.shipped("configs/lab/test.yaml") == "configs/lab/test.yaml"


LONG_WINDED = """
import sys, types
from kvg.cli.kvg_data import main
command = types.ModuleType("kvg.cli.scan")
command.add_arguments = lambda parser: None
command.run = lambda args: print("line\\n" * 100_000)
sys.modules["kvg.cli.scan"] = command
sys.exit(main(["scan"]))
"""


def test_a_reader_that_has_had_enough_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "talk.py").write_text(LONG_WINDED)
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} talk.py | head -1"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("line\n", "")
