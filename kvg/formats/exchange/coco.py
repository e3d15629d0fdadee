"""COCO: ``annotations.json`` with boxes as x, y, width, height in pixels, and ``predictions.json`` in results form."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from kvg.box_forms import BoxForm
from kvg.catalogue.coco import id_of
from kvg.errors import DataError
from kvg.formats.exchange.base import ExchangeFormat, Keys, OpenPicture, PictureWriter, Source, traits_in
from kvg.formats.exchange.picture import FACTS, AnnotatedPicture, LabelledBox
from kvg.records import excerpt, list_of, number_of, object_of, optional_text, read_json, text_of
from kvg.shards.reader import Tally

_ANNOTATIONS: Final = "annotations.json"
_PREDICTIONS: Final = "predictions.json"
_IMAGES: Final = "images"


class CocoFormat(ExchangeFormat):
    """COCO. The entity is the annotation's category, its category is the ``supercategory``.

    ``file_name`` is relative to ``images``. An image keeps the other fields of a sample in ``kvg``, which other readers
    ignore. Predictions without a score get 1.0, since results need one. Crowds are not objects.
    """

    name = "coco"
    entries = (_ANNOTATIONS, _PREDICTIONS, _IMAGES)
    box_form = BoxForm("pixels", "xywh")

    def write(self, pictures: Iterable[AnnotatedPicture], folder: Path) -> int:
        """See ``ExchangeFormat``."""
        writer, categories = PictureWriter(folder / _IMAGES), _Categories()
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        results: list[dict[str, Any]] = []
        for number, picture in enumerate(pictures, start=1):
            image = {"id": number, "file_name": writer.write(picture), "width": picture.width, "height": picture.height}
            images.append({**image, **({FACTS: dict(picture.facts)} if picture.facts else {})})
            for box in picture.boxes:
                entry: dict[str, Any] = {"id": len(annotations) + 1, "iscrowd": 0, "area": _area(box)}
                entry |= {"image_id": number, "category_id": categories.id_of(box), "bbox": _bbox(box)}
                annotations.append({**entry, **({"attributes": {"traits": list(box.traits)}} if box.traits else {})})
            for box in picture.predictions:
                score = 1.0 if box.score is None else box.score
                result = {"image_id": number, "category_id": categories.id_of(box), "bbox": _bbox(box), "score": score}
                results.append(result)
        content = {"images": images, "annotations": annotations, "categories": categories.records}
        (folder / _ANNOTATIONS).write_text(json.dumps(content, ensure_ascii=False, indent=1), "utf-8")
        if results:
            (folder / _PREDICTIONS).write_text(json.dumps(results), "utf-8")
        return len(images)

    def read(self, source: Source, tally: Tally) -> Iterator[AnnotatedPicture]:
        """See ``ExchangeFormat``; ``predictions.json`` beside the annotations is read, too."""
        where = str(source.path)
        record = object_of(where, "annotations", read_json(source.path))
        images, annotations, kinds = (
            list_of(where, name, record.get(name)) for name in ("images", "annotations", "categories")
        )
        names = {key: kind for kind in kinds if isinstance(kind, Mapping) and (key := id_of(kind.get("id")))}
        of_image = _by_image(annotations, f"{where} annotation", tally)
        path = source.path.with_name(_PREDICTIONS)
        results = list_of(str(path), "results", read_json(path)) if path.is_file() else []
        predicted = _by_image(results, f"{path} result", tally)
        folder, keys, seen = source.folder(_IMAGES), Keys(), set[str]()
        for number, value in enumerate(source.counted(images)):
            place = f"{where} image {number}"
            try:
                image = object_of(place, "image", value)
                image_id = id_of(image.get("id"))
                if image_id is None or image_id in seen:
                    raise DataError(place, "id", f"{excerpt(image.get('id'))} is no id, or stands twice; correct it")
                seen.add(image_id)
                own, own_results = of_image.pop(image_id, []), predicted.pop(image_id, [])
                name = text_of(place, image, "file_name")
                picture = OpenPicture(source, f"{where} image {image_id}", folder.read(place, "file_name", name))
                picture.check_size(image, "width", "height")
                for entry in own:
                    _add(picture, entry, names, tally)
                for entry in own_results:
                    score = number_of(entry.get("score"))
                    _add(picture, entry, names, tally, predicted=True, score=score)
                facts = object_of(place, FACTS, image.get(FACTS) or {})
                yield picture.annotated(keys.key(name), facts)
            except DataError as error:
                tally.note(error)
        for kind, left in (("annotation", of_image), ("result", predicted)):
            for image_id, entries in left.items():
                for _ in entries:
                    remedy = f"{excerpt(image_id)} is no image that can be used"
                    tally.note(DataError(f"{where} {kind}", "image_id", remedy))


class _Categories:
    """The list of categories, each with its own id."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self._ids: dict[tuple[str, str], int] = {}

    def id_of(self, box: LabelledBox) -> int:
        """Returns the id of a box's label, from 1."""
        key = box.label, box.category
        if key not in self._ids:
            self._ids[key] = len(self._ids) + 1
            supercategory = {"supercategory": box.category} if box.category else {}
            self.records.append({"id": self._ids[key], "name": box.label, **supercategory})
        return self._ids[key]


def _bbox(box: LabelledBox) -> list[float]:
    x1, y1, x2, y2 = box.box_px
    return [x1, y1, x2 - x1, y2 - y1]


def _area(box: LabelledBox) -> float:
    _, _, width, height = _bbox(box)
    return width * height


def _by_image(values: list[Any], kind: str, tally: Tally) -> dict[str, list[Mapping[str, Any]]]:
    entries: dict[str, list[Mapping[str, Any]]] = {}
    for number, value in enumerate(values):
        image_id = id_of(value.get("image_id")) if isinstance(value, Mapping) else None
        if image_id is None:
            tally.note(DataError(f"{kind} {number}", "image_id", f"{excerpt(value)} names no image; correct it"))
        else:
            entries.setdefault(image_id, []).append(value)
    return entries


def _add(
    picture: OpenPicture,
    entry: Mapping[str, Any],
    names: Mapping[str, Mapping[str, Any]],
    tally: Tally,
    *,
    predicted: bool = False,
    score: float | None = None,
) -> None:
    """Adds an annotation or a result to its picture.

    Raises:
        DataError: it has no name, so that no label of the picture can be trusted.
    """
    where = f"{picture.where} annotation {excerpt(entry.get('id'))}"
    kind = names.get(id_of(entry.get("category_id")) or "")
    if kind is None:
        raise DataError(where, "category_id", f"{excerpt(entry.get('category_id'))} is no category of the list")
    label, category = text_of(where, kind, "name"), optional_text(where, kind, "supercategory")
    if number_of(entry.get("iscrowd")) not in (None, 0.0) or entry.get("iscrowd") is True:
        tally.note(DataError(where, "iscrowd", "is a crowd, not one object"))
        picture.unclear.append(label)
        return
    attributes = object_of(where, "attributes", entry.get("attributes") or {})
    traits = () if predicted else traits_in(where, attributes)
    form = picture.source.form(CocoFormat.box_form)
    picture.add(
        label,
        entry.get("bbox"),
        form,
        "bbox",
        tally,
        predicted=predicted,
        score=score,
        category=category,
        traits=traits,
    )
