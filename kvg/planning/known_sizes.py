"""Sizes of models: of folders, of the models that ship with this project, and of published ones without their files."""

from __future__ import annotations

import copy
import json
import re
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from kvg.backbones import picture_settings
from kvg.backbones.adapter_files import adapter_base
from kvg.backbones.builtin import FAMILY, LAB, RANDOM, TinySize, checkpoint_folder, lab_tokenizer, qwen2_vl_config
from kvg.backbones.checkpoint_files import read_object
from kvg.backbones.checkpoints import CONFIG, read_config
from kvg.backbones.family import Family
from kvg.backbones.find_family import family_of_type, find_family
from kvg.errors import ConfigError
from kvg.planning.skeleton import Size


@cache
def published() -> dict[str, tuple[str, dict[str, Any], dict[str, Any]]]:
    """Family, settings of the model and settings of pictures of published models, by name.

    The files under ``kvg/planning/sizes`` hold the numbers of their ``config.json`` that decide about memory.

    >>> "Qwen2-VL-72B" in published()
    True
    """
    sizes = {}
    for file in sorted((resources.files("kvg.planning") / "sizes").iterdir(), key=lambda file: file.name):
        content = json.loads(file.read_text("utf-8"))
        for name, config in content["sizes"].items():
            sizes[name] = (file.name.removesuffix(".json"), config, content["pictures"])
    return sizes


def size_of(checkpoint: str, family: Family | None = None, name: str | None = None) -> Size:
    """The size of the model that a config names.

    Args:
        checkpoint: a folder, ``lab``, ``lab-random``, ``tiny``, or a name that contains a published one, such as
            ``Qwen/Qwen2-VL-7B-Instruct`` and ``runs/qwen2_vl_7b_cot_sft/export``.
        family: as the config names it.
        name: of a published model, which counts instead of the checkpoint.

    Raises:
        ConfigError: no size is known.
    """
    if name is not None:
        if name not in published():
            raise ConfigError("--size", f"'{name}' is not known; there are {', '.join(published())}")
        return _published(name)
    if checkpoint in RANDOM:
        own = family or family_of_type(FAMILY)
        config = None if checkpoint == "tiny" else qwen2_vl_config(lab_tokenizer(), TinySize())
        return Size(checkpoint, own, config, own.tiny_pictures(), torch.float32)
    if checkpoint == LAB or (Path(checkpoint) / CONFIG).is_file() or adapter_base(checkpoint):
        return _of_folder(adapter_base(checkpoint) or checkpoint, family)
    plain = _plain(checkpoint)
    names = [known for known in published() if _plain(known) in plain]
    if not names:
        there = ", ".join(published())
        remedy = f"'{checkpoint}' is no folder, and names no size that is known; give --size, one of {there}"
        raise ConfigError("backbone.checkpoint", remedy)
    return _published(max(names, key=len))


def _plain(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())


def _published(name: str) -> Size:
    model_type, config, pictures = published()[name]
    family = family_of_type(model_type)
    built = family.hf_class.config_class(**copy.deepcopy(config))  # which changes what it is given
    return Size(name, family, built, family.picture_settings(pictures, built))


def _of_folder(checkpoint: str, family: Family | None) -> Size:
    if _published_elsewhere(checkpoint):
        return size_of(checkpoint)
    own, folder = find_family(checkpoint, family), checkpoint_folder(checkpoint)
    config = read_config(folder)
    pictures = own.picture_settings(read_object(folder, picture_settings.FILE), config)
    return Size(checkpoint, own, config, pictures, getattr(config, "dtype", None) or torch.float32)


def _published_elsewhere(checkpoint: str) -> bool:
    """Whether adapters name a model that is not in a folder here."""
    return checkpoint != LAB and not (Path(checkpoint) / CONFIG).is_file()
