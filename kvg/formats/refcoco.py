"""Referring expressions (RefCOCO, RefCOCO+, RefCOCOg) in four common JSON forms.

The expression is used as the entity's name. The fields of a file show its form:

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

Boxes are x1, y1, x2, y2 in pixels; those of ``mdetr`` are x, y, width, height. Another unit has to be declared. The
pictures are those of COCO's ``train2014``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kvg.benchmark import split_of
from kvg.box_forms import BoxForm, PixelFrame, pixel_frame
from kvg.errors import DataError
from kvg.formats.listed_pictures import find_picture, folder_of
from kvg.formats.published import good_samples, safe_key
from kvg.formats.written_boxes import Reading
from kvg.pictures import standard_picture
from kvg.records import Row, excerpt, load_list, number_of, numbered, object_of, text_of
from kvg.shards.reader import Tally
from kvg.shards.schema import check_sample
from kvg.types import Box, Sample, SceneObject

_NAME = re.compile(r"refcoco(?:(\+|_?plus|p)|(g))?(?![a-z])", re.IGNORECASE)
_SPLIT = re.compile(r"(?<![a-z])(train|val|testA|testB|test)(?![a-z])", re.IGNORECASE)
_MAX_OUTSIDE: Final = 0.999  # pixels by which a box may extend beyond its picture, as some boxes of COCO do
_SPLITS: Final = {"testa": "testA", "testb": "testB"}


@dataclass(frozen=True)
class Form:
    """Names of the fields of a published form."""

    image: str
    expression: str
    box: str
    has_corner: bool  # whether boxes are x, y, width, height instead of two corners


FORMS: Final = {
    "shikra": Form("img_path", "expression", "bbox", has_corner=False),
    "qwen-vl": Form("image", "sent", "bbox", has_corner=False),
    "vlm-r1": Form("image", "normal_caption", "solution", has_corner=False),
    "mdetr": Form("file_name", "caption", "bbox", has_corner=True),
}


def form_of(value: Any) -> str:
    """Returns the name of the form of a file's content; '' if it is none of ``FORMS``.

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

    ``provenance`` contains the file, the row and the published ``split`` (val, testA, ...). Some boxes of COCO extend
    beyond their picture by less than a pixel; ``clipped`` is the number of pixels that were cut off.

    Args:
        path: a file in one of the forms above.
        images: folder of the pictures (COCO's ``train2014``); by default that of the file.
        category: category of all samples; by default ``refcoco``, ``refcoco+`` or ``refcocog``, from row or file name.
        reading: declared unit and frame of the boxes.

    Raises:
        DataError: the file is missing, damaged, empty, or of another form.
    """

    def __init__(
        self,
        path: str | Path,
        images: str | Path | None = None,
        category: str = "",
        reading: Reading | None = None,
    ) -> None:
        self.path, self.category, self.reading = Path(path), category, reading or Reading()
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
            raise DataError(
                str(self.path), "form", f"is no known form of referring expressions ({forms}); give one of these"
            )
        if form == "mdetr":
            return form, _joined(self.path, value)
        return form, value if isinstance(value[0], tuple) else numbered(self.path, value)

    def _sample(self, position: int, row: Row) -> Sample:
        where, record = row[0], object_of(row[0], "record", row[1])
        form = FORMS[self.form]
        expression, name = text_of(where, record, form.expression), text_of(where, record, form.image)
        file, data = find_picture(where, form.image, name, self.folder)
        frame = pixel_frame(data, where, self.reading.boxes_of)
        image, width, height = standard_picture(data, where)
        for field, size in (("width", frame.width), ("height", frame.height)):
            if record.get(field) is not None and number_of(record[field]) != size:
                remedy = f"is {excerpt(record[field])}, but that of {file} is {size}, so its boxes would be wrong"
                raise DataError(where, field, f"{remedy}; give the original, or state boxes_of")
        box, clipped = _box_px(where, form, record, frame, self.reading)
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
        """Returns name and split of the published set."""
        dataset = next((v for n in ("dataset_name", "dataset") if isinstance(v := record.get(n), str) and v), "")
        match = _NAME.search(dataset) or (None if dataset else _NAME.search(self.path.stem))
        splits = _SPLIT.findall(self.path.stem)
        split = _SPLITS.get(splits[-1].lower(), splits[-1].lower()) if splits else ""
        if match is None:
            return dataset or self.path.stem, split
        return f"refcoco{'+' if match[1] else 'g' if match[2] else ''}", split


def _joined(path: Path, value: Mapping[str, Any]) -> list[Row]:
    """Joins COCO's images with their annotations; the file lists an image once for each expression.

    Annotations without an image follow as rows of their own, so that they are counted as bad.
    """
    boxes: dict[str, list[Any]] = {}
    orphans: list[Row] = []
    for number, annotation in enumerate(value["annotations"]):
        if isinstance(annotation, Mapping) and (name := _id(annotation.get("image_id"))):
            boxes.setdefault(name, []).append(annotation.get("bbox"))
        else:
            orphans.append((f"{path} annotations[{number}]", f"{excerpt(annotation, 40)} without an image_id"))
    rows: list[Row] = []
    for number, image in enumerate(value["images"]):
        where = f"{path} images[{number}]"
        if isinstance(image, Mapping):
            image_boxes = boxes.get(_id(image.get("id")), [])
            # Several annotations would mean several correct answers, which the form does not allow.
            image = {**image, "bbox": image_boxes[0] if len(image_boxes) == 1 else f"{len(image_boxes)} annotations"}
        rows.append((where, image))
    return rows + orphans


def _id(value: Any) -> str:
    """Returns an id as text: 7, 7.0 and "7" are equal; '' if the value is not an id."""
    number = number_of(value)
    if number is not None and number == int(number):
        return str(value if isinstance(value, int) else int(number))
    return value if isinstance(value, str) else ""


def _box_px(
    where: str, form: Form, record: Mapping[str, Any], frame: PixelFrame, reading: Reading
) -> tuple[Box, float]:
    """Returns the box inside the upright picture, and the largest number of pixels that were cut off."""
    boxes = BoxForm(reading.box_unit or "pixels", "xywh" if form.has_corner else "xyxy")
    size = frame.width, frame.height
    box = boxes.pixels(record.get(form.box), *size, where, form.box, rim=_MAX_OUTSIDE)
    whole = boxes.uncut(record.get(form.box), *size, where, form.box)
    return frame.upright(box), max(abs(a - b) for a, b in zip(box, whole, strict=True))
