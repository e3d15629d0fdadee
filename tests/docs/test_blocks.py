"""Every code block of the documentation is parsed by what would read it: no path, option or key is out of date."""

from __future__ import annotations

import ast
import importlib
import json
import re
from argparse import ArgumentParser

import pytest
import yaml

from kvg.cli.commands import COMMANDS
from kvg.cli.doctor import split
from kvg.config.overlay_files import SETTINGS, shipped_configs, switches, with_test_sets
from kvg.config.search_path import import_class
from kvg.training.resolved import merged_settings
from tests.docs.pages import ROOT, Block, blocks

ALL = blocks()
SHELL = [block for block in ALL if block.kind == "sh"]
KINDS = {"sh", "python", "yaml", "json", "text", ""}
OTHERS = {"pip", "vllm", "tensorboard", "ssh", "docker", "git"}  # programs of others, which are not parsed
SCRIPTS = {"kvg", "kvg-data", "make", "python", "sbatch", ".venv/bin/pytest", "pytest"}


def ids(block: Block) -> str:
    return block.name


def without_environment(words: list[str]) -> list[str]:
    """A command without ``NAME=value`` before it."""
    while words and re.match(r"\w+=", words[0]):
        words = words[1:]
    return words


def lines(program: str) -> list[tuple[str, list[str]]]:
    """Commands of a program with the name of their block; ``sbatch fit.sbatch`` runs ``kvg fit``."""
    found = []
    for block in SHELL:
        for words in map(without_environment, block.commands):
            if words[0] == program:
                found.append((block.name, words))
            elif words[0] == "sbatch" and program == "kvg":
                script = next(n for n, word in enumerate(words) if word.endswith(".sbatch"))
                assert (ROOT / words[script]).is_file(), block.name
                found.append((block.name, ["kvg", "fit", *words[script + 1 :]]))
    return found


@pytest.fixture
def at_root(tmp_path, monkeypatch):
    """A folder with the files that pages write, so that overlays of pages are found."""
    for block in ALL:
        if block.file:
            (tmp_path / block.file).write_text(block.text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_blocks_are_of_known_kinds_and_programs():
    assert {block.kind for block in ALL} <= KINDS
    for block in SHELL:
        for words in map(without_environment, block.commands):
            assert words[0] in SCRIPTS | OTHERS, f"{block.name}: {words[0]}"


def test_commands_of_kvg_and_overlays_of_pages_parse(at_root):
    commands = {}
    for name, words in lines("kvg"):
        if words[1] in ("fit", "validate", "test", "predict"):
            args = [word for word in words[1:] if word != "--print_config"]
            commands.setdefault(tuple(args), name)
        elif words[1] == "doctor":
            commands.setdefault(("fit", *split(words[2:])[1]), name)
        else:
            importlib.import_module(f"kvg.cli.{words[1]}").parser().parse_args(words[2:])
    for number, block in enumerate(YAML):
        if set(yaml.safe_load(block.text)) <= set(SETTINGS) and "my_package" not in block.text:
            overlay = f"overlay{number}.yaml"
            (at_root / overlay).write_text(block.text)
            parts = (*(f"configs/{part}.yaml" for part in ("stage/grpo", "backbone/lab", "data/lab")), overlay)
            commands[("fit", *(word for part in parts for word in ("-c", part)))] = block.name
    assert len(commands) >= 15
    merged_settings(
        {
            f"{name}: {' '.join(args)}": ["kvg", *with_test_sets(switches(shipped_configs(args)))]
            for args, name in commands.items()
        }
    )


def test_commands_of_kvg_data_parse():
    commands = lines("kvg-data")
    assert len(commands) >= 30
    for name, words in commands:
        assert words[1] in COMMANDS, name
        parser = ArgumentParser(exit_on_error=False)
        importlib.import_module(f"kvg.cli.{words[1]}").add_arguments(parser)
        try:
            parser.parse_args(words[2:])
        except SystemExit:
            pytest.fail(f"{name}: {' '.join(words)}")


def test_targets_of_make_and_scripts_exist():
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M)
    for name, words in lines("make"):
        assert words[1] in targets, name
    for name, words in lines("python"):
        if words[1] not in ("-m", "-c"):
            assert (ROOT / words[1]).is_file() or any(block.file == words[1] for block in ALL), name


@pytest.mark.parametrize("block", [b for b in ALL if b.kind == "python"], ids=ids)
def test_python_compiles_and_its_imports_exist(block):
    for node in ast.walk(ast.parse(block.text, block.name)):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in ("kvg", "data_modules", "callbacks"):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names), block.name


@pytest.mark.parametrize("block", [b for b in ALL if b.kind == "json"], ids=ids)
def test_json_is_json(block):
    for line in block.text.splitlines():
        json.loads(line)


YAML = [block for block in ALL if block.kind == "yaml" and isinstance(yaml.safe_load(block.text), dict)]


@pytest.mark.parametrize("block", [b for b in ALL if b.kind == "yaml"], ids=ids)
def test_classes_that_yaml_names_exist(block, at_root):
    yaml.safe_load(block.text)
    for path in re.findall(r"class_path: ([\w.]+)", block.text):
        if not path.startswith(("my_package.",)):
            import_class(block.name, path)


def test_project_files_of_pages_are_read(at_root):
    from kvg.pipeline.settings.project import load_project

    projects = [block for block in YAML if "sources" in yaml.safe_load(block.text)]
    assert len(projects) >= 3
    for number, block in enumerate(projects):
        path = at_root / f"project{number}.yaml"
        path.write_text(block.text)
        load_project(path).check_classes()
