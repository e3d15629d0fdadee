"""Label Studio: ``tasks.json`` to import, ``label_config.xml``, and the JSON export of a project."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import quoteattr

from kvg.box_forms import BoxForm
from kvg.errors import DataError
from kvg.formats.exchange.base import ExchangeFormat, Keys, OpenPicture, PictureWriter, Source, traits_in
from kvg.formats.exchange.picture import FACTS, AnnotatedPicture, LabelledBox
from kvg.formats.listed_pictures import PictureFolder
from kvg.records import excerpt, list_of, number_of, object_of, optional_text, read_json, text_of
from kvg.shards.reader import Tally

_TASKS: Final = "tasks.json"
_CONFIG: Final = "label_config.xml"
_IMAGES: Final = "images"
_LOCAL: Final = f"/data/local-files/?d={_IMAGES}/"  # relative to LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT
_UPLOADED = re.compile(r"[0-9a-f]{8}-")  # Label Studio puts this before the names of files that were uploaded


class LabelStudioFormat(ExchangeFormat):
    """Label Studio's tasks. A box is x, y, width, height in percent of the sides of the upright picture.

    True boxes become an annotation, predictions a prediction of each task. When it is read, the annotation marked as
    ground truth counts, else the one that was changed last. Tasks that were skipped or have no annotation yet are
    counted as skipped entries. ``data.kvg`` of a task keeps the other fields of a sample.
    """

    name = "label-studio"
    entries = (_TASKS, _CONFIG, _IMAGES)
    has_fixed_unit = True
    box_form = BoxForm("unit", "xywh")  # after percent were divided by 100

    def write(self, pictures: Iterable[AnnotatedPicture], folder: Path) -> int:
        """See ``ExchangeFormat``."""
        writer, labels, tasks = PictureWriter(folder / _IMAGES), dict[str, None](), list[dict[str, Any]]()
        for picture in pictures:
            image = _LOCAL + writer.write(picture)
            task: dict[str, Any] = {"data": {"image": image, FACTS: dict(picture.facts)}}
            if picture.boxes:
                task["annotations"] = [{"result": _regions(picture, picture.boxes)}]
            if picture.predictions:
                scores = [box.score for box in picture.predictions if box.score is not None]
                prediction = {"model_version": "kvg", "result": _regions(picture, picture.predictions)}
                task["predictions"] = [prediction | ({"score": sum(scores) / len(scores)} if scores else {})]
            labels.update(dict.fromkeys(box.label for box in (*picture.boxes, *picture.predictions)))
            tasks.append(task)
        (folder / _TASKS).write_text(json.dumps(tasks, ensure_ascii=False, indent=1), "utf-8")
        (folder / _CONFIG).write_text(_config(labels), "utf-8")
        return len(tasks)

    def read(self, source: Source, tally: Tally) -> Iterator[AnnotatedPicture]:
        """See ``ExchangeFormat``; the file is an export in the form JSON, not JSON-MIN."""
        tasks, folder, keys = list_of(str(source.path), "tasks", read_json(source.path)), source.folder(_IMAGES), Keys()
        for number, value in enumerate(source.counted(tasks)):
            where = f"{source.path} task {number}"
            try:
                yield _picture(source, folder, where, object_of(where, "task", value), keys, tally)
            except DataError as error:
                tally.note(error)


def _regions(picture: AnnotatedPicture, boxes: Iterable[LabelledBox]) -> list[dict[str, Any]]:
    return [_region(picture, box, f"box-{number}") for number, box in enumerate(boxes)]


def _region(picture: AnnotatedPicture, box: LabelledBox, name: str) -> dict[str, Any]:
    x1, y1, x2, y2 = box.box_px
    value: dict[str, Any] = {"x": x1 * 100 / picture.width, "y": y1 * 100 / picture.height}
    value |= {"width": (x2 - x1) * 100 / picture.width, "height": (y2 - y1) * 100 / picture.height, "rotation": 0}
    region: dict[str, Any] = {"id": name, "type": "rectanglelabels", "from_name": "label", "to_name": "image"}
    region |= {"original_width": picture.width, "original_height": picture.height, "image_rotation": 0}
    meta = {"category": box.category} if box.category else {}
    region["value"] = {**value, "rectanglelabels": [box.label]}
    region["meta"] = {FACTS: {**meta, **({"traits": list(box.traits)} if box.traits else {})}}
    return region | ({} if box.score is None else {"score": box.score})


def _config(labels: Iterable[str]) -> str:
    lines = "".join(f"    <Label value={quoteattr(label)}/>\n" for label in labels)
    return (
        '<View>\n  <Filter name="filter" toName="label"/>\n  <Image name="image" value="$image"/>\n'
        f'  <RectangleLabels name="label" toName="image">\n{lines}  </RectangleLabels>\n</View>\n'
    )


def _picture(
    source: Source, folder: PictureFolder, where: str, task: Mapping[str, Any], keys: Keys, tally: Tally
) -> AnnotatedPicture:
    """Reads a task.

    Raises:
        DataError: it has no annotation, its picture cannot be read, or a box has no label.
    """
    data = object_of(where, "data", task.get("data"))
    if "annotations" not in task and "label" in task:
        raise DataError(where, "annotations", "is missing, as in a JSON-MIN export; export the project as JSON")
    chosen = _chosen(where, task)
    name, content = _file(where, folder, text_of(where, data, "image"))
    picture = OpenPicture(source, where, content)
    if chosen is not None:
        for region in list_of(where, "result", chosen.get("result")):
            _add(picture, object_of(where, "region", region), tally, predicted=False)
    for prediction in list_of(where, "predictions", task.get("predictions") or []):
        for region in list_of(where, "result", object_of(where, "prediction", prediction).get("result")):
            _add(picture, object_of(where, "region", region), tally, predicted=True)
    return picture.annotated(keys.key(name), object_of(where, FACTS, data.get(FACTS) or {}))


def _chosen(where: str, task: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Returns the annotation that counts; None if a task has predictions alone.

    Raises:
        DataError: the task was skipped, or nobody has annotated it yet.
    """
    values = list_of(where, "annotations", task.get("annotations") or [])
    annotations = [object_of(where, "annotation", value) for value in values]
    kept = [annotation for annotation in annotations if not annotation.get("was_cancelled")]
    if annotations and not kept:
        raise DataError(where, "annotations", "was skipped by the annotator; annotate it, or leave it out")
    if not kept:
        if task.get("predictions"):
            return None
        raise DataError(where, "annotations", "has none yet; annotate it, or leave it out")
    truths = [annotation for annotation in kept if annotation.get("ground_truth") is True]
    # Times are in ISO 8601 and in UTC, so that texts sort as times do.
    return max(truths or kept, key=lambda annotation: str(annotation.get("updated_at") or ""))


