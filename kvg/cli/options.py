"""Errors of settings, named as on the command line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kvg.errors import ConfigError


@contextmanager
def named_as_options(section: str) -> Iterator[None]:
    """Turns ``section.keep_min`` in an error into ``--keep-min``.

    Args:
        section: of a project file, whose settings are the options of a command.
    """
    try:
        yield
    except ConfigError as error:
        names = error.field.split(", ")
        if not all(name.startswith(f"{section}.") for name in names):
            raise
        field = ", ".join(f"--{name.removeprefix(f'{section}.').replace('_', '-')}" for name in names)
        raise ConfigError(field, error.remedy.replace(f"{section}.", "--")) from error
