"""Published data sets of the paper's data engine (paper v3, appendix B.1), and two similar ones.

Each class reads the folder of the unpacked archives; no file has to be renamed or moved.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kvg.box_forms import BoxForm
from kvg.catalogue.coco import id_of
from kvg.catalogue.listing import BoxRules, FileSource, Listed, Listing, Remark, Unusable
from kvg.catalogue.matlab import read_variables
from kvg.catalogue.walking import is_hidden
from kvg.errors import DataError
from kvg.ranges import check_choice
from kvg.records import excerpt, list_of, number_of, object_of, read_json, text_of

XYWH = BoxRules(BoxForm(format="xywh"), several="reject")
INAT_CATEGORIES = {"Reptilia": "reptilia", "Aves": "bird", "Mollusca": "mollusca", "Mammalia": "mammal"}


class FGVCAircraft(FileSource):
    """``fgvc-aircraft-2013b``: ``data/images_variant_*.txt`` and ``data/images_box.txt``.

    The lowest 20 rows of pixels are a banner; no box includes it.

    Args:
        root: the folder that contains ``data``.
        level: ``variant``, ``family`` or ``manufacturer``.
    """

    def __init__(self, root: str | Path, level: str = "variant") -> None:
        super().__init__(root)
        check_choice("level", level, ("variant", "family", "manufacturer"))
        self.level = level

    def listings(self) -> Iterator[Listed]:
        """See ``PictureSource``."""
        boxes = {}
        for line in self.text("data/images_box.txt"):
            number, *corners = line.split()
            boxes[number] = _counted_from_1(corners)
        for part in ("train", "val", "test"):
            for line in self.text(f"data/images_{self.level}_{part}.txt"):
                number, _, entity = line.partition(" ")
                yield Listing(f"data/images/{number}.jpg", entity.strip(), "aircraft", boxes.get(number), part)


class StanfordCars(FileSource):
    """``cars_train``, ``cars_test`` and ``devkit``.

    The names of the test pictures come from ``cars_test_annos_withlabels.mat``. Without that file they are left out.
    """

    def listings(self) -> Iterator[Listed]:
        """See ``PictureSource``."""
        names = [
            str(np.ravel(name)[0]) for name in read_variables(self.root / "devkit/cars_meta.mat", ["class_names"])[0]
        ]
        for part, file in (("train", "cars_train_annos.mat"), ("test", "cars_test_annos_withlabels.mat")):
            path = next((p for p in (self.root / "devkit" / file, self.root / file) if p.is_file()), None)
            if path is None and part == "test":
                continue
            for row, entry in enumerate(read_variables(path or self.root / "devkit" / file, ["annotations"])[0]):
                try:
                    corners = [_first(entry, f"bbox_{corner}") for corner in ("x1", "y1", "x2", "y2")]
                    name, kind = str(_first(entry, "fname")), number_of(_plain(_first(entry, "class")))
                    if kind is None or not 1 <= kind <= len(names):
                        raise DataError(file, "class", f"{excerpt(kind)} has no name in cars_meta.mat")
                except DataError as error:
                    yield Unusable(f"{file} row {row}", error.field, error.remedy)
                else:
                    box = _counted_from_1([_plain(corner) for corner in corners])
                    yield Listing(f"cars_{part}/{name}", names[int(kind) - 1], "car", box, part)


class Food101(FileSource):
    """``food-101``: ``meta/train.txt`` and ``meta/test.txt``, ``meta/labels.txt`` and ``meta/classes.txt``."""

    def listings(self) -> Iterator[Listed]:
        """See ``PictureSource``."""
        classes, names = self.text("meta/classes.txt"), self.text("meta/labels.txt")
        if len(classes) != len(names):
            remedy = f"holds {len(names)} names for {len(classes)} of classes.txt; fetch both again"
            raise DataError(str(self.root / "meta/labels.txt"), "index", remedy)
        labels = dict(zip(classes, names, strict=True))
        for part in ("train", "test"):
            for ref in self.text(f"meta/{part}.txt"):
                kind = ref.split("/")[0]
                yield Listing(f"images/{ref}.jpg", labels.get(kind, kind.replace("_", " ")), "food", part=part)


class INaturalist2017(FileSource):
    """``train_val_images/Aves/...`` with ``train2017.json`` and ``train_2017_bboxes.json``.

    Pictures with more than one box are left out. Names are Latin, unless ``names`` translates them.

    Args:
        root: the folder that contains all these files.
        categories: ``{supercategory: category}``; other supercategories are left out.
        names: ``{Latin name: entity}``; other entities keep their Latin name.
        parts: ``train``, ``val``, or both.
    """

    def __init__(
        self,
        root: str | Path,
        categories: Mapping[str, str] | None = None,
        names: Mapping[str, str] | None = None,
        parts: Sequence[str] = ("train",),
    ) -> None:
        super().__init__(root)
        self.categories, self.names, self.parts = dict(categories or INAT_CATEGORIES), dict(names or {}), tuple(parts)

    def listings(self) -> Iterator[Listed]:
        """See ``PictureSource``."""
        for part in self.parts:
            yield from self._of_part(part)

    def _of_part(self, part: str) -> Iterator[Listed]:
        where = str(self.root / f"{part}2017.json")
        record = object_of(where, "index", _json(Path(where)))
        boxes: dict[str, list[Any]] = {}
        path = self.root / f"{part}_2017_bboxes.json"
        if path.is_file():
            annotations = object_of(str(path), "index", _json(path)).get("annotations")
            for entry in list_of(str(path), "annotations", annotations):
                key = id_of(entry.get("image_id")) if isinstance(entry, Mapping) else None
                boxes.setdefault(key or "", []).append(entry.get("bbox") if isinstance(entry, Mapping) else None)
        licences = _names_of_licences(record.get("licenses"))
        num_skipped = 0
        for number, image in enumerate(list_of(where, "images", record.get("images"))):
            ref = f"{where} image at {number}"
            try:
                ref = text_of(ref, object_of(ref, "image", image), "file_name")
                kind, latin = ("", "", *Path(ref).parts[:-1])[-2:]
                if kind not in self.categories:
                    num_skipped += 1
                    continue
                picture_boxes = boxes.get(id_of(image.get("id")) or "none", [])
                if len(picture_boxes) > 1:
                    raise DataError(ref, "several", f"is a picture with {len(picture_boxes)} boxes")
                if picture_boxes:
                    XYWH.form.numbers(picture_boxes[0], ref, "bbox")
            except DataError as error:
                yield Unusable(ref, error.field, error.remedy)
                continue
            entity, box = self.names.get(latin, latin), picture_boxes[0] if picture_boxes else None
            licence = licences.get(id_of(image.get("license")) or "", "")
            yield Listing(ref, entity, self.categories[kind], box, part, licence, XYWH)
        if boxes.get(""):
            yield Remark(f"{path}: {len(boxes[''])} boxes belong to no picture")
        if num_skipped:
            yield Remark(f"{where}: {num_skipped} pictures of supercategories that are not in `categories`")


class StanfordDogs(FileSource):
    """``Images/n02085620-Chihuahua``, and ``Annotation`` with an XML per picture; pictures of two dogs are left out."""

    def listings(self) -> Iterator[Listed]:
        """See ``PictureSource``."""
        if not (self.root / "Annotation").is_dir():
            raise DataError(str(self.root / "Annotation"), "index", "is missing; unpack the whole set")
        for path in sorted((self.root / "Images").glob("n*-*/*.jpg")):
            kind, ref = path.parent.name, path.relative_to(self.root).as_posix()
            if is_hidden(path.name):
                yield Unusable(ref, "hidden", "belongs to a system or a program, not to the pictures")
                continue
            try:
                # Safe: the standard parser does not expand external entities.
                dogs = ET.parse(self.root / "Annotation" / kind / path.stem).getroot().findall("object/bndbox")
            except (OSError, ValueError, ET.ParseError) as error:
                yield Unusable(ref, "annotation", f"cannot be read ({error}); unpack Annotation again")
                continue
            if len(dogs) != 1:
                yield Unusable(ref, "several" if dogs else "annotation", f"is a picture with {len(dogs)} boxes")
                continue
            corners = [dogs[0].findtext(side, "") for side in ("xmin", "ymin", "xmax", "ymax")]
            entity = re.sub(r"[_-]", " ", kind.partition("-")[2])
            yield Listing(ref, entity, "dog", corners)


class Flowers102(FileSource):
    """``jpg/image_00001.jpg`` with ``imagelabels.mat`` and ``setid.mat``.

    Args:
        root: the folder that contains all these files.
        names: JSON file ``{number: name}``, since the set itself has only numbers.
    """

    def __init__(self, root: str | Path, names: str | Path) -> None:
        super().__init__(root)
        self.names_path = Path(names)
        content = object_of(str(names), "names", _json(self.names_path))
        self.names = {number.strip(): name for number, name in content.items()}

    def listings(self) -> Iterator[Listed]:
        """See ``PictureSource``."""
        labels = read_variables(self.root / "imagelabels.mat", ["labels"])[0]
        numbers = read_variables(self.root / "setid.mat", list(_FLOWER_PARTS.values()))
        part_of = {number_of(_plain(n)): part for part, of in zip(_FLOWER_PARTS, numbers, strict=True) for n in of}
        for number, label in enumerate(labels, start=1):
            ref, key = f"jpg/image_{number:05d}.jpg", id_of(_plain(label)) or ""
            name = self.names.get(key)
            if not isinstance(name, str) or not name.strip():
                yield Unusable(ref, "names", f"flower {excerpt(_plain(label))} has no name in {self.names_path}")
            else:
                yield Listing(ref, name, "flower", part=part_of.get(number, ""))


_FLOWER_PARTS = {"train": "trnid", "val": "valid", "test": "tstid"}


class CUB200(FileSource):
    """``CUB_200_2011``: ``images.txt``, ``classes.txt``, ``bounding_boxes.txt`` and ``train_test_split.txt``."""

    def listings(self) -> Iterator[Listed]:
        """See ``PictureSource``."""
        boxes = {number: rest.split() for number, rest in _cells(self.text("bounding_boxes.txt"))}
        trained = dict(_cells(self.text("train_test_split.txt")))
        for line in self.text("images.txt"):
            number, _, ref = line.strip().partition(" ")
            if not ref:
                yield Unusable(f"images.txt: {excerpt(line)}", "index", "is not `number path`; fetch the file again")
                continue
            entity = ref.strip().split("/")[0].partition(".")[2].replace("_", " ")
            part = "train" if trained.get(number, "").strip() == "1" else "test"
            yield Listing(f"images/{ref.strip()}", entity, "bird", boxes.get(number), part, rules=XYWH)


def _cells(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Splits each line at its first space."""
    yield from ((number, rest) for number, _, rest in (line.strip().partition(" ") for line in lines))


