"""Finds pictures that a published list names by path, possibly a path on the author's machine."""

from __future__ import annotations

import zipfile
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Final

from kvg.errors import DataError

ARCHIVE: Final = "images.zip"
_MAX_BYTES: Final = 256 << 20  # maximum size of one unpacked picture; protects against zip bombs


def find_picture(where: str, field: str, name: str, folder: Path) -> tuple[Path, bytes]:
    """Finds the file that a list names; returns its path and content.

    Published lists name pictures by paths on the machine on which they were made
    (``/media/somebody/imagenet6k/n01630670/n01630670_1136.JPEG``, ``coco/train2014/COCO_train2014_000000581857.jpg``),
    so leading folders are dropped until a file is found. Files outside ``folder`` are never read.

    Args:
        where: file and row, for messages.
        field: field with the name.
        name: value of the field.
        folder: folder of the pictures.

    Raises:
        DataError: the file does not exist or cannot be read.
    """
    parts = _parts(where, field, name)
    for first in range(len(parts)):
        path = folder.joinpath(*parts[first:])
        if (data := _content(where, field, path)) is not None:
            return path, data
    raise DataError(where, field, f"{name} is not in {folder}; give the folder of the pictures (--images)")


class PictureFolder:
    """Pictures in a folder, or in an ``images.zip`` in it, packed with or without its top folder. Picklable.

    Paths are relative to the folder. An absolute path belongs to another machine; its leading folders are dropped as in
    ``find_picture``. Files outside the folder are never read.

    Args:
        folder: folder of the pictures.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, where: str, field: str, name: str) -> bytes:
        """Reads the content of a picture's file.

        Args:
            where: file and row, for messages.
            field: field with the name.
            name: value of the field.

        Raises:
            DataError: the file does not exist or cannot be read.
        """
        parts = _parts(where, field, name)
        data = _content(where, field, self.folder.joinpath(*parts))
        if data is None and (member := self._members.get("/".join(parts))):
            data = self._unpacked(where, field, member)
        if data is not None:
            return data
        if name.startswith("/"):
            return find_picture(where, field, name, self.folder)[1]
        remedy = f"{name} is neither in {self.folder} nor in an {ARCHIVE} there; copy the images there (--images)"
        raise DataError(where, field, remedy)

    def _unpacked(self, where: str, field: str, member: str) -> bytes:
        archive = self.folder / ARCHIVE
        try:
            with zipfile.ZipFile(archive) as file:
                if file.getinfo(member).file_size > _MAX_BYTES:
                    raise DataError(
                        where,
                        field,
                        f"{member} in {archive} is larger than {_MAX_BYTES >> 20} MiB; pack the picture itself",
                    )
                return file.read(member)
        except DataError:
            raise
        except Exception as error:  # damaged, encrypted or unusual members raise many kinds of errors
            remedy = f"{member} in {archive} cannot be unpacked ({error}); pack it again"
            raise DataError(where, field, remedy) from error

    @cached_property
    def _members(self) -> dict[str, str]:
        """Names of the archive's members by the paths that lists may contain."""
        archive = self.folder / ARCHIVE
        if not archive.is_file():
            return {}
        try:
            with zipfile.ZipFile(archive) as file:
                names = [name for name in file.namelist() if not name.endswith("/")]
        except Exception as error:  # a damaged index raises many kinds of errors
            raise DataError(str(archive), "zip", f"cannot be opened ({error}); copy it again") from error
        short = {f"images/{name}": name for name in names if not name.startswith("images/")}
        return {**short, **{name: name for name in names}}


def folder_of(path: Path, images: str | Path | None) -> Path:
    """Returns the folder of the pictures; by default that of the list.

    Raises:
        DataError: the folder does not exist.
    """
    folder = path.parent if images is None else Path(images)
    if not folder.is_dir():
        raise DataError(str(folder), "images", "is not a folder; give the folder of the pictures")
    return folder


def _parts(where: str, field: str, name: str) -> list[str]:
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("/", "//", ".")]
    if ".." in parts or not parts or "\0" in name:
        raise DataError(where, field, f"{name!r} is no path below a folder; correct it")
    return parts


def _content(where: str, field: str, path: Path) -> bytes | None:
    """Reads a file; returns None if it does not exist."""
    try:
        if not path.is_file():
            return None
        if path.stat().st_size > _MAX_BYTES:
            raise DataError(where, field, f"{path} has more than {_MAX_BYTES >> 20} MiB; give a picture")
        return path.read_bytes()
    except OSError as error:  # also if the name is too long
        raise DataError(where, field, f"{str(path)[:200]} cannot be opened ({error.strerror}); correct it") from error
