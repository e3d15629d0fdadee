"""Atomic writing of files, and clear errors if a disk cannot be written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from kvg.errors import DataError, KVGError


def atomic_write(path: Path, text: str) -> None:
    """Writes a file atomically: a reader sees either the old or the new content."""
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(partial, path)


class disk_errors:  # lower case, like context managers of the standard library
    """Converts errors of the disk to a ``DataError``.

    Args:
        folder: folder that is written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        """Does nothing."""

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        """Converts an ``OSError``; other errors pass unchanged.

        Raises:
            DataError: the disk is full, or cannot be written to.
        """
        if isinstance(error, OSError) and not isinstance(error, KVGError):
            remedy = f"cannot be written ({error.strerror}); free disk space or choose another folder, and run it again"
            raise DataError(str(self.folder), "out", remedy) from error
