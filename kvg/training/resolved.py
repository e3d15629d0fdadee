"""What overlays come to when they are merged: by the parser of ``kvg``, so that a file means the same everywhere.

A process of its own parses. Torch and Lightning stay out of this one, which may only wait for other commands, and wrong
settings are found before anything runs.
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
# What a backbone or a strategy is laid over where no overlay names a stage. Its own settings are not looked at.
_STAGE: Final[dict[str, dict[str, Any]]] = {
    "trainer": {"accelerator": "auto", "devices": 1},
    "model": {"class_path": "kvg.modules.cot_sft.CoTSFTModule", "init_args": {}},
    "data": {"class_path": "data_modules.CoTSFTDataModule", "init_args": {"train": "-"}},
}
_DECIDING: Final = (*TRAINER, "plugins")  # of the Trainer's settings; the others concern training alone


def merged_settings(commands: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Any]]:
    """Parses commands of ``kvg`` as they would be parsed when they run; builds nothing.

    Args:
        commands: by a title of theirs, program first.

    Returns:
        By title the merged settings, as plain data.

    Raises:
        ConfigError: a setting is unknown or cannot work; the message names the command's title.
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


def num_processes(settings: Mapping[str, Any]) -> int:
    """Processes of a command by its merged settings, or all cores where it takes whatever there is."""
    devices = str(settings["trainer"]["devices"])  # from a command line it comes as text
    return int(devices) if devices.isdecimal() and int(devices) else os.cpu_count() or 1


def answering_settings(overlays: Sequence[str], checkpoint: str | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The backbone and the Trainer's settings that overlays come to, for a model that answers.

    Args:
        overlays: paths of configs, as after ``-c``. Where none names a stage, that is not needed either.
        checkpoint: in place of the overlays'.

    Returns:
        ``{class_path, init_args}`` without what is the class's default, and what decides how the Trainer answers.

    Raises:
        ConfigError: an overlay is no YAML, a setting is unknown or cannot work, or no checkpoint is named.
    """
    words = answering_words(overlays, checkpoint)
    settings: tuple[dict[str, Any], dict[str, Any]] = _in_a_process(lambda parse: parse(parse_answering, words))
    return settings


def answering_words(overlays: Sequence[str], checkpoint: str | None) -> list[str]:
    """The command line that ``parse_answering`` parses; the files' syntax and order have been checked.

    Args:
        overlays: see ``answering_settings``.
        checkpoint: likewise.

    Raises:
        ConfigError: an overlay cannot be opened, is no YAML mapping, or has an unknown top-level key.
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
    """The backbone and the Trainer's settings of a command line, see ``answering_settings``.

    Raises:
        ConfigError: a setting is unknown or cannot work, or no checkpoint is named.
    """
    merged, changed = _parse(words)
    trainer = {name: merged["trainer"][name] for name in _DECIDING if merged["trainer"].get(name) is not None}
    if "strategy" in trainer:
        trainer["strategy"] = _only(trainer["strategy"], changed.get("trainer", {}).get("strategy"))
    backbone = _only(merged["model"]["init_args"]["backbone"], changed["model"]["init_args"]["backbone"])
    if not backbone.get("init_args", {}).get("checkpoint"):
        raise ConfigError("--checkpoint", "is missing; name the model that answers, here or in an overlay")
    return backbone, trainer


def _in_a_process(use: Callable[[Callable[..., Any]], T]) -> T:
    """Gives a function that carries out another one, with its arguments, in a new process."""
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
    """A ``{class_path, init_args}`` with those arguments alone that differ from the class's own defaults."""
    if not isinstance(setting, Mapping) or "class_path" not in setting:
        return setting
    names = changed.get("init_args", {}) if isinstance(changed, Mapping) else {}
    init_args = {name: value for name, value in setting.get("init_args", {}).items() if name in names}
    return {"class_path": setting["class_path"], **({"init_args": init_args} if init_args else {})}


def _parse(arguments: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Merged settings, whole, and those that differ from their defaults as text."""
    import yaml  # this runs in a process of its own, and only that one imports Lightning

    from kvg.training.lightning_cli import KVGCLI, reported  # as above

    class Parsed(Exception):
        """Stops where objects would be made."""

    class Parser(KVGCLI):
        def before_instantiate_classes(self) -> None:
            command = self._subcommand_parsers[arguments[0]]
            config = self.config[arguments[0]]
            raise Parsed(config.as_dict(), command.dump(config, skip_default=True, skip_validation=True))

    try:
        # Which seed is set is no news of a command that runs later.
        with quiet_lightning(logging.ERROR), warnings.catch_warnings(), reported():
            warnings.simplefilter("ignore")
            Parser(arguments)
    except Parsed as parsed:
        merged, changed = parsed.args
        return merged, yaml.safe_load(changed)
    raise AssertionError("objects are made after parsing")