def _counted_from_1(corners: Sequence[Any]) -> Sequence[Any]:
    """Converts a box with pixels counted from 1 and an inclusive end; returns invalid values unchanged."""
    numbers = [number_of(value) for value in corners]
    if len(numbers) != 4 or None in numbers:
        return list(corners)
    x1, y1, x2, y2 = (float(value) for value in numbers if value is not None)
    return x1 - 1, y1 - 1, x2, y2


def _plain(value: Any) -> Any:
    """Converts a value of a MATLAB file to a Python value."""
    return value.item() if isinstance(value, np.generic) else value


def _first(entry: Any, field: str) -> Any:
    """Returns the value of a field of a MATLAB record.

    Raises:
        DataError: the field is missing or empty.
    """
    try:
        return np.ravel(entry[field])[0]
    except (IndexError, KeyError, ValueError, TypeError) as error:
        raise DataError("record", field, "is missing or empty") from error


def _names_of_licences(values: Any) -> dict[str, str]:
    entries = [value for value in values if isinstance(value, Mapping)] if isinstance(values, list) else []
    return {id_of(entry.get("id")) or "": str(entry.get("name") or "") for entry in entries}


def _json(path: Path) -> Any:
    try:
        return read_json(path)
    except DataError as error:
        raise DataError(error.where, error.field, f"{error.remedy}; unpack the whole set") from error
