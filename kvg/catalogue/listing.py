"""What a source says of its pictures before anybody has looked at them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from kvg.errors import DataError


@dataclass(frozen=True)
class Listing:
    """One picture as its source names it.

    Attributes:
        ref: how the source finds it again: a path relative to its folder, or ``file.parquet#row``.
        entity: what is on it.
        category: of the entity.
        box: of the entity, x1, y1, x2, y2 in pixels of the upright picture, as the source writes it and to be checked
            when the picture is opened; None where nobody has told it.
        part: of the published set that it belongs to (``train``, ``test`` ...), '' where there are none.
        licence: of the picture, '' where the source tells none.
    """

    ref: str
    entity: str
    category: str
    box: Any = None
    part: str = ""
    licence: str = ""


class PictureSource(Protocol):
    """A supply of single-entity pictures. Picklable, so that several processes can read it."""

    def listings(self) -> Iterator[Listing]:
        """All pictures, in a fixed order, none of them opened.

        Raises:
            DataError: an index is missing or damaged.
        """

    def read(self, ref: str) -> bytes:
        """The file of a picture.

        Raises:
            DataError: it cannot be opened.
        """


class FileSource:
    """Base of sources whose pictures are files under one folder.

    Args:
        root: the folder.

    Raises:
        DataError: there is no such folder.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise DataError(str(self.root), "root", "is not a folder; point it at the folder of pictures")

    def read(self, ref: str) -> bytes:
        """See ``PictureSource``; what a list names outside the folder is not opened."""
        path = self.root / ref
        try:
            if not path.resolve().is_relative_to(self.root.resolve()):
                raise DataError(str(path), "path", f"leads out of {self.root}; correct the list")
            return path.read_bytes()
        except OSError as error:
            raise DataError(str(path), "image", f"cannot be opened ({error.strerror}); correct the path") from error
        except ValueError as error:  # a NUL inside
            raise DataError(repr(str(path)), "path", f"is no path ({error}); correct the list") from error

    def text(self, name: str) -> list[str]:
        """Lines of an index file that hold anything.

        Raises:
            DataError: it is missing.
        """
        path = self.root / name
        if not path.is_file():
            raise DataError(str(path), "index", "is missing; unpack the whole set, and point root at its top folder")
        return [line for line in path.read_text("utf-8", errors="replace").splitlines() if line.strip()]
