"""Referring expressions (RefCOCO, RefCOCO+, RefCOCOg) in the JSON forms in which they go about.

The expression takes the place of the entity's name. Four forms are known by their fields:

===========  =====================================================  ===================================================
form         a row                                                  as in
===========  =====================================================  ===================================================
``shikra``   ``img_path``, ``expression``, ``bbox``: lines           shikras/shikra, ``REC_refcoco+_unc_testA.jsonl``
``qwen-vl``  ``image``, ``sent``, ``bbox``, ``width``, ``height``:   QwenLM/Qwen-VL and OpenGVLab/InternVL,
             lines                                                  ``refcoco_testA.jsonl``
``vlm-r1``   ``image``, ``normal_caption``, ``solution``, ``width``  om-ai-lab/VLM-R1, ``rec_jsons_processed``,
             ``height``, ``dataset``: a JSON list                   ``refcocop_testA.json``
``mdetr``    COCO's ``images`` with ``caption``, ``dataset_name``;   ashkamath/mdetr, ``refexp_coco_format.py``,
             ``annotations`` with ``bbox``                          ``finetune_refcoco+_testA.json``
===========  =====================================================  ===================================================

Boxes are x1, y1, x2, y2 in pixels, but COCO's are x, y, width, height. The pictures are those of COCO's ``train2014``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kvg.errors import DataError
from kvg.formats.listed_pictures import find_picture, folder_of
from kvg.formats.published import good_samples, safe_key, split_of
from kvg.pictures import standard_picture
from kvg.records import Row, load_list, numbered, text_of
from kvg.shards.reader import Tally
from kvg.shards.schema import check_sample
from kvg.types import Box, Sample, SceneObject

_NAME = re.compile(r"refcoco(?:(\+|_?plus|p)|(g))?(?![a-z])", re.IGNORECASE)
_SPLIT = re.compile(r"(?<![a-z])(train|val|testA|testB|test)(?![a-z])", re.IGNORECASE)
_SPLITS: Final = {"testa": "testA", "testb": "testB"}


@dataclass(frozen=True)
class Form:
    """Where a published form keeps what."""

    image: str
    expression: str
    box: str
    has_corner: bool  # x, y, width, height instead of two corners


FORMS: Final = {
    "shikra": Form("img_path", "expression", "bbox", has_corner=False),
    "qwen-vl": Form("image", "sent", "bbox", has_corner=False),
    "vlm-r1": Form("image", "normal_caption", "solution", has_corner=False),
    "mdetr": Form("file_name", "caption", "bbox", has_corner=True),
}


def form_of(value: Any) -> str:
    """The form of a file's content; '' where it is none of them.

    >>> form_of([("line 1", {"img_path": "a.jpg", "expression": "left man", "bbox": [0, 0, 9, 9]})])
    'shikra'
    """
    if isinstance(value, Mapping):
        images = value.get("images")
        first = images[0] if isinstance(images, list) and images else None
        fits = isinstance(value.get("annotations"), list) and isinstance(first, Mapping) and "caption" in first
        return "mdetr" if fits else ""
    first = value[0] if isinstance(value, list) and value else None
    row = first[1] if isinstance(first, tuple) else first
    if isinstance(row, Mapping):
        for name in ("shikra", "qwen-vl", "vlm-r1"):
            if {FORMS[name].image, FORMS[name].expression, FORMS[name].box} <= set(row):
                return name
    return ""


class RefCOCO:
    """A file of referring expressions as a store of one part.

    ``provenance`` holds the file, the row, the published ``split`` (val, testA, ...) and, of a box that stuck out of
    its picture by less than a pixel, as some of COCO's do, by how much: ``clipped``.

    Args:
        path: of one of the forms above.
        images: folder of the pictures (COCO's ``train2014``); by default that of the file.
        category: of all samples; by default ``refcoco``, ``refcoco+`` or ``refcocog``, as row or file name tell.

    Raises:
        DataError: the file is missing, damaged, empty, or of another form.
    """

    def __init__(self, path: str | Path, images: str | Path | None = None, category: str = "") -> None:
        self.path, self.category = Path(path), category
        self.folder = folder_of(self.path, images)
        self.form, rows = self._load()
        self.num_samples = len(rows)

    def parts(self) -> Sequence[RefCOCO]:
        """See ``SampleStore``."""
        return [self]

    def read(self, tally: Tally | None = None) -> Iterator[tuple[int, Sample]]:
        """See ``SamplePart``."""
        return good_samples(enumerate(self._load()[1]), self._sample, tally)

    def _load(self) -> tuple[str, list[Row]]:
        value = load_list(self.path)
        form = form_of(value)
        if not form:
            forms = "; ".join(f"{name}: {f.image}, {f.expression}, {f.box}" for name, f in FORMS.items())
            raise DataError(str(self.path), "form", f"is none of referring expressions ({forms}); give one of these")
        if form == "mdetr":
            return form, _joined(self.path, value)
        return form, value if isinstance(value[0], tuple) else numbered(self.path, value)

    def _sample(self, position: int, row: Row) -> Sample:
        where, record = row
        if not isinstance(record, Mapping):
            raise DataError(where, "record", "must be an object")
        form = FORMS[self.form]
        expression, name = text_of(where, record, form.expression), text_of(where, record, form.image)
        file, data = find_picture(where, form.image, name, self.folder)
        image, width, height = standard_picture(data, where)
        for field, size in (("width", width), ("height", height)):
            if field in record and record[field] != size:
                remedy = f"is {record[field]!r}, that of {file} is {size}: its boxes would not fit; give the original"
                raise DataError(where, field, remedy)
        box, clipped = _box_px(where, form, record, width, height)
        dataset, split = self._origin(record)
        category = self.category or dataset
        part = f"-{split}" if split else ""
        sample = Sample(
            key=f"{safe_key(dataset.replace('+', 'p'))}{part}-{position:06d}",
            image=image,
            width=width,
            height=height,
            category=category,
            split=split_of(category),
            objects=(SceneObject(expression, box),),
            target=0,
            provenance={
                "file": self.path.name,
                "row": position,
                "image": file.name,
                **({"split": split} if split else {}),
                **({"clipped": round(clipped, 4)} if clipped else {}),
            },
        )
        check_sample(sample, where)
        return sample

    def _origin(self, record: Mapping[str, Any]) -> tuple[str, str]:
        """Name and split of the published set."""
        told = str(record.get("dataset_name") or record.get("dataset") or "")
        found = _NAME.search(told) or (None if told else _NAME.search(self.path.stem))
        splits = _SPLIT.findall(self.path.stem)
        split = _SPLITS.get(splits[-1].lower(), splits[-1].lower()) if splits else ""
        if found is None:
            return told or self.path.stem, split
        return f"refcoco{'+' if found[1] else 'g' if found[2] else ''}", split


def _joined(path: Path, value: Mapping[str, Any]) -> list[Row]:
    """COCO's images, each with the box of its annotation; an image stands there as often as it is asked about."""
    boxes: dict[Any, list[Any]] = {}
    for number, annotation in enumerate(value["annotations"]):
        if not isinstance(annotation, Mapping) or "image_id" not in annotation:
            raise DataError(f"{path} annotations[{number}]", "image_id", "is missing; correct it")
        boxes.setdefault(str(annotation["image_id"]), []).append(annotation.get("bbox"))
    rows: list[Row] = []
    for number, image in enumerate(value["images"]):
        where = f"{path} images[{number}]"
        if isinstance(image, Mapping):
            found = boxes.get(str(image.get("id")), [])
            # One with several would have several right answers, of which the form does not tell.
            image = {**image, "bbox": found[0] if len(found) == 1 else f"{len(found)} annotations"}
        rows.append((where, image))
    return rows


def _box_px(where: str, form: Form, record: Mapping[str, Any], width: int, height: int) -> tuple[Box, float]:
    """The box within the picture, and by how many pixels it had to be cut off."""
    value = record.get(form.box)
    kind = "x, y, width, height" if form.has_corner else "x1, y1, x2, y2"
    if not isinstance(value, list) or len(value) != 4 or not all(_is_number(v) for v in value):
        raise DataError(where, form.box, f"{value!r} is not one box of four numbers {kind} in pixels")
    x1, y1, x2, y2 = map(float, value)
    if form.has_corner:
        x2, y2 = x1 + x2, y1 + y2
    out = max(0.0, -x1, -y1, x2 - width, y2 - height)
    if out >= 1:
        remedy = f"{value} sticks {out:g} px out of the {width}x{height} picture; give {kind} in its pixels"
        raise DataError(where, form.box, remedy)
    box = max(0.0, x1), max(0.0, y1), min(float(width), x2), min(float(height), y2)
    if box[0] >= box[2] or box[1] >= box[3]:
        raise DataError(where, form.box, f"{value} has no area; give {kind} in pixels")
    return box, out


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
