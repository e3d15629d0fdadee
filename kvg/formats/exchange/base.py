"""The interface of an exchange format, and what all of them use: picture files, boxes and skipped entries."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final, TypeVar

from kvg.box_forms import BoxForm, PixelFrame, pixel_frame
from kvg.errors import DataError
from kvg.formats.exchange.picture import AnnotatedPicture, LabelledBox
from kvg.formats.listed_pictures import PictureFolder
from kvg.formats.written_boxes import Reading
from kvg.pictures import standard_picture
from kvg.records import excerpt, list_of, number_of
from kvg.shards.reader import Tally
from kvg.shards.schema import check_box, image_extension
from kvg.types import Box

RIM: Final = 0.999  # pixels by which a box may extend beyond its picture; it is clipped there, and counted
_DIGITS: Final = 6  # of a pixel: shares of a side come back as the pixels that they were
_NAME = re.compile(r"[\w-]+")
T = TypeVar("T")


class ExchangeFormat(ABC):
    """A format of another tool. Stateless.

    Attributes:
        name: its name on the command line.
        entries: files and folders that ``write`` makes, to tell a set of this format from other files.
        box_form: unit and order of the numbers of its boxes.
        has_fixed_unit: whether no file of this format has another unit, so that none can be declared.
        left_out: what it cannot contain, as a message says it; '' if nothing is lost.
    """

    name: ClassVar[str]
    entries: ClassVar[tuple[str, ...]]
    box_form: ClassVar[BoxForm]
    has_fixed_unit: ClassVar[bool] = False
    left_out: ClassVar[str] = ""

    def check(self, picture: AnnotatedPicture) -> None:
        """Checks that a picture can be written.

        Raises:
            DataError: its key is no name of a file, or the format cannot hold one of its boxes.
        """
        if not _NAME.fullmatch(picture.key):
            remedy = "must consist of letters, digits, dashes and underscores, since it names a file"
            raise DataError(picture.key, "key", remedy)

    @abstractmethod
    def write(self, pictures: Iterable[AnnotatedPicture], folder: Path) -> int:
        """Writes a set.

        Args:
            pictures: pictures with unique keys that passed ``check``.
            folder: an empty folder.

        Returns:
            Number of pictures.
        """

    @abstractmethod
    def read(self, source: Source, tally: Tally) -> Iterator[AnnotatedPicture]:
        """Reads a set. Entries that cannot be used are skipped and counted in ``tally``.

        Raises:
            DataError: the whole file cannot be used.
        """


@dataclass
class Source:
    """A set to read.

    Attributes:
        path: the file that the format starts from.
        images: folder of the pictures; None for the format's own place.
        reading: declared unit and frame of the boxes.
        num_clipped: number of boxes that extended beyond their picture by less than a pixel, so far.
        num_listed: number of pictures that the set lists, for a progress bar; None until its reader has counted them.
    """

    path: Path
    images: Path | None
    reading: Reading
    num_clipped: int = 0
    num_listed: int | None = None

    def counted(self, pictures: Collection[T]) -> Collection[T]:
        """Notes how many pictures the set lists; returns them."""
        self.num_listed = len(pictures)
        return pictures

    def form(self, usual: BoxForm) -> BoxForm:
        """Returns the form of the boxes: the usual one of the format, in the declared unit if there is one."""
        return replace(usual, unit=self.reading.box_unit or usual.unit)

    def folder(self, *names: str) -> PictureFolder:
        """Returns the folder of the pictures: the declared one, else the first of these beside the file that exists.

        Raises:
            DataError: the folder does not exist.
        """
        places = [self.path.parent / name for name in names]
        place = self.images or next((place for place in places if place.is_dir()), self.path.parent)
        if not place.is_dir():
            raise DataError(str(place), "images", "is not a folder; give the folder of the pictures")
        return PictureFolder(place)


class OpenPicture:
    """A picture of a set that is read: its file, and its boxes in pixels of the upright picture.

    Args:
        source: the set.
        where: file and entry, for messages.
        data: content of the picture's file.

    Raises:
        DataError: the picture cannot be decoded.
    """

    def __init__(self, source: Source, where: str, data: bytes) -> None:
        self.source, self.where = source, where
        self.image, self.width, self.height = standard_picture(data, where)
        self.frame: PixelFrame = pixel_frame(data, where, source.reading.boxes_of)
        self.boxes: list[LabelledBox] = []
        self.predictions: list[LabelledBox] = []
        self.unclear: list[str] = []

    def check_size(self, record: Mapping[str, Any], width: str, height: str) -> None:
        """Compares sizes that a list names with those of the file.

        Raises:
            DataError: they differ, so that the boxes would be wrong.
        """
        for name, size in ((width, self.frame.width), (height, self.frame.height)):
            if record.get(name) is not None and number_of(record[name]) != size:
                remedy = f"is {excerpt(record[name])}, but that of the picture is {size}, so its boxes would be wrong"
                raise DataError(self.where, name, f"{remedy}; give the original, or state boxes_of")

    def box_px(self, raw: Any, form: BoxForm, field: str) -> Box:
        """Converts a box to pixels of the upright picture.

        Raises:
            DataError: see ``BoxForm.pixels``.
        """
        size = self.frame.width, self.frame.height
        whole = form.uncut(raw, *size, self.where, field)
        box = form.pixels(raw, *size, self.where, field, rim=RIM)
        self.source.num_clipped += max(abs(a - b) for a, b in zip(box, whole, strict=True)) > 10**-_DIGITS
        x1, y1, x2, y2 = (round(value, _DIGITS) for value in self.frame.upright(box))
        check_box((x1, y1, x2, y2), self.width, self.height, self.where, field)
        return x1, y1, x2, y2

    def add(
        self,
        label: str,
        raw: Any,
        form: BoxForm,
        field: str,
        tally: Tally,
        *,
        predicted: bool = False,
        **facts: Any,
    ) -> None:
        """Adds a box; one that cannot be used is counted, and its label becomes unclear."""
        try:
            box = LabelledBox(label, self.box_px(raw, form, field), **facts)
        except DataError as error:
            tally.note(error)
            if not predicted:
                self.unclear.append(label)
            return
        (self.predictions if predicted else self.boxes).append(box)

    def annotated(self, key: str, facts: Mapping[str, Any] | None = None) -> AnnotatedPicture:
        """Returns the picture with its boxes."""
        return AnnotatedPicture(
            key=key,
            image=self.image,
            width=self.width,
            height=self.height,
            boxes=tuple(self.boxes),
            predictions=tuple(self.predictions),
            unclear=tuple(dict.fromkeys(self.unclear)),
            facts=dict(facts or {}),
        )


class PictureWriter:
    """Writes the files of pictures to one folder.

    Args:
        folder: the folder; it is created.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, picture: AnnotatedPicture) -> str:
        """Writes a picture; returns the name of its file."""
        name = f"{picture.key}.{image_extension(picture.image)}"
        (self.folder / name).write_bytes(picture.image)
        return name


