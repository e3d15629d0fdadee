"""The door ``kvg``: fit, validate, test and predict from overlays of YAML.

What can be told from the command line and the files alone is checked here, before torch and Lightning are imported.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kvg.errors import ConfigError, KVGError
from kvg.search_path import ROOT, search_user_folders_last

SHIPPED = ROOT  # holds configs/, too
COMMANDS = {
    "fit": "train a stage",
    "validate": "measure a model on the validation set",
    "test": "write a model's answers to the test sets to predictions.jsonl, and measure them",
    "predict": "write them, without measuring",
}
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
USAGE = """usage: kvg {fit,validate,test,predict} -c CONFIG [-c CONFIG ...] [--KEY VALUE ...]

%(commands)s

Configs are overlays, merged from left to right: the stage first, then backbone, data and strategy. A path that
starts with configs/ also names a config shipped with the package. Any setting can be given as --KEY VALUE.

  kvg fit -c configs/stage/cot_sft.yaml -c configs/backbone/lab.yaml --data.train runs/data/train
  kvg fit -c configs/experiment/qwen2_vl_7b_cot_sft.yaml --data.train cot-sft.json
  kvg fit -c configs/stage/cot_sft.yaml --print_config     the merged settings
  kvg fit --help                                           every setting (takes some seconds)

A fit that is interrupted (Ctrl-C) saves and says how to go on; --ckpt_path last goes on from the newest checkpoint.
A folder that holds a run is refused, unless the fit goes on from its checkpoint, or --overwrite is given.

Errors in the settings end with exit code 2. What does not train is in kvg-data.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: arguments after the program's name; those of the process by default.

    Returns:
        The exit code: 0, or 2 for settings or data that cannot be used (one line on stderr says which).
    """
    args = list(sys.argv[1:] if argv is None else argv)
    search_user_folders_last(args)
    if not args or args[0] in ("-h", "--help"):
        lines = (f"  {name:<10}{text}" for name, text in COMMANDS.items())
        print(USAGE % {"commands": "\n".join(lines)}, end="", file=sys.stdout if args else sys.stderr)
        return 0 if args else 2
    try:
        if args[0] not in COMMANDS:
            raise ConfigError(args[0], f"no such command; there are {', '.join(COMMANDS)}")
        typed, args = args, switches(shipped_configs(args))
        check_overlays(args)
        from kvg.lightning_cli import run

        run(args, typed)
    except KVGError as error:
        print(f"kvg: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, SystemExit) as stop:
        # Lightning ends with exit code 1 where it has caught an interrupt.
        if isinstance(stop, SystemExit) and not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        if argv is None:  # nothing is left to do but to end, which a second Ctrl-C may cut short
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        print("kvg: interrupted", file=sys.stderr)
        return 130
    return 0


def shipped_configs(args: Sequence[str]) -> list[str]:
    """Replaces ``-c configs/...`` by the file shipped with the package where there is no such file here.

    Raises:
        ConfigError: a config exists in neither place.
    """
    found, is_path = [], False
    for arg in args:
        name, _, value = arg.partition("=")
        if is_path or (name in ("-c", "--config") and value):
            path = arg if is_path else value
            found.append(_existing(path) if is_path else f"{name}={_existing(path)}")
            is_path = False
        else:
            found.append(arg)
            is_path = arg in ("-c", "--config")
    return found


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
    found = shipped(path)
    if Path(found).is_file():
        return found
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
    import yaml

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


if __name__ == "__main__":
    sys.exit(main())
