"""Sources that are lists of pictures in CSV, JSON or JSON lines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from kvg.box_forms import BoxesOf, BoxForm, BoxFormat, BoxUnit
from kvg.catalogue.coco import Coco
from kvg.catalogue.listing import BoxRules, FileSource, Listed, Listing, Remark, Unusable
from kvg.catalogue.parquet import Parquet
from kvg.catalogue.several import NamedObject, split_objects
from kvg.errors import ConfigError, DataError
from kvg.records import (
    SUFFIXES,
    SURPLUS,
    csv_rows,
    excerpt,
    json_lines,
    numbered,
    object_of,
    optional_text,
    parse_json,
    read_json,
    text_of,
)

__all__ = ["Coco", "Parquet", "Table"]  # project files name all three by this module

_TEXTS: Final = ("path", "entity", "category", "part", "licence")
_CORNERS: Final = ("x1", "y1", "x2", "y2")
_SIDES: Final = {"xyxy": _CORNERS, "xywh": ("x", "y", "width", "height"), "cxcywh": ("cx", "cy", "width", "height")}
_LIKE_BOXES: Final = frozenset(
    {
        "bbox", "boxes", "bounding_box", "gt_bbox", "xmin", "ymin", "xmax", "ymax", "x_min", "y_min", "x_max", "y_max",
        "x", "y", "w", "h", "cx", "cy", "left", "top", "right", "bottom", "bbox_x", "bbox_y", "bbox_w", "bbox_h",
    }
)  # fmt: skip


class Table(FileSource):
    """A list with one object per row: ``path``, ``entity``, ``category``, and optional ``box``, ``part``, ``licence``.

    A row that cannot be used is left out and reported. Rows with the same picture and different boxes are its objects,
    see ``several``.

    Args:
        path: a ``.csv`` with a header, a ``.json`` list of objects, or ``.jsonl``. A box is four numbers in the column
            ``box``, or four columns: ``x1``, ``y1``, ``x2``, ``y2``, or, for the other values of ``box_format``, ``x``,
            ``y``, ``width``, ``height`` or ``cx``, ``cy``, ``width``, ``height``. In all columns the order is that of
            ``box_format``.
        root: folder that paths are relative to; by default the folder of the list.
        columns: ``{name here: name in the list}`` of columns with other names.
        category: category of all rows if the list has no such column.
        box_unit: ``pixels``, ``relative_1000`` (0-1000 over width and height) or ``unit`` (0-1).
        box_format: ``xyxy`` (two corners), ``xywh`` (corner, width, height) or ``cxcywh`` (centre, width, height).
        boxes_of: ``upright`` or ``raw``, see ``BoxRules``.
        several: ``crop`` or ``reject``, see ``BoxRules``.
        margin: see ``BoxRules``.
        max_overlap: see ``BoxRules``.

    Raises:
        ConfigError: a setting is outside its range.
        DataError: the list or the folder is missing.
    """

    def __init__(
        self,
        path: str | Path,
        root: str | Path | None = None,
        columns: Mapping[str, str] | None = None,
        category: str = "",
        box_unit: BoxUnit = "pixels",
        box_format: BoxFormat = "xyxy",
        boxes_of: BoxesOf = "upright",
        several: Literal["crop", "reject"] = "crop",
        margin: float = 0.15,
        max_overlap: float = 0.2,
    ) -> None:
        self.path = Path(path)
        super().__init__(root if root is not None else self.path.parent)
        self.rules = BoxRules(BoxForm(box_unit, box_format), boxes_of, several, margin, max_overlap)
        self.columns, self.category = dict(columns or {}), category
        known = {*_TEXTS, "box", *_CORNERS, *_SIDES[box_format]}
        for ours in self.columns:
            if ours not in known:
                raise ConfigError("columns", f"'{ours}' is none of ours, which are {', '.join(sorted(known))}")
        if not self.path.is_file():
            raise DataError(str(self.path), "list", "is missing; correct the path")
        if self.path.suffix.lower() not in SUFFIXES:
            raise DataError(str(self.path), "list", f"is none of {', '.join(SUFFIXES)}; save it as one of them")

    def listings(self) -> Iterator[Listed]:
        """See ``PictureSource``."""
        rows = list(self._rows())
        listed = [row if isinstance(row, Unusable) else self._listed(*row) for row in rows]
        several = self._several(v for v in listed if isinstance(v, Listing))
        for value in listed:
            if isinstance(value, Unusable) or value.ref not in several:
                yield value
            elif several[value.ref]:
                yield from split_objects(several[value.ref])
                several[value.ref] = []  # all objects of a picture are listed with its first row
        yield from self._remarks([row for row in rows if not isinstance(row, Unusable)], listed)

    def _rows(self) -> Iterator[tuple[str, Mapping[str, Any]] | Unusable]:
        """Yields the position of each row and its values."""
        if self.path.suffix.lower() == ".csv":
            for number, (where, row) in enumerate(csv_rows(self.path)):
                if not number:
                    self._check_columns(row)
                if SURPLUS in row:
                    reason = f"has {len(row[SURPLUS])} cells more than the header; quote cells that hold commas"
                    yield Unusable(where, "row", reason)
                else:
                    yield where, row
            return
        if self.path.suffix.lower() == ".jsonl":
            yield from self._json_lines()
            return
        rows = read_json(self.path)
        if not isinstance(rows, list):
            raise DataError(str(self.path), "list", "is not a list of objects; write one object a picture")
        yield from (self._object(where, value) for where, value in numbered(self.path, rows))

    def _json_lines(self) -> Iterator[tuple[str, Mapping[str, Any]] | Unusable]:
        fault: DataError | None = None
        num_read = 0
        for number, line in json_lines(self.path):
            where = f"{self.path} line {number}"
            try:
                value = parse_json(line, where)
            except DataError as error:
                fault = fault or error
                yield Unusable(where, error.field, error.remedy)
            else:
                num_read += 1
                yield self._object(where, value)
        if fault and not num_read:
            raise fault

    def _object(self, where: str, value: Any) -> tuple[str, Mapping[str, Any]] | Unusable:
        try:
            return where, object_of(where, "row", value)
        except DataError as error:
            return Unusable(where, error.field, error.remedy)

    def _check_columns(self, row: Mapping[str, Any]) -> None:
        needed = {
            self.columns.get(name, name) for name in ("path", "entity", *(() if self.category else ("category",)))
        }
        missing = sorted((needed | set(self.columns.values())) - row.keys())
        if missing:
            columns = ", ".join(excerpt(name, 40) for name in list(row)[:12])
            remedy = (
                f"its first line holds {columns}; write a header, name other columns in `columns`, or give `category`"
            )
            raise DataError(str(self.path), "header", f"has no column {', '.join(map(repr, missing))}; {remedy}")

    def _listed(self, where: str, row: Mapping[str, Any]) -> Listing | Unusable:
        ours = {name: row.get(self.columns.get(name, name)) for name in (*_TEXTS, "box")}
        ref = where
        try:
            ref = text_of(where, ours, "path")
            entity = text_of(where, ours, "entity")
            texts = {name: optional_text(where, ours, name) for name in ("category", "part", "licence")}
            category = texts["category"] or self.category or text_of(where, texts, "category")
            box = self._box(where, row, ours["box"])
            if box is not None:
                self.rules.form.numbers(box, where, "box")
        except DataError as error:
            place = "" if ref == where else f" ({where})"
            return Unusable(ref, error.field, f"{error.remedy}{place}")
        return Listing(ref, entity, category, box, texts["part"], texts["licence"], self.rules)

    def _box(self, where: str, row: Mapping[str, Any], box: Any) -> Any:
        """Returns the box of a row as it is written; None if there is none."""
        if isinstance(box, str) and box.strip().startswith("["):  # a JSON list in one cell of a CSV
            return parse_json(box, where)
        if box not in (None, ""):
            return box
        for names in (_CORNERS, _SIDES[self.rules.form.format]):
            sides = [row.get(self.columns.get(name, name)) for name in names]
            if any(side not in (None, "") for side in sides):
                return sides
        return None

    def _several(self, listings: Iterator[Listing]) -> dict[str, list[NamedObject]]:
        """Returns the objects of each picture that has several different boxes."""
        by_picture: dict[str, list[Listing]] = defaultdict(list)
        for listing in listings:
            by_picture[listing.ref].append(listing)
        return {
            ref: [NamedObject(str(number), listing) for number, listing in enumerate(picture_listings, start=1)]
            for ref, picture_listings in by_picture.items()
            if len({str(listing.box) for listing in picture_listings if listing.box is not None}) > 1
        }

    def _remarks(
        self, rows: Sequence[tuple[str, Mapping[str, Any]]], listed: Sequence[Listing | Unusable]
    ) -> Iterator[Remark]:
        """Reports an empty list, and columns that look like boxes if no box was read."""
        if not listed:
            yield Remark(f"{self.path} holds no row")
        if not rows or any(isinstance(value, Unusable) or value.box is not None for value in listed):
            return
        known = {self.columns.get(name, name) for name in _TEXTS}
        ignored = [name for name in rows[0][1] if str(name).lower() in _LIKE_BOXES - known]
        if ignored:
            names = ", ".join(map(str, ignored))
            yield Remark(f"{self.path}: {names} look like boxes and are not read; see `columns` and `box_format`")