class Keys:
    """Makes keys of file names that are unique in a set."""

    def __init__(self) -> None:
        self._used: set[str] = set()

    def key(self, name: str) -> str:
        """Returns the key of a picture.

        >>> keys = Keys()
        >>> keys.key("train/a b.jpg"), keys.key("val/a b.png"), keys.key("a-b-2.jpg")
        ('a-b', 'a-b-2', 'a-b-2-2')
        """
        stem = re.sub(r"[^\w-]+", "-", Path(name.replace("\\", "/")).stem).strip("-") or "picture"
        key, number = stem, 1
        while key in self._used:
            number += 1
            key = f"{stem}-{number}"
        self._used.add(key)
        return key


def check_boxes(picture: AnnotatedPicture) -> None:
    """Checks that a picture has a true box.

    Raises:
        DataError: it has none.
    """
    if not picture.boxes:
        remedy = "has no true box, which this format needs; add it, or choose coco, yolo, label-studio or fiftyone"
        raise DataError(picture.key, "boxes", remedy)


def traits_in(where: str, record: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the traits of a box, a list of texts; empty if there is none.

    Raises:
        DataError: they are something else.
    """
    values = list_of(where, "traits", record.get("traits") or [])
    if not all(isinstance(value, str) for value in values):
        raise DataError(where, "traits", f"{excerpt(values)} must be a list of texts; correct it")
    return tuple(values)
