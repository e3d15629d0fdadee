"""Lists that name picture files: JSON, JSON lines and CSV, and the pictures that they name."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final

from kvg.errors import DataError

SUFFIXES: Final = (".json", ".jsonl", ".csv")

Row = tuple[str, Any]  # where it stands in the file, for messages; what it says


def load_list(path: Path) -> Any:
    """What a file holds: of ``.json`` the value, of ``.jsonl`` and ``.csv`` a list of ``Row``.

    Raises:
        DataError: it cannot be opened or read, or a CSV has no header.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(str(path), "file", f"cannot be opened ({error.strerror}); correct the path") from error
    except UnicodeDecodeError as error:
        raise DataError(str(path), "text", f"is not UTF-8 ({error}); save it as UTF-8") from error
    if path.suffix == ".csv":
        reader = csv.DictReader(io.StringIO(text), restkey="", strict=True)
        try:
            return [(f"{path} line {reader.line_num}", row) for row in reader]
        except csv.Error as error:
            raise DataError(f"{path} line {reader.line_num}", "csv", f"cannot be read ({error}); correct it") from error
    if path.suffix == ".jsonl":
        # Not splitlines: some characters that end a line for it stand inside of JSON texts.
        lines = [(f"{path} line {number}", line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        return [(where, _json(where, line)) for where, line in lines]
    return _json(str(path), text)


def numbered(path: Path, values: list[Any]) -> list[Row]:
    """The elements of a JSON list, counted from 0."""
    return [(f"{path} record {number}", value) for number, value in enumerate(values)]


def text_of(where: str, row: Mapping[str, Any], name: str) -> str:
    """A text of a row, without the spaces around it.

    Raises:
        DataError: it is missing, no text, or empty.
    """
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        told = "is missing" if value is None else f"{value!r} must be text that is not empty"
        raise DataError(where, name, f"{told}; correct the row")
    return value.strip()


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


def _json(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(where, "json", f"cannot be read ({error}); correct it") from error
