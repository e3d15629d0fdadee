"""The sets of the paper's data engine as their makers pack them (paper v3, appendix B.1), and two more of their kind.

Each takes the folder that comes out of the published archives; nothing is renamed or moved.
"""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kvg.catalogue.listing import FileSource, Listing
from kvg.errors import ConfigError, DataError

INAT_CATEGORIES = {"Reptilia": "reptilia", "Aves": "bird", "Mollusca": "mollusca", "Mammalia": "mammal"}


class FGVCAircraft(FileSource):
    """``fgvc-aircraft-2013b``: ``data/images_variant_*.txt`` and ``data/images_box.txt``.

    The lowest 20 rows of pixels are a banner; no box reaches into it.

    Args:
        root: the folder that holds ``data``.
        level: ``variant``, ``family`` or ``manufacturer``.
    """

    def __init__(self, root: str | Path, level: str = "variant") -> None:
        super().__init__(root)
        if level not in ("variant", "family", "manufacturer"):
            raise ConfigError("level", f"'{level}' is not one of variant, family, manufacturer")
        self.level = level

    def listings(self) -> Iterator[Listing]:
        """See ``PictureSource``."""
        boxes = {}
        for line in self.text("data/images_box.txt"):
            number, *corners = line.split()
            x1, y1, x2, y2 = (float(v) for v in corners)  # counted from 1, the last pixel inside
            boxes[number] = (x1 - 1, y1 - 1, x2, y2)
        for part in ("train", "val", "test"):
            for line in self.text(f"data/images_{self.level}_{part}.txt"):
                number, _, entity = line.partition(" ")
                yield Listing(f"data/images/{number}.jpg", entity.strip(), "aircraft", boxes.get(number), part)


class StanfordCars(FileSource):
    """``cars_train``, ``cars_test`` and ``devkit`` (its ``.mat`` files need SciPy: ``pip install kvg[sets]``).

    The test pictures' names come from ``cars_test_annos_withlabels.mat``, which is left out where it is missing.
    """

    def listings(self) -> Iterator[Listing]:
        """See ``PictureSource``."""
        names = [str(np.ravel(name)[0]) for name in _mat(self.root / "devkit/cars_meta.mat", "class_names")]
        for part, file in (("train", "cars_train_annos.mat"), ("test", "cars_test_annos_withlabels.mat")):
            path = next((p for p in (self.root / "devkit" / file, self.root / file) if p.is_file()), None)
            if path is None and part == "test":
                continue
            for entry in _mat(path or self.root / "devkit" / file, "annotations"):
                x1, y1, x2, y2 = (float(np.ravel(entry[f"bbox_{corner}"])[0]) for corner in ("x1", "y1", "x2", "y2"))
                name, kind = (np.ravel(entry[field])[0] for field in ("fname", "class"))
                # Corners are counted from 1, the last pixel inside.
                yield Listing(f"cars_{part}/{name}", names[int(kind) - 1], "car", (x1 - 1, y1 - 1, x2, y2), part)


class Food101(FileSource):
    """``food-101``: ``meta/train.json``, ``meta/test.json``, ``meta/labels.txt`` beside ``meta/classes.txt``."""

    def listings(self) -> Iterator[Listing]:
        """See ``PictureSource``."""
        labels = dict(zip(self.text("meta/classes.txt"), self.text("meta/labels.txt"), strict=False))
        for part in ("train", "test"):
            for ref in self.text(f"meta/{part}.txt"):
                kind = ref.split("/")[0]
                yield Listing(f"images/{ref}.jpg", labels.get(kind, kind.replace("_", " ")), "food", part=part)


