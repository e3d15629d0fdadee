"""Overlays of ``kvg``: finds and checks their files, without importing torch or Lightning."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kvg.config.search_path import ROOT
from kvg.errors import ConfigError

SHIPPED = ROOT  # also contains configs/
TEST_SETS = "configs/data/test_sets.yaml"
TRAINING_DATA = ("data_modules.CoTSFTDataModule", "data_modules.GRPODataModule")  # which have no test sets
SETTINGS = (
    "seed_everything",
    "trainer",
    "model",
    "data",
    "ckpt_path",
    "weights_only",
    "verbose",
    "return_predictions",
    "overwrite",
)


def shipped_configs(args: Sequence[str]) -> list[str]:
    """Replaces ``-c configs/...`` by the file shipped with the package if there is no such file here.

    Raises:
        ConfigError: a config exists in neither place.
    """
    words, is_path = [], False
    for arg in args:
        name, _, value = arg.partition("=")
        if is_path or (name in ("-c", "--config") and value):
            path = arg if is_path else value
            words.append(_existing(path) if is_path else f"{name}={_existing(path)}")
            is_path = False
        else:
            words.append(arg)
            is_path = arg in ("-c", "--config")
    return words


def switches(args: Sequence[str]) -> list[str]:
    """Adds the value ``true`` to ``--overwrite`` without a value; writes short options in full.

    >>> switches(["fit", "--overwrite", "-c", "a.yaml"])
    ['fit', '--overwrite=true', '-c', 'a.yaml']
    >>> switches(["fit", "--overwrite", "false"])
    ['fit', '--overwrite', 'false']
    >>> switches(["predict", "--intervene=none", "--thoughts", "runs/a"])
    ['predict', '--data.intervene=none', '--data.thoughts', 'runs/a']
    """
    args = [re.sub(r"^--(intervene|thoughts)(?==|$)", r"--data.\1", arg) for arg in args]
    following = [*args[1:], "-"]
    return [
        "--overwrite=true" if arg == "--overwrite" and after.startswith("-") else arg
        for arg, after in zip(args, following, strict=False)
    ]


def shipped(path: str) -> str:
    """Returns the shipped config that a path names (``configs/lab/test.yaml``), if there is no such file here.

    >>> shipped("--seed")
    '--seed'
    """
    own = SHIPPED / path
    return str(own) if path.startswith("configs/") and not Path(path).exists() and own.is_file() else path


def _existing(path: str) -> str:
    existing = shipped(path)
    if Path(existing).is_file():
        return existing
    near = next((folder for folder in (Path(path).parent, (SHIPPED / path).parent) if folder.is_dir()), None)
    names = sorted(file.name for file in near.glob("*.yaml")) if near else []
    there = f"; {os.path.relpath(near)} holds {', '.join(names)}" if near and names else ""
    raise ConfigError(f"-c {path}", f"no such file{there}")


def check_overlays(args: Sequence[str]) -> None:
    """Checks syntax, top-level keys and order of the configs in ``args``.

    Raises:
        ConfigError: a file is not a YAML mapping, has an unknown key, or sets arguments of a class that is not named
            before it.
    """
    named = {key for key in ("model", "data") if any(re.match(rf"--{key}(\.class_path)?(=|$)", a) for a in args)}
    for path in _configs(args):
        overlay = read_overlay(path)
        for key in ("model", "data"):
            if names_class(overlay, key):
                named.add(key)
            elif key not in named and _sets_arguments(overlay, key):
                raise ConfigError(f"{path}: {key}.class_path", "is not set yet; put the stage's config before this one")


def with_test_sets(args: Sequence[str]) -> list[str]:
    """Adds the overlay of test sets to ``test`` and ``predict`` with ``--data.test``, where a stage's data came before.

    Args:
        args: a command, and configs that exist.

    Raises:
        ConfigError: see ``read_overlay``.
    """
    sets = [at for at, arg in enumerate(args) if re.match(r"--data\.(init_args\.)?test(=|$)", arg)]
    if args[0] not in ("test", "predict") or not sets or any(re.match(r"--data(\.class_path)?(=|$)", a) for a in args):
        return list(args)
    classes = [name for path in _configs(args) if (name := _data_class(read_overlay(path)))]
    if not classes or classes[-1] not in TRAINING_DATA:
        return list(args)
    return [*args[: sets[0]], "-c", str(SHIPPED / TEST_SETS), *args[sets[0] :]]


def _configs(args: Sequence[str]) -> list[str]:
    """Returns the paths of the configs in ``args``, in order."""
    pairs = zip(args, [*args[1:], ""], strict=True)
    return [
        after if arg in ("-c", "--config") else arg.partition("=")[2]
        for arg, after in pairs
        if arg.partition("=")[0] in ("-c", "--config") and (after or "=" in arg)
    ]


def _data_class(overlay: Mapping[str, Any]) -> str:
    data = overlay.get("data")
    return str((data.get("class_path") if isinstance(data, dict) else data) or overlay.get("data.class_path") or "")


def read_overlay(path: str) -> dict[str, Any]:
    """Reads one config; checks only its top-level keys.

    Raises:
        ConfigError: the file cannot be opened, is not a YAML mapping, or has an unknown key.
    """
    import yaml  # not needed by `kvg --help`

    try:
        content: Any = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(path, f"cannot be opened ({error.strerror}); correct the path") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(path, f"is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(path, "must be a mapping of settings, such as `trainer: {max_epochs: 1}`")
    for key in content:
        if str(key).partition(".")[0].rstrip("+") not in SETTINGS:
            raise ConfigError(f"{path}: {key}", f"unknown setting; there are {', '.join(SETTINGS)}")
    if "trainer" in content and not isinstance(content["trainer"], dict):
        raise ConfigError(f"{path}: trainer", "must be a mapping of settings, such as `trainer: {max_epochs: 1}`")
    if lost := _lost_key(content):
        raise ConfigError(f"{path}: {lost}", f"would be ignored beside `{lost.rpartition('.')[0]}`; write it inside")
    return content


def _lost_key(settings: Mapping[Any, Any]) -> str:
    """Returns a dotted key whose prefix is also a key, since the parser keeps only one of them; '' if there is none.

    >>> _lost_key({"trainer": {"devices": 1}, "trainer.precision": 32})
    'trainer.precision'
    """
    for key, value in settings.items():
        parts = str(key).split(".")
        if any(".".join(parts[:end]) in settings for end in range(1, len(parts))):
            return str(key)
        if isinstance(value, dict) and (lost := _lost_key(value)):
            return f"{key}.{lost}"
    return ""


def names_class(overlay: Mapping[str, Any], key: str) -> bool:
    """Returns whether an overlay names the class of ``model`` or ``data``.

    >>> names_class({"model": {"class_path": "mine.Stage"}}, "model")
    True
    """
    value = overlay.get(key)
    return (
        isinstance(value, str) or (isinstance(value, dict) and "class_path" in value) or f"{key}.class_path" in overlay
    )


def _sets_arguments(overlay: Mapping[str, Any], key: str) -> bool:
    value = overlay.get(key)
    own = [str(name) for name in value] if isinstance(value, dict) else []
    dotted = [str(name).partition(".")[2] for name in overlay if str(name).startswith(f"{key}.")]
    return any(name.partition(".")[0] == "init_args" for name in (*own, *dotted))
