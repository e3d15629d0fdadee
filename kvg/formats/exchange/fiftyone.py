"""FiftyOne: its format ``FiftyOneImageDetectionDataset``, ``labels.json`` with pictures in ``data``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from kvg.box_forms import BoxForm
from kvg.errors import DataError
from kvg.formats.exchange.base import ExchangeFormat, Keys, OpenPicture, PictureWriter, Source, traits_in
from kvg.formats.exchange.picture import FACTS, AnnotatedPicture, LabelledBox
from kvg.records import excerpt, list_of, number_of, object_of, optional_text, read_json, text_of
from kvg.shards.reader import Tally

_LABELS: Final = "labels.json"
_PREDICTIONS: Final = "predictions.json"
_DATA: Final = "data"


class FiftyOneFormat(ExchangeFormat):
    """FiftyOne's format on disk. A box is x, y, width, height as shares of the sides.

    Category and traits are attributes of a box. The field ``kvg`` of ``labels.json`` keeps the other fields of samples;
    FiftyOne ignores it, so a set that FiftyOne has exported has lost them.
    """

    name = "fiftyone"
    entries = (_LABELS, _PREDICTIONS, _DATA)
    box_form = BoxForm("unit", "xywh")

    def write(self, pictures: Iterable[AnnotatedPicture], folder: Path) -> int:
        """See ``ExchangeFormat``; predictions go to ``predictions.json``, in the form of ``labels.json``."""
        writer = PictureWriter(folder / _DATA)
        boxes, predictions, facts = dict[str, Any](), dict[str, Any](), dict[str, Any]()
        for picture in pictures:
            writer.write(picture)
            boxes[picture.key] = [_detection(picture, box) for box in picture.boxes]
            if picture.predictions:
                predictions[picture.key] = [_detection(picture, box) for box in picture.predictions]
            if picture.facts:
                facts[picture.key] = dict(picture.facts)
        for name, labels in ((_LABELS, boxes), (_PREDICTIONS, predictions)):
            if labels or name == _LABELS:
                content: dict[str, Any] = {"classes": None, "labels": labels}
                content |= {FACTS: facts} if facts and name == _LABELS else {}
                (folder / name).write_text(json.dumps(content, ensure_ascii=False, indent=1), "utf-8")
        return len(boxes)

    def read(self, source: Source, tally: Tally) -> Iterator[AnnotatedPicture]:
        """See ``ExchangeFormat``; ``predictions.json`` beside the labels is read, too."""
        where, keys = str(source.path), Keys()
        record, labels, classes = _load(source.path)
        path = source.path.with_name(_PREDICTIONS)
        predicted, predicted_classes = _load(path)[1:] if path.is_file() else ({}, [])
        facts = object_of(where, FACTS, record.get(FACTS) or {})
        folder = source.folder(_DATA)
        files = {file.stem: file.name for file in sorted(folder.folder.iterdir()) if file.is_file()}
        for name, values in source.counted(labels.items()):
            place = f"{where} {excerpt(name)}"
            try:
                if name not in files:
                    raise DataError(place, "labels", f"has no picture in {folder.folder}; copy it there")
                picture = OpenPicture(source, place, folder.read(place, "labels", files[name]))
                for value in list_of(place, "labels", values):
                    _add(picture, value, classes, tally, predicted=False)
                for value in list_of(place, "predictions", predicted.get(name, [])):
                    _add(picture, value, predicted_classes, tally, predicted=True)
                yield picture.annotated(keys.key(files[name]), object_of(place, FACTS, facts.get(name) or {}))
            except DataError as error:
                tally.note(error)


def _load(path: Path) -> tuple[Mapping[str, Any], Mapping[str, Any], list[Any]]:
    """Returns a file's content, its labels by picture, and its classes."""
    record = object_of(str(path), "labels", read_json(path))
    labels = object_of(str(path), "labels", record.get("labels"))
    return record, labels, list_of(str(path), "classes", record.get("classes") or [])


def _detection(picture: AnnotatedPicture, box: LabelledBox) -> dict[str, Any]:
    x1, y1, x2, y2 = box.box_px
    shares = [x1 / picture.width, y1 / picture.height, (x2 - x1) / picture.width, (y2 - y1) / picture.height]
    attributes = {"category": box.category, "traits": list(box.traits)}
    entry: dict[str, Any] = {"label": box.label, "bounding_box": shares}
    entry |= {} if box.score is None else {"confidence": box.score}
    return entry | {"attributes": {name: value for name, value in attributes.items() if value}}


def _add(picture: OpenPicture, value: Any, classes: list[Any], tally: Tally, *, predicted: bool) -> None:
    """Adds a detection.

    Raises:
        DataError: it has no label, so that no label of the picture can be trusted.
    """
    entry = object_of(picture.where, "detection", value)
    label = entry.get("label")
    if isinstance(label, int) and not isinstance(label, bool):  # an index, as FiftyOne writes it if there are classes
        if not 0 <= label < len(classes):
            raise DataError(picture.where, "label", f"{label} is not an index into {len(classes)} classes; correct it")
        entry = {**entry, "label": classes[label]}
    name = text_of(picture.where, entry, "label")
    attributes = object_of(picture.where, "attributes", entry.get("attributes") or {})
    category, traits = optional_text(picture.where, attributes, "category"), traits_in(picture.where, attributes)
    score, form = number_of(entry.get("confidence")), picture.source.form(FiftyOneFormat.box_form)
    raw = entry.get("bounding_box")
    picture.add(
        name, raw, form, "bounding_box", tally, predicted=predicted, category=category, traits=traits, score=score
    )
