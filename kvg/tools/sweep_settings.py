"""What the commands of a sweep come to when all their overlays are merged; wrong settings are found before any runs."""

from __future__ import annotations

import json
import logging
import multiprocessing
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from kvg.cli import check_overlays
from kvg.errors import ConfigError
from kvg.pieces import follow_parent


def merged_settings(commands: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Any]]:
    """Parses commands of ``kvg`` as they would be parsed when they run; builds nothing.

    A process of its own does it: torch stays out of the one that waits for hours while the commands run.

    Args:
        commands: by a title of theirs, program first.

    Returns:
        By title the merged settings, as plain data.

    Raises:
        ConfigError: a setting is unknown or cannot work; the message names the command's title.
    """
    found = {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=follow_parent) as pool:
        try:
            for title, command in commands.items():
                try:
                    check_overlays(command[1:])
                    found[title] = pool.submit(_parse, command[1:]).result()
                except ConfigError as error:
                    raise ConfigError(error.field, f"{error.remedy} ({title})") from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return found


def _parse(arguments: Sequence[str]) -> dict[str, Any]:
    from kvg.lightning_cli import KVGCLI

    class Parsed(Exception):
        """Stops where objects would be made."""

    class Parser(KVGCLI):
        def before_instantiate_classes(self) -> None:
            raise Parsed(self.config)

    for name in ("lightning.fabric", "lightning.pytorch"):  # which seed is set is no news of a command that runs later
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Parser(arguments)
    except Parsed as parsed:
        merged = parsed.args[0][arguments[0]]
        settings: dict[str, Any] = json.loads(json.dumps(merged.as_dict(), default=str))
        return settings
    raise AssertionError("objects are made after parsing")