class INaturalist2017(FileSource):
    """``train_val_images/Aves/...`` with ``train2017.json`` and ``train_2017_bboxes.json``.

    Pictures with more than one box are left out. Names are Latin, unless ``names`` translates them.

    Args:
        root: the folder that holds all of them.
        categories: ``{supercategory: category}``, the only ones that are taken.
        names: ``{Latin name: entity}``; others keep theirs.
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

    def listings(self) -> Iterator[Listing]:
        """See ``PictureSource``."""
        for part in self.parts:
            record = _json(self.root / f"{part}2017.json")
            boxes: dict[int, list[tuple[float, ...]]] = {}
            if (self.root / f"{part}_2017_bboxes.json").is_file():
                for entry in _json(self.root / f"{part}_2017_bboxes.json")["annotations"]:
                    x, y, width, height = entry["bbox"]
                    boxes.setdefault(entry["image_id"], []).append((x, y, x + width, y + height))
            licences = {entry["id"]: str(entry.get("name", "")) for entry in record.get("licenses", [])}
            for image in record["images"]:
                found = boxes.get(image["id"], [])
                kind, latin = Path(image["file_name"]).parts[-3:-1]
                if kind not in self.categories or len(found) > 1:
                    continue
                licence = licences.get(image.get("license"), "")
                entity, box = self.names.get(latin, latin), found[0] if found else None
                yield Listing(image["file_name"], entity, self.categories[kind], box, part, licence)


class StanfordDogs(FileSource):
    """``Images/n02085620-Chihuahua`` and ``Annotation`` with one XML a picture; pictures of two dogs are left out."""

    def listings(self) -> Iterator[Listing]:
        """See ``PictureSource``."""
        for path in sorted((self.root / "Images").glob("n*-*/*.jpg")):
            kind = path.parent.name
            note = self.root / "Annotation" / kind / path.stem
            try:
                # The standard parser expands no external entity.
                found = ET.parse(note).getroot().findall("object/bndbox")
            except (OSError, ET.ParseError) as error:
                raise DataError(str(note), "annotation", f"cannot be read ({error}); unpack Annotation, too") from error
            if len(found) != 1:
                continue
            corners = [float(found[0].findtext(side, "nan")) for side in ("xmin", "ymin", "xmax", "ymax")]
            entity = re.sub(r"[_-]", " ", kind.partition("-")[2])
            yield Listing(f"Images/{kind}/{path.name}", entity, "dog", corners)


class Flowers102(FileSource):
    """``jpg/image_00001.jpg`` with ``imagelabels.mat`` and ``setid.mat`` (SciPy: ``pip install kvg[sets]``).

    Args:
        root: the folder that holds all of them.
        names: file with ``{number: name}`` (JSON): the set itself only numbers its flowers.
    """

    def __init__(self, root: str | Path, names: str | Path) -> None:
        super().__init__(root)
        self.names = {int(number): str(name) for number, name in _json(Path(names)).items()}

    def listings(self) -> Iterator[Listing]:
        """See ``PictureSource``."""
        labels = _mat(self.root / "imagelabels.mat", "labels")
        part_of = {int(n): part for part, key in _FLOWER_PARTS.items() for n in _mat(self.root / "setid.mat", key)}
        for number, label in enumerate(labels, start=1):
            if int(label) not in self.names:
                raise DataError(str(self.root), "names", f"has no name for flower {label}; complete the file")
            yield Listing(f"jpg/image_{number:05d}.jpg", self.names[int(label)], "flower", part=part_of.get(number, ""))


_FLOWER_PARTS = {"train": "trnid", "val": "valid", "test": "tstid"}


class CUB200(FileSource):
    """``CUB_200_2011``: ``images.txt``, ``classes.txt``, ``bounding_boxes.txt`` and ``train_test_split.txt``."""

    def listings(self) -> Iterator[Listing]:
        """See ``PictureSource``."""
        boxes = dict(line.split(maxsplit=1) for line in self.text("bounding_boxes.txt"))
        trained = dict(line.split() for line in self.text("train_test_split.txt"))
        for line in self.text("images.txt"):
            number, ref = line.split(maxsplit=1)
            x, y, width, height = (float(value) for value in boxes[number].split())
            box = (x, y, x + width, y + height)
            entity = ref.split("/")[0].partition(".")[2].replace("_", " ")
            yield Listing(f"images/{ref}", entity, "bird", box, "train" if trained.get(number) == "1" else "test")


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise DataError(str(path), "index", f"cannot be opened ({error.strerror}); unpack the whole set") from error
    except ValueError as error:
        raise DataError(str(path), "index", f"is no JSON ({error}); fetch it again") from error


def _mat(path: Path, name: str) -> Any:
    """A variable of a MATLAB file, flat."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ConfigError("source", "this set's index needs SciPy; run pip install 'kvg[sets]'") from error
    try:
        return np.ravel(loadmat(str(path))[name])
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        raise DataError(str(path), "index", f"cannot be read ({error}); unpack the whole set") from error
