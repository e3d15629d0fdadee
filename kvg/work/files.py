"""Files that are written whole or not at all, and clear errors where a disk refuses."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from kvg.errors import DataError, KVGError


def atomic_write(path: Path, text: str) -> None:
    """Writes a file so that a reader sees all of it or nothing."""
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(partial, path)


class disk_errors:  # lower case, as context managers of the standard library
    """Turns an error of the disk into a clear one.

    Args:
        folder: that is written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        """Does nothing."""

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        """Passes on every other error.

        Raises:
            DataError: the disk is full, or cannot be written to.
        """
        if isinstance(error, OSError) and not isinstance(error, KVGError):
            remedy = f"cannot be written ({error.strerror}); make room or choose another folder, and run it again"
            raise DataError(str(self.folder), "out", remedy) from error
