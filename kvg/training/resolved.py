"""Merges overlays with the parser of ``kvg``, so that a file has the same meaning in every command.

Parsing runs in a separate process, so that this process does not import Torch and Lightning. Invalid settings are found
before any command runs.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Final, TypeVar

from kvg.config.overlay_files import check_overlays, names_class, read_overlay, shipped_configs
from kvg.errors import ConfigError
from kvg.inference.local_settings import BACKBONE_CLASS, TRAINER
from kvg.work.pool import follow_parent
from kvg.work.progress import quiet_lightning

T = TypeVar("T")
BACKBONE: Final = "--model.init_args.backbone"
# Base settings for overlays without a stage. Only the overlays' settings are returned.
_STAGE: Final[dict[str, dict[str, Any]]] = {
    "trainer": {"accelerator": "auto", "devices": 1},
    "model": {"class_path": "kvg.modules.cot_sft.CoTSFTModule", "init_args": {}},
    "data": {"class_path": "data_modules.CoTSFTDataModule", "init_args": {"train": "-"}},
}
_DECIDING: Final = (*TRAINER, "plugins")  # Trainer settings that affect inference


def merged_settings(commands: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Any]]:
    """Parses commands of ``kvg`` without building objects.

    Args:
        commands: argument lists by title, starting with the program.

    Returns:
        The merged settings by title, as plain data.

    Raises:
        ConfigError: a setting is unknown or invalid; the message names the command's title.
    """
    settings: dict[str, dict[str, Any]] = {}

    def parse_all(parse: Callable[..., dict[str, Any]]) -> None:
        for title, command in commands.items():
            try:
                check_overlays(command[1:])
                settings[title] = parse(_plain_settings, command[1:])
            except ConfigError as error:
                raise ConfigError(error.field, f"{error.remedy} ({title})") from error

    _in_a_process(parse_all)
    return settings


def settings_here(arguments: Sequence[str]) -> dict[str, Any]:
    """Parses one command of ``kvg`` in this process, for commands that need torch themselves.

    Args:
        arguments: after the program's name.

    Raises:
        ConfigError: a setting is unknown or invalid.
    """
    check_overlays(arguments)
    return _plain_settings(arguments)


def num_processes(settings: Mapping[str, Any]) -> int:
    """Number of processes of a command; the number of cores if ``trainer.devices`` is not a number."""
    devices = str(settings["trainer"]["devices"])  # text if set on the command line
    return int(devices) if devices.isdecimal() and int(devices) else os.cpu_count() or 1


def answering_settings(overlays: Sequence[str], checkpoint: str | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of backbone and Trainer for inference, from merged overlays.

    Args:
        overlays: paths of configs, as after ``-c``. A stage is optional.
        checkpoint: replaces the checkpoint of the overlays.

    Returns:
        The backbone's ``{class_path, init_args}`` without default values, and the Trainer settings for inference.

    Raises:
        ConfigError: an overlay is not YAML, a setting is unknown or invalid, or no checkpoint is named.
    """
    words = answering_words(overlays, checkpoint)
    settings: tuple[dict[str, Any], dict[str, Any]] = _in_a_process(lambda parse: parse(parse_answering, words))
    return settings


def answering_words(overlays: Sequence[str], checkpoint: str | None) -> list[str]:
    """The command line for ``parse_answering``, after checking the overlays' syntax and order.

    Args:
        overlays: see ``answering_settings``.
        checkpoint: see ``answering_settings``.

    Raises:
        ConfigError: an overlay cannot be opened, is not a YAML mapping, or has an unknown top-level key.
    """
    args = shipped_configs([word for path in overlays for word in ("-c", path)])
    stage = {"data": _STAGE["data"]}
    if not any(names_class(read_overlay(path), "model") for path in args[1::2]):
        init_args = {"backbone": {"class_path": BACKBONE_CLASS, "init_args": {"checkpoint": ""}}}
        stage = {**_STAGE, "model": {**_STAGE["model"], "init_args": init_args}}
    check_overlays([*(f"--{name}" for name in stage), *args])
    words = ["fit", "-c", json.dumps(stage), *args, "--ckpt_path", "null"]
    if checkpoint:
        words += [f"{BACKBONE}.init_args.checkpoint", checkpoint]
    return words


def parse_answering(words: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of backbone and Trainer of a command line, see ``answering_settings``.

    Raises:
        ConfigError: a setting is unknown or invalid, or no checkpoint is named.
    """
    merged, changed = _parse(words)
    trainer = {name: merged["trainer"][name] for name in _DECIDING if merged["trainer"].get(name) is not None}
    if "strategy" in trainer:
        trainer["strategy"] = _only(trainer["strategy"], changed.get("trainer", {}).get("strategy"))
    backbone = _only(merged["model"]["init_args"]["backbone"], changed["model"]["init_args"]["backbone"])
    if not backbone.get("init_args", {}).get("checkpoint"):
        raise ConfigError("--checkpoint", "is missing; name the model here or in an overlay")
    return backbone, trainer


def _in_a_process(use: Callable[[Callable[..., Any]], T]) -> T:
    """Calls ``use`` with a function that runs another function, with its arguments, in a new process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=follow_parent) as pool:
        try:
            return use(lambda function, *args: pool.submit(function, *args).result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _plain_settings(arguments: Sequence[str]) -> dict[str, Any]:
    merged, _ = _parse(arguments)
    settings: dict[str, Any] = json.loads(json.dumps(merged, default=str))
    return settings


def _only(setting: Any, changed: Any) -> Any:
    """A ``{class_path, init_args}`` with only the arguments that differ from the class's defaults."""
    if not isinstance(setting, Mapping) or "class_path" not in setting:
        return setting
    names = changed.get("init_args", {}) if isinstance(changed, Mapping) else {}
    init_args = {name: value for name, value in setting.get("init_args", {}).items() if name in names}
    return {"class_path": setting["class_path"], **({"init_args": init_args} if init_args else {})}


def _parse(arguments: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """All merged settings, and the settings that differ from their defaults."""
    import yaml  # runs in the separate process, the only one that imports Lightning

    from kvg.training.lightning_cli import KVGCLI, reported  # as above

    class Parsed(Exception):
        """Stops before objects are built."""

    class Parser(KVGCLI):
        def before_instantiate_classes(self) -> None:
            command = self._subcommand_parsers[arguments[0]]
            config = self.config[arguments[0]]
            raise Parsed(config.as_dict(), command.dump(config, skip_default=True, skip_validation=True))

    try:
        # The log line about the seed belongs to the command that runs later.
        with quiet_lightning(logging.ERROR), warnings.catch_warnings(), reported():
            warnings.simplefilter("ignore")
            Parser(arguments)
    except Parsed as parsed:
        merged, changed = parsed.args
        return merged, yaml.safe_load(changed)
    raise AssertionError("parsing must stop before objects are built")
