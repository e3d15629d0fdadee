"""Reads MATLAB files in a separate process, because SciPy's compiled parser crashes on some damaged files."""

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
    """Reads variables of a MATLAB file; returns each as a flat array.

    Args:
        path: the file.
        names: names of the variables.

    Raises:
        DataError: the file cannot be read, or lacks a variable.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        try:
            return process.submit(_read, str(path), tuple(names)).result()
        except BrokenProcessPool as error:
            raise DataError(str(path), "index", "is damaged: its reader crashed; unpack the whole set") from error
        except Exception as error:  # the parser raises many kinds of errors on a damaged file
            raise DataError(str(path), "index", f"cannot be read ({error}); unpack the whole set") from error


def _read(path: str, names: Sequence[str]) -> list[Any]:
    from scipy.io import loadmat  # imported only in the separate process, see the top of this file

    content = loadmat(path, variable_names=names)
    return [np.ravel(content[name]) for name in names]
