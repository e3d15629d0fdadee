"""Fine-grained recognition: whole pictures and multiple-choice options (FGVR, paper v2, table 2).

Reads the files of FOCI (gregor-ge/FOCI-Benchmark, ``data/fgvc_aircraft-ViT-L-14-laion2b_s32b_b82k-4.json``; the
same form with other sets in PKU-ICST-MIPL/Finedefics_ICLR2025)::

    {"707-320": [{"image": "data/images/1514522.jpg", "options": ["707-320", "757-200", "727-200", "Fokker 100"],
                  "groundtruth": "707-320"}, ...], ...}

and plain lists (JSON, JSON lines, CSV) whose rows have ``image`` (or ``path``), ``label`` (or ``entity``), and
optionally ``options`` (in CSV separated by ``|``) and ``category``. Rows with ``entity`` and no ``options`` ask for a
box instead, see ``kvg.formats.entity_list``.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from kvg.catalogue.questions import sample_options
from kvg.errors import DataError
from kvg.formats.listed_pictures import find_picture, folder_of
from kvg.formats.one_object import one_object
from kvg.formats.published import good_samples
from kvg.records import Row, excerpt, load_list, numbered, object_of, optional_text, text_of
from kvg.shards.reader import Tally
from kvg.text.names import clean_name
from kvg.text.prompts import LETTERS
from kvg.types import Sample

# Names of the sets of FOCI and Finedefics, and the category of their pictures.
CATEGORIES: Final = {
    "fgvc_aircraft": "aircraft",
    "aircraft-102": "aircraft",
    "stanford_cars": "car",
    "car-196": "car",
    "oxford_pet": "pet",
    "pet-37": "pet",
    "flowers102": "flower",
    "flower-102": "flower",
    "food101": "food",
    "dog-120": "dog",
    "dogs_120": "dog",
    "bird-200": "bird",
    "imagenet-6k-animal": "animal",
    "imagenet-6k-plant": "plant",
    "imagenet-6k-food": "food",
    "imagenet-6k-artifact": "artifact",
}
_SEPARATOR: Final = "|"  # between options in CSV
_IMAGES, _LABELS = ("image", "path"), ("groundtruth", "label", "entity")


def is_recognition(value: Any) -> bool:
    """Returns whether a file's content has one of these forms.

    >>> is_recognition({"Merlin": [{"image": "a.jpg", "options": ["Merlin", "Hobby"], "groundtruth": "Merlin"}]})
    True
    """
    if isinstance(value, Mapping):
        rows = [row for rows in value.values() if isinstance(rows, list) for row in rows[:1]]
        return bool(rows) and all(isinstance(row, Mapping) and "groundtruth" in row for row in rows)
    first = value[0] if isinstance(value, list) and value else None
    row = first[1] if isinstance(first, tuple) else first
    return isinstance(row, Mapping) and bool(_field(row, _IMAGES)) and bool(_field(row, _LABELS))


class Recognition:
    """Multiple-choice questions as a store of one part.

    The only object of a sample is the whole picture. The seed decides the order of its ``options``, since FOCI lists
    the correct option first. A row without options gets three distractors of its category, sampled from the whole file
    as in the paper. Underscores in names become spaces.

    Args:
        path: a file in one of the forms above.
        images: folder of the pictures; by default that of the file.
        category: category of all samples; by default that of the row, else that of the published set, else the file's
            name.
        seed: seed of distractors and order.

    Raises:
        DataError: the file is missing, damaged, empty, or of another form.
    """

    def __init__(self, path: str | Path, images: str | Path | None = None, category: str = "", seed: int = 0) -> None:
        self.path, self.category, self.seed = Path(path), category, seed
        self.folder = folder_of(self.path, images)
        self.num_samples = len(self._load())

    def parts(self) -> Sequence[Recognition]:
        """See ``SampleStore``."""
        return [self]

    def read(self, tally: Tally | None = None) -> Iterator[tuple[int, Sample]]:
        """See ``SamplePart``."""
        rows = self._load()
        names = self._names(rows)
        return good_samples(enumerate(rows), lambda position, row: self._sample(position, row, names), tally)

    def _load(self) -> list[Row]:
        value = load_list(self.path)
        if not is_recognition(value):
            remedy = "is not a list of pictures and labels; give FOCI's form, or rows with image and label"
            raise DataError(str(self.path), "form", remedy)
        if isinstance(value, Mapping):
            for label, rows in value.items():
                if not isinstance(rows, list):
                    raise DataError(f"{self.path} {label}", "rows", "must be a list of objects")
            return [(f"{self.path} {label}[{i}]", row) for label, rows in value.items() for i, row in enumerate(rows)]
        return value if isinstance(value[0], tuple) else numbered(self.path, value)

    def _names(self, rows: Sequence[Row]) -> dict[str, list[str]]:
        """Returns the sorted labels of each category."""
        labels: dict[str, set[str]] = {}
        for _, row in rows:
            label = row.get(_field(row, _LABELS)) if isinstance(row, Mapping) else None
            if isinstance(label, str) and label.strip():
                with suppress(DataError):  # reported when the row itself is read
                    labels.setdefault(self._category("", row), set()).add(_name(label))
        return {category: sorted(names) for category, names in labels.items()}

    def _category(self, where: str, row: Mapping[str, Any]) -> str:
        row_category = optional_text(where, row, "category")
        published = self.path.stem.partition("-ViT-")[0]  # the rest names the model that chose the options
        return self.category or row_category or CATEGORIES.get(published, published)

    def _sample(self, position: int, row: Row, names: Mapping[str, Sequence[str]]) -> Sample:
        where, record = row[0], object_of(row[0], "record", row[1])
        label = _name(text_of(where, record, _field(record, _LABELS) or "label"))
        field = _field(record, _IMAGES) or "image"
        name = text_of(where, record, field)
        category = self._category(where, record)
        others = [other for other in names[category] if other != label]
        draw = f"{self.seed}/recognition/{name}/{position}"
        options = _options(where, record.get("options"), label, others, draw)
        data = find_picture(where, field, name, self.folder)[1]
        return one_object(self.path, position, where, name, data, category, label, options=tuple(options))


def _options(where: str, value: Any, label: str, others: Sequence[str], seed: str) -> list[str]:
    """Returns the options in random order: those of the row, else the label and sampled distractors."""
    if value is None or value == "":
        if not others:
            remedy = (
                f"are missing, and its category has no other label than '{label}' to sample distractors from; add some"
            )
            raise DataError(where, "options", remedy)
        return list(sample_options(label, others, seed))
    names = value.split(_SEPARATOR) if isinstance(value, str) else value  # a cell of a CSV is always text
    if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
        raise DataError(where, "options", f"{excerpt(value)} must be a list of names")
    options = [_name(name) for name in names]
    if not 2 <= len(set(options)) == len(options) <= len(LETTERS):
        raise DataError(where, "options", f"{excerpt(value)} must be 2 to {len(LETTERS)} names, each once")
    if label not in options:
        raise DataError(where, "options", f"{excerpt(value)} do not contain the label '{label}'; add it")
    random.Random(seed).shuffle(options)
    return options


def _field(row: Mapping[str, Any], names: Sequence[str]) -> str:
    return next((name for name in names if name in row), "")


def _name(text: str) -> str:
    return clean_name(text.replace("_", " "))
