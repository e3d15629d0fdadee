"""MATLAB files, read in a process of their own: the compiled parser of SciPy crashes on some damaged ones."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np

from kvg.errors import DataError


def read_variables(path: Path, names: Sequence[str]) -> list[Any]:
    """Variables of a MATLAB file, each flat.

    Args:
        path: the file.
        names: of the variables.

    Raises:
        DataError: the file cannot be read, or lacks a variable.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        try:
            return process.submit(_read, str(path), tuple(names)).result()
        except BrokenProcessPool as error:
            raise DataError(str(path), "index", "is damaged: its reader crashed; unpack the whole set") from error
        except Exception as error:  # a damaged file makes its parser raise nearly anything
            raise DataError(str(path), "index", f"cannot be read ({error}); unpack the whole set") from error


def _read(path: str, names: Sequence[str]) -> list[Any]:
    from scipy.io import loadmat  # in a process of its own: its parser crashes on some damaged files

    content = loadmat(path, variable_names=names)
    return [np.ravel(content[name]) for name in names]
