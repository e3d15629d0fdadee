"""Overlays of ``kvg``: where their files lie, and checks that need neither torch nor Lightning."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kvg.config.search_path import ROOT
from kvg.errors import ConfigError

SHIPPED = ROOT  # holds configs/, too
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
    """Replaces ``-c configs/...`` by the file shipped with the package where there is no such file here.

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
    """Gives ``--overwrite`` its value where it stands alone, as a switch does.

    >>> switches(["fit", "--overwrite", "-c", "a.yaml"])
    ['fit', '--overwrite=true', '-c', 'a.yaml']
    >>> switches(["fit", "--overwrite", "false"])
    ['fit', '--overwrite', 'false']
    """
    following = [*args[1:], "-"]
    return [
        "--overwrite=true" if arg == "--overwrite" and after.startswith("-") else arg
        for arg, after in zip(args, following, strict=False)
    ]


def shipped(path: str) -> str:
    """The config of this package that a path names (``configs/lab/test.yaml``) where no such file lies here.

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
        ConfigError: a file is no YAML mapping, has an unknown key, or sets arguments of a class not named before it.
    """
    named = {key for key in ("model", "data") if any(re.match(rf"--{key}(\.class_path)?(=|$)", a) for a in args)}
    paths = [args[i + 1] for i, arg in enumerate(args[:-1]) if arg in ("-c", "--config")]
    paths += [arg.partition("=")[2] for arg in args if arg.startswith(("-c=", "--config="))]
    for path in paths:
        overlay = read_overlay(path)
        for key in ("model", "data"):
            if names_class(overlay, key):
                named.add(key)
            elif key not in named and _sets_arguments(overlay, key):
                raise ConfigError(f"{path}: {key}.class_path", "is not set yet; put the stage's config before this one")


def read_overlay(path: str) -> dict[str, Any]:
    """A config as it stands in its file; only its top-level keys are checked.

    Raises:
        ConfigError: it cannot be opened, is no YAML mapping, or has an unknown key.
    """
    import yaml  # `kvg --help` needs none

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
        raise ConfigError(f"{path}: {lost}", f"would be lost beside `{lost.rpartition('.')[0]}`; write it inside")
    return content


def _lost_key(settings: Mapping[Any, Any]) -> str:
    """A key with dots whose beginning is a key, too: the parser keeps one of them only. Else ''.

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
    """Whether an overlay says which class ``model`` or ``data`` is.

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
