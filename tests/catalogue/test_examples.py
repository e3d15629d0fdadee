"""The commented sources of configs/project.yaml: each names a class, and all of its arguments exist."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from kvg.catalogue import published

PROJECT = Path(__file__).parents[2] / "configs/project.yaml"


def examples():
    lines = PROJECT.read_text().partition("\nsources:")[2].partition("\nscan:")[0].splitlines()[1:]
    kept = ["  " + line.removeprefix("  # ") if line.startswith("  # ") else line for line in lines]
    # Remarks end in a colon or a full stop; settings are `name: value` or begin a block.
    return yaml.safe_load("\n".join(line for line in kept if line.strip() and not line.rstrip().endswith(REMARKS)))


REMARKS = ("declared.", "are the entities:", "data set stores them:", "archives unpack:")


@pytest.mark.parametrize("name", sorted(examples()))
def test_an_example_fits_its_class(name):
    setting = examples()[name]
    module, _, kind = setting["class_path"].rpartition(".")
    inspect.signature(getattr(import_module(module), kind)).bind(**setting["init_args"])


def test_every_source_has_an_example():
    classes = {setting["class_path"].rpartition(".")[2] for setting in examples().values()}
    own = {
        name
        for name, value in vars(published).items()
        if inspect.isclass(value) and value.__module__ == published.__name__
    }
    assert classes == own | {"ImageFolder", "Table", "Coco", "Parquet"}
