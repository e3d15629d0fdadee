"""A list of pictures for `kvg-data scan`: ``listing.jsonl``, as ``kvg.catalogue.tables.Table`` reads it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from kvg.box_forms import BoxForm
from kvg.errors import DataError
from kvg.formats.exchange.base import ExchangeFormat, Keys, OpenPicture, PictureWriter, Source, check_boxes
from kvg.formats.exchange.picture import AnnotatedPicture
from kvg.formats.listed_pictures import PictureFolder
from kvg.records import Row, json_lines, object_of, optional_text, parse_json, text_of
from kvg.shards.reader import Tally
from kvg.types import Box

_FILE: Final = "listing.jsonl"


class ListingFormat(ExchangeFormat):
    """A line is one object: ``path``, ``entity``, ``category``, ``box`` (x1, y1, x2, y2 in pixels), and ``licence``.

    An object whose box nobody knows has no ``box``, so that `kvg-data box` can look for it.
    """

    name = "listing"
    entries = (_FILE, "images")
    box_form = BoxForm("pixels")
    left_out = "predictions, targets, traits, rationales, splits and knowledge"

    def check(self, picture: AnnotatedPicture) -> None:
        """See ``ExchangeFormat``; a picture without boxes needs the entity of its question."""
        super().check(picture)
        if not picture.facts.get("entity"):
            check_boxes(picture)

    def write(self, pictures: Iterable[AnnotatedPicture], folder: Path) -> int:
        """See ``ExchangeFormat``."""
        writer, num = PictureWriter(folder / "images"), 0
        with (folder / _FILE).open("w", encoding="utf-8") as stream:
            for picture in pictures:
                path = f"images/{writer.write(picture)}"
                licences = picture.facts.get("licences") or []
                for entity, category, box_px in _objects(picture):
                    line: dict[str, Any] = {"path": path, "entity": entity, "category": category}
                    line |= {} if box_px is None else {"box": list(box_px)}
                    line |= {"licence": ", ".join(licences)} if licences else {}
                    stream.write(json.dumps(line, ensure_ascii=False) + "\n")
                num += 1
        return num

    def read(self, source: Source, tally: Tally) -> Iterator[AnnotatedPicture]:
        """See ``ExchangeFormat``; all lines with the same path are the objects of one picture."""
        form, folder, keys = source.form(self.box_form), source.folder(), Keys()
        for name, rows in source.counted(_by_picture(source.path, tally).items()):
            try:
                yield _picture(source, folder, name, rows, form, tally).annotated(keys.key(name))
            except DataError as error:
                tally.note(error)


def _objects(picture: AnnotatedPicture) -> list[tuple[str, str, Box | None]]:
    """Returns name, category and box of each object; of a picture without boxes, those of its question."""
    if not picture.boxes:
        return [(str(picture.facts["entity"]), str(picture.facts.get("category", "")), None)]
    return [(box.label, box.category, box.box_px) for box in picture.boxes]


def _by_picture(path: Path, tally: Tally) -> dict[str, list[Row]]:
    pictures: dict[str, list[Row]] = {}
    for number, text in json_lines(path):
        where = f"{path} line {number}"
        try:
            row = object_of(where, "line", parse_json(text, where))
            pictures.setdefault(text_of(where, row, "path"), []).append((where, row))
        except DataError as error:
            tally.note(error)
    return pictures


def _picture(
    source: Source, folder: PictureFolder, name: str, rows: list[Row], form: BoxForm, tally: Tally
) -> OpenPicture:
    where = rows[0][0]
    picture = OpenPicture(source, where, folder.read(where, "path", name))
    for place, row in rows:
        _add(picture, place, row, form, tally)
    return picture


def _add(picture: OpenPicture, where: str, row: Mapping[str, Any], form: BoxForm, tally: Tally) -> None:
    label, category = text_of(where, row, "entity"), optional_text(where, row, "category")
    if row.get("box") is not None:
        picture.add(label, row["box"], form, "box", tally, category=category)
    else:
        picture.unclear.append(label)