def _file(where: str, folder: PictureFolder, image: str) -> tuple[str, bytes]:
    """Reads the picture of a task, whose address may be a local file, an upload, or that of a server.

    Returns:
        Its path or name, and its content.
    """
    parts = urlsplit(image)
    query = parse_qs(parts.query).get("d")
    path = (query[0] if query else unquote(parts.path)).lstrip("/")
    last = path.rpartition("/")[2]
    names = dict.fromkeys((path, path.removeprefix(f"{_IMAGES}/"), last, _UPLOADED.sub("", last, count=1)))
    first: DataError | None = None
    for name in names:
        try:
            return name, folder.read(where, "image", name)
        except DataError as error:
            first = first or error
    raise first or DataError(where, "image", "is empty; name the picture")


def _add(picture: OpenPicture, region: Mapping[str, Any], tally: Tally, *, predicted: bool) -> None:
    """Adds a region; regions that are no rectangles with labels are ignored, such as choices and texts.

    Raises:
        DataError: it is a rectangle without a label, or its picture has another size.
    """
    if region.get("type") not in ("rectanglelabels", "rectangle"):
        return
    where = f"{picture.where} region {excerpt(region.get('id'), 40)}"
    value = object_of(where, "value", region.get("value"))
    labels = list_of(where, "rectanglelabels", value.get("rectanglelabels") or [])
    if len(labels) != 1:
        raise DataError(where, "rectanglelabels", f"{excerpt(labels)} must be one label; correct it")
    label = text_of(where, {"rectanglelabels": labels[0]}, "rectanglelabels")
    picture.check_size(region, "original_width", "original_height")
    if number_of(region.get("image_rotation") or 0) != 0:
        raise DataError(where, "image_rotation", "is not 0: its picture was rotated; rotate it back and draw it again")
    if number_of(value.get("rotation") or 0) != 0:
        tally.note(DataError(where, "rotation", "is not 0; draw a box that is not rotated"))
        if not predicted:
            picture.unclear.append(label)
        return
    percents = [number_of(value.get(name)) for name in ("x", "y", "width", "height")]
    raw = [None if percent is None else percent / 100 for percent in percents]
    meta = object_of(where, "meta", region.get("meta") or {})
    facts = object_of(where, FACTS, meta.get(FACTS) or {})
    category, traits = optional_text(where, facts, "category"), traits_in(where, facts)
    score = number_of(region.get("score"))
    picture.add(
        label,
        raw,
        LabelStudioFormat.box_form,
        "value",
        tally,
        predicted=predicted,
        category=category,
        traits=traits,
        score=score,
    )
