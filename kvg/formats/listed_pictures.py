"""Pictures that a published list names by a path, which may be of the machine that it was made on."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from kvg.errors import DataError


def find_picture(where: str, field: str, name: str, folder: Path) -> tuple[Path, bytes]:
    """The file that a list means by a name, and what is in it.

    Published lists name pictures from folders of the machine that they were made on
    (``/media/somebody/imagenet6k/n01630670/n01630670_1136.JPEG``, ``coco/train2014/COCO_train2014_000000581857.jpg``),
    so leading folders are dropped until a file is found; nothing outside of ``folder`` ever is.

    Args:
        where: file and row, for messages.
        field: that holds the name.
        name: as it stands there.
        folder: with the pictures.

    Raises:
        DataError: there is none, or it cannot be read.
    """
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("/", ".")]
    if ".." in parts or not parts:
        raise DataError(where, field, f"{name!r} is no path below a folder; correct it")
    for first in range(len(parts)):
        path = folder.joinpath(*parts[first:])
        if path.is_file():
            try:
                return path, path.read_bytes()
            except OSError as error:
                raise DataError(where, field, f"{path} cannot be opened ({error.strerror}); correct it") from error
    raise DataError(where, field, f"{name} is not in {folder}; give the folder of the pictures (--images)")


def folder_of(path: Path, images: str | Path | None) -> Path:
    """Folder of the pictures; by default that of the list.

    Raises:
        DataError: there is no such folder.
    """
    folder = path.parent if images is None else Path(images)
    if not folder.is_dir():
        raise DataError(str(folder), "images", "is no folder; give the one with the pictures")
    return folder
