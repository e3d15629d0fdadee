"""What a source lists of its pictures before they are opened."""

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
        of: ``upright`` where boxes refer to the picture as it is displayed, ``raw`` where they refer to the stored
            pixels, before the EXIF rotation.
        several: ``crop`` cuts out each object as a picture of its own, ``reject`` leaves out such pictures.
        margin: of such a cut around the box, as a share of the box's sides.
        max_overlap: share of an object's box that another object's box may cover; an object that is covered more is
            left out, since its picture would show both.

    Raises:
        ConfigError: a setting is unknown.
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
        """A box in pixels of the upright picture.

        Args:
            raw: as the source writes it.
            data: the picture's file.
            size: of the upright picture, in pixels.
            where: file and row, for messages.
            form: another unit and order than the declared ones.

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
    """One picture as its source names it.

    Attributes:
        ref: key by which the source reads it: a path relative to its folder, ``file.parquet#row``, or ``path#object``
            where a picture is cut around each of its objects.
        entity: name of the object on it, in the spelling of ``clean_name``.
        category: of the entity; likewise.
        box: of the entity as the source writes it, checked when the picture is opened; None where there is none.
        part: of the published set that it belongs to (``train``, ``test`` ...), '' where there are none.
        licence: of the picture, '' where the source gives none.
        rules: how to read ``box`` and ``others``.
        others: boxes of the other objects of a picture that is cut around this one; None where it stays whole.
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
        ref: the picture where it is known, else the place in its file.
        field: that is wrong.
        reason: what is wrong with it.
    """

    ref: str
    field: str
    reason: str


@dataclass(frozen=True)
class Remark:
    """A message of a source about all that it lists.

    Attributes:
        text: a line for the scan's report.
    """

    text: str


Listed = Listing | Unusable | Remark


class PictureSource(Protocol):
    """A supply of single-entity pictures. Picklable, so that several processes can read it."""

    def listings(self) -> Iterator[Listed]:
        """All pictures in a fixed order, without opening them; and what cannot be listed, with the reason.

        Raises:
            DataError: an index is missing or damaged as a whole.
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
        if not _is_folder(self.root):
            raise DataError(str(self.root), "root", "is not a folder; point it at the folder of pictures")

    def read(self, ref: str) -> bytes:
        """See ``PictureSource``; a path that leads out of the folder is not opened.

        A name that was written in one form of Unicode (NFC, NFD) also finds a file of the other, and ``path#object``
        finds the picture that the object is on.
        """
        path = self.root / ref
        try:
            path = next(filter(Path.is_file, self._spellings(ref)), path)
            if not path.resolve().is_relative_to(self.root.resolve()):
                raise DataError(str(path), "path", f"leads out of {self.root}; correct the list")
            return path.read_bytes()
        except OSError as error:
            raise DataError(str(path), "image", f"cannot be opened ({error.strerror}); correct the path") from error
        except (ValueError, RuntimeError) as error:  # a NUL or half a surrogate pair inside; links in a circle
            raise DataError(repr(str(path)), "path", f"is no path ({error}); correct the list") from error

    def _spellings(self, ref: str) -> Iterator[Path]:
        for name in dict.fromkeys((ref, ref.rpartition("#")[0])):
            if name:
                forms = (name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name))
                yield from (self.root / form for form in dict.fromkeys(forms))

    def text(self, name: str) -> list[str]:
        """The lines of an index file that are not blank.

        Raises:
            DataError: it is missing, or is no text.
        """
        path = self.root / name
        if not path.is_file():
            raise DataError(str(path), "index", "is missing; unpack the whole set, and point root at its top folder")
        return [line.rstrip("\r") for line in read_text(path).split("\n") if line.strip()]


def passed_over(walk: Walk, root: Path) -> Iterator[Unusable]:
    """The files and folders that a walk has skipped, with the reason."""
    yield from _unusable(walk.hidden, root, "hidden", "belongs to a system or a program, not to the pictures")
    yield from _unusable(walk.closed, root, "folder", "cannot be opened; correct its permissions or remove it")


def _unusable(paths: Iterable[Path], root: Path, field: str, reason: str) -> Iterator[Unusable]:
    yield from (Unusable(path.relative_to(root).as_posix(), field, reason) for path in paths)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name that is too long, or holds a NUL
        return False
