"""The search path of modules: the packages of this project first, the user's folders last."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from kvg.errors import ConfigError, KVGError

ROOT: Final = Path(__file__).resolve().parents[2]  # folder of this project's packages, also when installed
OWN: Final = ("callbacks", "data_modules")  # common names, which a user's package may also have


class OwnPackages(MetaPathFinder):
    """Finds this project's packages beside ``kvg`` before other packages of the same names."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See ``importlib.abc.MetaPathFinder``."""
        return PathFinder.find_spec(fullname, [str(ROOT)]) if fullname in OWN else None


def search_user_folders_last(args: Iterable[str] = ()) -> None:
    """Lets a user's classes be imported, without their files hiding others (``yaml.py``, ``callbacks/``).

    ``python -m`` and an empty entry of PYTHONPATH put the working folder first. This moves it to the end.

    Args:
        args: arguments of the command; the folders of its YAML files are searched after the working folder.
    """
    if not any(isinstance(finder, OwnPackages) for finder in sys.meta_path):
        sys.meta_path.insert(0, OwnPackages())
    here = Path.cwd().resolve()
    if here != ROOT:
        sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != here]
    files = [Path(arg.rpartition("=")[2]) for arg in args if arg.endswith((".yaml", ".yml"))]
    for folder in (here, *(file.parent.resolve() for file in files if file.is_file())):
        if str(folder) not in sys.path:
            sys.path.append(str(folder))


def import_class(field: str, class_path: str) -> Any:
    """Imports the object that a ``class_path`` names.

    Args:
        field: name of the setting, for errors.
        class_path: module and name.

    Raises:
        ConfigError: the module or name does not exist, or importing the module fails.
        KVGError: raised by the module itself.
    """
    module, _, name = class_path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except KVGError:
        raise
    except Exception as error:  # a user's module can raise any exception
        reason = f"{type(error).__name__}: {error}" if not isinstance(error, ImportError) else error
        remedy = f"'{class_path}' cannot be imported ({reason}); correct it"
        raise ConfigError(f"{field}.class_path", remedy + hidden_module(class_path)) from error


def hidden_module(text: str) -> str:
    """Explains a failed import: returns a clause that names the user's module which this project's package hides.

    Args:
        text: a class path, or a message that contains it.

    Returns:
        The clause; '' if nothing is hidden.
    """
    for name in OWN:
        if not any(f"{quote}{name}{end}" in f" {text}" for quote in " '\"" for end in ".'\""):
            continue
        folders = [Path(entry or ".") for entry in sys.path if Path(entry or ".").resolve() != ROOT]
        hidden = [folder / part for folder in folders for part in (name, f"{name}.py") if (folder / part).exists()]
        if hidden:
            return f"; '{name}' is a package of this project and hides {hidden[0].resolve()}: rename that"
    return ""
