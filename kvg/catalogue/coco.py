"""Pictures of COCO annotations, object by object."""

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
    """COCO annotations. The entity is the annotation's category, our category its ``supercategory``.

    An annotation, image or category that cannot be used is left out by its id, and the rest is kept; crowds
    (``iscrowd``) are no objects. Ids are compared as they are read: 1 and "1" are one id.

    Args:
        path: the JSON.
        root: folder that ``file_name`` is relative to.
        supercategories: ``{supercategory: category}``, the only ones that are taken; None for all.
        part: that these pictures belong to.
        category: of what has no supercategory.
        box_unit: of ``bbox``; COCO's own is ``pixels``.
        box_format: of ``bbox``; COCO's own is ``xywh``.
        boxes_of: ``upright`` or ``raw``, see ``BoxRules``.
        several: ``crop`` or ``reject``, see ``BoxRules``.
        margin: see ``BoxRules``.
        max_overlap: see ``BoxRules``.

    Raises:
        ConfigError: a setting cannot work.
        DataError: there is no such folder.
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
        passed: Counter[str] = Counter()
        for image_id, image in images.items():
            yield from self._of_image(image_id, image, of_image[image_id], kinds, licences, passed)
        if passed:
            names = ", ".join(f"{name or 'none'} {num}" for name, num in sorted(passed.items()))
            yield Remark(f"{where}: objects of supercategories that are not asked for: {names}")

    def _of_image(
        self,
        image_id: str,
        image: Mapping[str, Any],
        annotations: list[tuple[str, Mapping[str, Any]]],
        kinds: Mapping[str, Mapping[str, Any]],
        licences: Mapping[str, str],
        passed: Counter[str],
    ) -> Iterator[Listed]:
        """The objects of one image; counts those whose supercategory is not asked for."""
        where = f"{self.path} image {image_id}"
        try:
            ref = text_of(where, image, "file_name")
        except DataError as error:
            yield Unusable(where, error.field, error.remedy)
            return
        if not annotations:
            yield Unusable(ref, "annotations", "has none: nothing tells what is on it")
        objects, others = list[NamedObject](), list[Any]()
        licence = licences.get(id_of(image.get("license")) or "", "")
        for name, entry in annotations:
            box = entry.get("bbox")
            try:
                entity, category = self._names(entry, kinds)
                if box is not None or "bbox" in entry or "segmentation" in entry:
                    self.rules.form.numbers(box, where, "bbox")
                if self.supercategories is not None and category not in self.supercategories:
                    passed[category] += 1
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
        """Entity and supercategory of an annotation.

        Raises:
            DataError: it has none, or is no object.
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
    """An id as it is compared, of a whole number or a text; None for anything else.

    >>> id_of(1), id_of("1"), id_of(1.0), id_of(True), id_of("")
    ('1', '1', '1', None, None)
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    try:
        return str(value).strip() or None
    except ValueError:  # a number of thousands of digits
        return None


def _by_id(values: list[Any], kind: str, faults: list[Unusable], where: str) -> dict[str, Mapping[str, Any]]:
    """Entries by their ids; of those with one id, the first."""
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
    """Names of licences by their ids; what is damaged is as if it were not there."""
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
