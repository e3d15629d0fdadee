"""Listings: what a source knows about its pictures before they are opened."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from kvg.box_forms import BoxesOf, BoxForm, check_boxes_of
from kvg.catalogue.walking import Walk
from kvg.errors import ConfigError, DataError
from kvg.pictures import MAX_PIXELS, raw_orientation, upright_box
from kvg.records import read_text
from kvg.text.names import clean_name
from kvg.types import Box


@dataclass(frozen=True)
class BoxRules:
    """How to read the boxes of a source, and what to do with pictures of several objects.

    Attributes:
        form: unit and order of the four numbers.
        of: ``upright`` if boxes refer to the displayed picture, ``raw`` if they refer to the stored pixels, before the
            EXIF rotation.
        several: ``crop`` cuts out each object as a picture of its own, ``reject`` leaves out such pictures.
        margin: margin of such a cut around the box, as a share of the box's sides.
        max_overlap: maximum share of an object's box that another object's box covers. An object that is covered more
            is left out, since its picture would show both.

    Raises:
        ConfigError: a setting is unknown or outside its range.
    """

    form: BoxForm = field(default_factory=BoxForm)
    of: BoxesOf = "upright"
    several: Literal["crop", "reject"] = "crop"
    margin: float = 0.15
    max_overlap: float = 0.2

    def __post_init__(self) -> None:
        check_boxes_of(self.of)
        if self.several not in ("crop", "reject"):
            raise ConfigError("several", f"{self.several!r} is none of crop, reject")
        for name, value, limit in (("margin", self.margin, 10.0), ("max_overlap", self.max_overlap, 1.0)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= limit:
                raise ConfigError(name, f"{value!r} is no number from 0 to {limit:g}")

    def upright(self, raw: Any, data: bytes, size: tuple[int, int], where: str, form: BoxForm | None = None) -> Box:
        """Converts a box to pixels of the upright picture.

        Args:
            raw: the box as the source writes it.
            data: content of the picture's file.
            size: width and height of the upright picture, in pixels.
            where: file and row, for messages.
            form: unit and order that replace the declared ones; None for the declared ones.

        Raises:
            DataError: see ``BoxForm.pixels``.
        """
        form = form or self.form
        if self.of == "upright":
            return form.pixels(raw, *size, where, "box")
        turned = raw_orientation(data, where, max(MAX_PIXELS, size[0] * size[1]))
        return upright_box(form.pixels(raw, turned[0], turned[1], where, "box"), *turned)


PIXELS = BoxRules(several="reject")  # corners in pixels of the upright picture


@dataclass(frozen=True)
class Listing:
    """One picture in the list of its source.

    Attributes:
        ref: key by which the source reads it: a path relative to its folder, ``file.parquet#row``, or ``path#object``
            if a picture is cut around each of its objects.
        entity: name of the object on it, after ``clean_name``.
        category: category of the entity, after ``clean_name``.
        box: box of the entity as the source writes it; it is checked when the picture is opened. None if there is none.
        part: part of the published set (``train``, ``test`` ...); '' if there are none.
        licence: licence of the picture; '' if the source gives none.
        rules: how to read ``box`` and ``others``.
        others: boxes of the other objects of a picture that is cut around this one; None if it is not cut.
    """

    ref: str
    entity: str
    category: str
    box: Any = None
    part: str = ""
    licence: str = ""
    rules: BoxRules = PIXELS
    others: tuple[Any, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("entity", "category"):
            value = getattr(self, name)
            object.__setattr__(self, name, clean_name(value) if isinstance(value, str) else value)


@dataclass(frozen=True)
class Unusable:
    """A picture, row or object that a source cannot list.

    Attributes:
        ref: the picture if it is known, else file and position of the row.
        field: field that is wrong.
        reason: what is wrong with the field.
    """

    ref: str
    field: str
    reason: str


@dataclass(frozen=True)
class Remark:
    """A message of a source about its list as a whole.

    Attributes:
        text: a line for the scan's report.
    """

    text: str


Listed = Listing | Unusable | Remark


class PictureSource(Protocol):
    """A source of single-entity pictures. It must be picklable, so that several processes can read it."""

    def listings(self) -> Iterator[Listed]:
        """Lists all pictures in a fixed order without opening them, and what cannot be listed, with the reason.

        Raises:
            DataError: the index is missing, or the whole of it is damaged.
        """

    def read(self, ref: str) -> bytes:
        """Reads the file of a picture.

        Raises:
            DataError: the file cannot be opened.
        """


class FileSource:
    """Base of sources whose pictures are files under one folder.

    Args:
        root: the folder.

    Raises:
        DataError: the folder does not exist.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if not _is_folder(self.root):
            raise DataError(str(self.root), "root", "is not a folder; point it at the folder of pictures")

    def read(self, ref: str) -> bytes:
        """See ``PictureSource``; a path outside the folder is not opened.

        A name in one Unicode form (NFC, NFD) also matches a file in the other form. ``path#object`` reads the picture
        of the object.
        """
        path = self.root / ref
        try:
            path = next(filter(Path.is_file, self._spellings(ref)), path)
            if not path.resolve().is_relative_to(self.root.resolve()):
                raise DataError(str(path), "path", f"leads out of {self.root}; correct the list")
            return path.read_bytes()
        except OSError as error:
            raise DataError(str(path), "image", f"cannot be opened ({error.strerror}); correct the path") from error
        except (ValueError, RuntimeError) as error:  # a NUL or a lone surrogate in the path; circular links
            raise DataError(repr(str(path)), "path", f"is no path ({error}); correct the list") from error

    def _spellings(self, ref: str) -> Iterator[Path]:
        for name in dict.fromkeys((ref, ref.rpartition("#")[0])):
            if name:
                forms = (name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name))
                yield from (self.root / form for form in dict.fromkeys(forms))

    def text(self, name: str) -> list[str]:
        """Returns the lines of an index file that are not blank.

        Raises:
            DataError: the file is missing, or is not text.
        """
        path = self.root / name
        if not path.is_file():
            raise DataError(str(path), "index", "is missing; unpack the whole set, and point root at its top folder")
        return [line.rstrip("\r") for line in read_text(path).split("\n") if line.strip()]


def skipped_files(walk: Walk, root: Path) -> Iterator[Unusable]:
    """Yields the files and folders that ``walk`` has skipped, with the reason."""
    yield from _unusable(walk.hidden, root, "hidden", "belongs to a system or a program, not to the pictures")
    yield from _unusable(walk.closed, root, "folder", "cannot be opened; correct its permissions or remove it")


def _unusable(paths: Iterable[Path], root: Path, field: str, reason: str) -> Iterator[Unusable]:
    yield from (Unusable(path.relative_to(root).as_posix(), field, reason) for path in paths)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # the name is too long, or contains a NUL
        return False
