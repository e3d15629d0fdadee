"""Lists the objects of COCO annotations."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from kvg.box_forms import BoxesOf, BoxForm, BoxFormat, BoxUnit
from kvg.catalogue.listing import BoxRules, FileSource, Listed, Listing, Remark, Unusable
from kvg.catalogue.several import NamedObject, split_objects
from kvg.errors import DataError
from kvg.records import excerpt, list_of, number_of, object_of, optional_text, read_json, text_of


class Coco(FileSource):
    """COCO annotations. The entity is the annotation's category; the category is its ``supercategory``.

    Annotations, images and categories that cannot be used are left out and reported by id. Crowds (``iscrowd``) are not
    objects. The ids 1 and "1" are equal.

    Args:
        path: JSON file of the annotations.
        root: folder that ``file_name`` is relative to.
        supercategories: ``{supercategory: category}``; other supercategories are left out. None keeps all.
        part: part of the published set that these pictures belong to.
        category: category of objects without a supercategory.
        box_unit: unit of ``bbox``; ``pixels`` in COCO itself.
        box_format: format of ``bbox``; ``xywh`` in COCO itself.
        boxes_of: ``upright`` or ``raw``, see ``BoxRules``.
        several: ``crop`` or ``reject``, see ``BoxRules``.
        margin: see ``BoxRules``.
        max_overlap: see ``BoxRules``.

    Raises:
        ConfigError: a setting is outside its range.
        DataError: the folder does not exist.
    """

    def __init__(
        self,
        path: str | Path,
        root: str | Path,
        supercategories: Mapping[str, str] | None = None,
        part: str = "",
        category: str = "",
        box_unit: BoxUnit = "pixels",
        box_format: BoxFormat = "xywh",
        boxes_of: BoxesOf = "upright",
        several: Literal["crop", "reject"] = "crop",
        margin: float = 0.15,
        max_overlap: float = 0.2,
    ) -> None:
        super().__init__(root)
        self.path, self.part, self.category = Path(path), part, category
        self.supercategories = dict(supercategories) if supercategories is not None else None
        self.rules = BoxRules(BoxForm(box_unit, box_format), boxes_of, several, margin, max_overlap)

    def listings(self) -> Iterator[Listed]:
        """See ``PictureSource``."""
        where = str(self.path)
        record = object_of(where, "annotations", read_json(self.path))
        parts = {name: list_of(where, name, record.get(name)) for name in ("images", "annotations", "categories")}
        faults: list[Unusable] = []
        kinds = _by_id(parts["categories"], "category", faults, where)
        images = _by_id(parts["images"], "image", faults, where)
        licences = _licences(record.get("licenses"))
        of_image: dict[str, list[tuple[str, Mapping[str, Any]]]] = defaultdict(list)
        for number, value in enumerate(parts["annotations"]):
            try:
                entry = object_of(where, "annotation", value)
                image_id = id_of(entry.get("image_id"))
                if image_id not in images:
                    raise DataError(where, "image_id", f"{excerpt(entry.get('image_id'))} is no image of the list")
                of_image[image_id].append((id_of(entry.get("id")) or f"at {number}", entry))
            except DataError as error:
                faults.append(Unusable(f"{where} {_named('annotation', value, number)}", error.field, error.remedy))
        yield from faults
        skipped: Counter[str] = Counter()
        for image_id, image in images.items():
            yield from self._of_image(image_id, image, of_image[image_id], kinds, licences, skipped)
        if skipped:
            names = ", ".join(f"{name or 'none'} {num}" for name, num in sorted(skipped.items()))
            yield Remark(f"{where}: objects of supercategories that are not in `supercategories`: {names}")

    def _of_image(
        self,
        image_id: str,
        image: Mapping[str, Any],
        annotations: list[tuple[str, Mapping[str, Any]]],
        kinds: Mapping[str, Mapping[str, Any]],
        licences: Mapping[str, str],
        skipped: Counter[str],
    ) -> Iterator[Listed]:
        """Lists the objects of one image, and counts those of other supercategories in ``skipped``."""
        where = f"{self.path} image {image_id}"
        try:
            ref = text_of(where, image, "file_name")
        except DataError as error:
            yield Unusable(where, error.field, error.remedy)
            return
        if not annotations:
            yield Unusable(
                ref, "annotations", "has none, so its entity is unknown; add an annotation or remove the image"
            )
        objects, others = list[NamedObject](), list[Any]()
        licence = licences.get(id_of(image.get("license")) or "", "")
        for name, entry in annotations:
            box = entry.get("bbox")
            try:
                entity, category = self._names(entry, kinds)
                if box is not None or "bbox" in entry or "segmentation" in entry:
                    self.rules.form.numbers(box, where, "bbox")
                if self.supercategories is not None and category not in self.supercategories:
                    skipped[category] += 1
                    others.append(box)
                    continue
            except DataError as error:
                others.append(box if _is_box(self.rules.form, box) else None)
                yield Unusable(f"{ref}#{name}", error.field, f"{error.remedy} (annotation {name})")
                continue
            if self.supercategories is not None:
                category = self.supercategories[category]
            objects.append(NamedObject(name, Listing(ref, entity, category, box, self.part, licence, self.rules)))
        yield from split_objects(objects, others)

    def _names(self, entry: Mapping[str, Any], kinds: Mapping[str, Mapping[str, Any]]) -> tuple[str, str]:
        """Returns entity and supercategory of an annotation.

        Raises:
            DataError: it has no category, or is a crowd.
        """
        where = str(self.path)
        crowd = entry.get("iscrowd")
        if crowd is True or number_of(crowd) not in (None, 0.0):
            raise DataError(where, "iscrowd", "is a crowd, not one object")
        kind = kinds.get(id_of(entry.get("category_id")) or "")
        if kind is None:
            raise DataError(where, "category_id", f"{excerpt(entry.get('category_id'))} is no category of the list")
        return text_of(where, kind, "name"), optional_text(where, kind, "supercategory") or self.category


def id_of(value: Any) -> str | None:
    """Returns the text of an id that is a whole number or a text; None for anything else.

    >>> id_of(1), id_of("1"), id_of(1.0), id_of(True), id_of("")
    ('1', '1', '1', None, None)
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    try:
        return str(value).strip() or None
    except ValueError:  # Python refuses to convert numbers of thousands of digits
        return None


