"""Files of a checkpoint come from outside: whatever is wrong with them, errors have one form."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from kvg.errors import ConfigError, DataError, KVGError
from kvg.records import excerpt, read_json

ABOUT: Final = "kvg.json"  # of exports: what no other file of a folder holds


def fault(checkpoint: str, remedy: str) -> ConfigError:
    """The error about a checkpoint that cannot be used."""
    return ConfigError("backbone.checkpoint", f"'{checkpoint}' {remedy}")


def read_object(checkpoint: str, name: str) -> dict[str, Any]:
    """The content of a JSON file in a checkpoint's folder.

    Raises:
        ConfigError: it cannot be read, or is no object.
    """
    try:
        content = read_json(Path(checkpoint) / name)
    except DataError as error:
        raise fault(checkpoint, f"its {name} {error.remedy}") from error
    if not isinstance(content, dict):
        raise fault(checkpoint, f"its {name} cannot be read: it holds {excerpt(content)} instead of an object")
    return content


@contextmanager
def reading(checkpoint: str, what: str) -> Iterator[None]:
    """Within this block whatever a library raises is a fault of the checkpoint.

    What a library makes of a damaged file is no part of its interface: tokenizers raises a bare Exception, and settings
    of a wrong type end in whatever is tried with them first.

    Args:
        checkpoint: that is read.
        what: is wrong where something is raised.

    Raises:
        ConfigError: something was.
    """
    try:
        yield
    except KVGError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        mend = "copy the file anew, or export the model again"
        if not Path(checkpoint).exists():  # a name on the hub
            mend = "correct the name, or download the model where the hub can be reached and give its folder"
        raise fault(checkpoint, f"{what} ({reason}); {mend}") from error
