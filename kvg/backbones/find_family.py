"""Which family a checkpoint belongs to: its ``model_type`` names the file in ``kvg/backbones/families``."""

from __future__ import annotations

import importlib
import pkgutil

from kvg.backbones import families
from kvg.backbones.adapter_files import adapter_base
from kvg.backbones.builtin import FAMILY, LAB, RANDOM
from kvg.backbones.checkpoint_files import fault
from kvg.backbones.checkpoints import read_config
from kvg.backbones.family import Family
from kvg.errors import ConfigError


def find_family(checkpoint: str, family: Family | None = None) -> Family:
    """The family of a checkpoint; reads its settings alone.

    Args:
        checkpoint: a folder of a model or of adapters, a hub name, ``lab``, ``lab-random`` or ``tiny``.
        family: as a config names it; None leaves it to the checkpoint.

    Raises:
        ConfigError: the checkpoint cannot be read, is of another family than the config says, or of none that is known.
    """
    if checkpoint in (LAB, *RANDOM):
        own = FAMILY
    else:
        own = str(read_config(adapter_base(checkpoint) or checkpoint).model_type)
    if family is not None:
        if family.model_type != own and checkpoint != "tiny":
            remedy = f"holds a {own} model, not {family.model_type}; leave backbone.family out, or name its own"
            raise fault(checkpoint, remedy)
        return family
    if own not in known_families():
        known = ", ".join(known_families())
        raise fault(checkpoint, f"holds a {own} model; there are {known}: name a family of your own in backbone.family")
    return family_of_type(own)


def family_of_type(model_type: str) -> Family:
    """One of the families in this package.

    Args:
        model_type: one of ``known_families()``.

    Raises:
        ConfigError: its file defines no family of that type.
    """
    module = importlib.import_module(f"{families.__name__}.{model_type}")
    for kind in vars(module).values():
        if isinstance(kind, type) and issubclass(kind, Family) and getattr(kind, "model_type", "") == model_type:
            return kind()
    raise ConfigError("backbone.family", f"{module.__name__} defines no family of model_type {model_type}")


def known_families() -> list[str]:
    """Model types of all families in this package.

    >>> "qwen2_vl" in known_families()
    True
    """
    return sorted(module.name for module in pkgutil.iter_modules(families.__path__))