def _by_id(values: list[Any], kind: str, faults: list[Unusable], where: str) -> dict[str, Mapping[str, Any]]:
    """Returns entries by their ids. Of entries with the same id only the first is kept."""
    records: dict[str, Mapping[str, Any]] = {}
    for number, value in enumerate(values):
        key = id_of(value.get("id")) if isinstance(value, Mapping) else None
        reason = "is no object with an id" if key is None else f"{excerpt(key)} stands twice" if key in records else ""
        if reason or key is None:
            faults.append(Unusable(f"{where} {_named(kind, value, number)}", "id", f"{reason}; correct it"))
        else:
            records[key] = value
    return records


def _named(kind: str, value: Any, number: int) -> str:
    key = id_of(value.get("id")) if isinstance(value, Mapping) else None
    return f"{kind} at {number}" if key is None else f"{kind} {key}"


def _licences(values: Any) -> dict[str, str]:
    """Returns names of licences by their ids; damaged entries are left out."""
    licences: dict[str, str] = {}
    for value in values if isinstance(values, list) else ():
        if isinstance(value, Mapping) and (key := id_of(value.get("id"))):
            words = [value.get(name) for name in ("name", "url")]
            licences[key] = next((word for word in words if isinstance(word, str) and word), "")
    return licences


def _is_box(form: BoxForm, raw: Any) -> bool:
    try:
        form.numbers(raw, "", "")
    except DataError:
        return False
    return True
