"""The schema of shards, version 1: a sample is ``KEY.json`` and ``KEY.jpg`` or ``KEY.png``.

``KEY.json`` contains::

    schema_version  1
    key             unique within the set; no dot, no slash, since WebDataset splits member names at the first dot
    width, height   of the image, in pixels
    category        such as "bird"
    split           "seen" or "unseen"
    knowledge       "known", "unknown" or ""
    entity          name of the target; the same as objects[target].entity, for readers of the plain JSON
    target          index into objects
    objects         [{"entity", "box_px": [x1, y1, x2, y2] in pixels of the image, "note"}], in reading order
    rationale       template; "<box:N>" stands for the box of object N; "" if there is no rationale yet
    provenance      optional {"options": [name], "licences": [name], "question_id": text, "pair": text}, and free
                    fields: seed, index, layout, source ...

A new optional field does not change the version; a new meaning of a field does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from kvg.errors import DataError
from kvg.pictures import check_complete, picture_size, read_picture
from kvg.records import excerpt, is_utf8, number_of
from kvg.text.box_refs import PLACEHOLDER
from kvg.text.special_tokens import check_plain, check_rationale
from kvg.types import Box, Sample, SceneObject, traits_of

SCHEMA_VERSION: Final = 1
SPLITS: Final = ("seen", "unseen")
KNOWLEDGE: Final = ("known", "unknown", "")
IMAGES: Final = ("jpg", "png", "jpeg")  # extensions of the member with the image

_WORDS: Final = ("question_id", "pair")  # fields of a sample that the provenance holds as one text each
_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_KEY = re.compile(r"[^./\\\s]+")
_TYPE_NAMES: Final[dict[Any, str]] = {str: "text", int: "a whole number", list: "a list", dict: "an object"}


def encode_record(sample: Sample) -> dict[str, bytes]:
    """Encodes a sample as the members of a tar.

    Returns:
        ``{"json": ..., "jpg" or "png": ...}`` by extension.

    Raises:
        DataError: the sample does not conform to the schema.
    """
    check_sample(sample, "sample")
    check_has_box(sample)
    record = {
        "schema_version": SCHEMA_VERSION,
        "key": sample.key,
        "width": sample.width,
        "height": sample.height,
        "category": sample.category,
        "split": sample.split,
        "knowledge": sample.knowledge,
        "entity": sample.entity,
        "target": sample.target,
        "objects": [{"entity": o.entity, "box_px": list(o.box_px), "note": o.description} for o in sample.objects],
        "rationale": sample.rationale,
        "provenance": full_provenance(sample),
    }
    try:
        text = json.dumps(record, ensure_ascii=False, sort_keys=True).encode("utf-8")
    except (ValueError, TypeError, RecursionError) as error:
        remedy = f"cannot be written as JSON ({error}); correct it"
        raise DataError(f"sample {sample.key}", "provenance", remedy) from error
    return {"json": text, image_extension(sample.image): sample.image}


def full_provenance(sample: Sample) -> dict[str, Any]:
    """Returns the provenance with the typed fields that are not empty, as shards contain it."""
    typed = {"options": list(sample.options), "licences": list(sample.licences)}
    typed |= {name: getattr(sample, name) for name in _WORDS}
    return {**sample.provenance, **{name: value for name, value in typed.items() if value}}


def decode_record(where: str, key: str, members: Mapping[str, bytes]) -> Sample:
    """Decodes the members of a tar to a sample.

    Args:
        where: name of the shard, for messages.
        key: name of the members before the first dot.
        members: contents by extension.

    Raises:
        DataError: a member or field is missing or wrong, or the image is cut off.
    """
    where = f"{where} sample {key}"
    if "json" not in members:
        raise DataError(where, "json", "is missing; write the shard again")
    image = next((members[ext] for ext in IMAGES if ext in members), None)
    if image is None:
        raise DataError(where, "image", "has neither .jpg nor .png; write the shard again")
    try:
        record = json.loads(members["json"])
    except (ValueError, RecursionError) as error:
        raise DataError(where, "json", f"cannot be read ({error}); write the shard again") from error
    if not isinstance(record, dict):
        raise DataError(where, "json", "must be an object")
    version = _field(where, record, "schema_version", int)
    if version != SCHEMA_VERSION:
        raise DataError(where, "schema_version", f"is {version}, this program reads {SCHEMA_VERSION}; convert the set")
    provenance = dict(_field(where, record, "provenance", dict))
    options, licences = (_names(where, provenance, name) for name in ("options", "licences"))
    words = {name: provenance.pop(name, "") for name in _WORDS}
    for name, word in words.items():
        _require(isinstance(word, str), where, f"provenance.{name}", f"{excerpt(word)} must be text")
    objects = [_object(where, i, raw) for i, raw in enumerate(_field(where, record, "objects", list))]
    sample = Sample(
        key=_field(where, record, "key", str),
        image=image,
        width=_field(where, record, "width", int),
        height=_field(where, record, "height", int),
        category=_field(where, record, "category", str),
        split=_field(where, record, "split", str),
        objects=tuple(objects),
        target=_field(where, record, "target", int),
        rationale=_field(where, record, "rationale", str),
        knowledge=_field(where, record, "knowledge", str),
        options=options,
        licences=licences,
        **words,
        provenance=provenance,
    )
    check_sample(sample, where)
    return sample


def check_sample(sample: Sample, where: str) -> None:
    """Checks a sample against the schema, without decoding the pixels.

    Raises:
        DataError: a field is wrong.
    """
    where = where if sample.key in where else f"{where} {sample.key}"
    _require(_KEY.fullmatch(sample.key), where, "key", f"{excerpt(sample.key)} must have no dot, slash or space")
    _require(sample.category, where, "category", "is empty; name the category")
    _require(sample.split in SPLITS, where, "split", f"{excerpt(sample.split)} is none of {SPLITS}")
    _require(sample.knowledge in KNOWLEDGE, where, "knowledge", f"{excerpt(sample.knowledge)} is none of {KNOWLEDGE}")
    _require(sample.objects, where, "objects", "is empty; a sample needs at least its target")
    inside = 0 <= sample.target < len(sample.objects)
    _require(inside, where, "target", f"{sample.target} is not an index into {len(sample.objects)} objects")
    _require(sample.entity, where, "entity", "of the target is empty; name it")
    for i, scene_object in enumerate(sample.objects):
        check_box(scene_object.box_px, sample.width, sample.height, where, f"objects[{i}].box_px")
    typed = sorted({"options", "licences", *_WORDS} & sample.provenance.keys())
    _require(not typed, where, "provenance", f"{', '.join(typed)}: give the field of the sample instead")
    _check_texts(sample, where)
    for match in PLACEHOLDER.finditer(sample.rationale):
        known = len(match[1]) < 10 and int(match[1]) < len(sample.objects)
        _require(known, where, "rationale", f"{match[0]} does not stand for an object; there are {len(sample.objects)}")
    check_image(sample, where)


def _check_texts(sample: Sample, where: str) -> None:
    """Checks all texts that can reach a model, see ``kvg.text.special_tokens``."""
    names = [("category", sample.category)]
    for i, scene_object in enumerate(sample.objects):
        names += [(f"objects[{i}].entity", scene_object.entity), (f"objects[{i}].note", scene_object.description)]
    names += [("provenance.options", option) for option in sample.options]
    for field, text in (*names, ("rationale", sample.rationale)):
        _require(is_utf8(text), where, field, f"{excerpt(text)} holds half a surrogate pair; correct it")
    for field, text in names:
        check_plain(text, where, field)
    check_rationale(sample.rationale, where, "rationale")


def check_has_box(sample: Sample) -> None:
    """Checks that a sample has a true box.

    Raises:
        DataError: it has none.
    """
    remedy = "is missing: `kvg predict` and `kvg ground` answer such a row, all else needs its true box"
    _require(sample.has_box, f"sample {sample.key}", "bbox", remedy)


def check_box(box_px: Box, width: int, height: int, where: str, field: str) -> None:
    """Checks that a box lies inside its image and is not degenerate.

    Raises:
        DataError: the box is wrong.
    """
    x1, y1, x2, y2 = box_px
    if max(map(abs, box_px)) <= 1 and max(width, height) > 1:
        raise DataError(
            where, field, f"{list(box_px)} lies in 0-1; give pixels, or declare box_unit for the file it comes from"
        )
    if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
        remedy = f"{list(box_px)} does not lie inside the {width}x{height} image; give x1 < x2, y1 < y2 in its pixels"
        raise DataError(where, field, remedy)


def check_image(sample: Sample, where: str, *, decode: bool = False) -> None:
    """Checks format, size and completeness of an image. If its end mark is at its end, it need not be decoded.

    Raises:
        DataError: the image is not JPEG or PNG, is cut off, or has another size than the record.
    """
    image_extension(sample.image, where)
    check_complete(sample.image, where)
    size = read_picture(sample.image, where).size if decode else picture_size(sample.image, where)
    if size != (sample.width, sample.height):
        raise DataError(where, "width", f"the image is {size[0]}x{size[1]}, not {sample.width}x{sample.height}")


def image_extension(image: bytes, where: str = "sample") -> str:
    """Returns ``jpg`` or ``png``, by the first bytes.

    Raises:
        DataError: the image is neither.
    """
    if image.startswith(_JPEG):
        return "jpg"
    if image.startswith(_PNG):
        return "png"
    raise DataError(where, "image", "is neither JPEG nor PNG; convert it")


def _object(where: str, index: int, raw: Any) -> SceneObject:
    if not isinstance(raw, dict):
        raise DataError(where, f"objects[{index}]", "must be an object with entity, box_px and note")
    box = _field(where, raw, "box_px", list, f"objects[{index}].")
    numbers = [None if isinstance(value, str) else number_of(value) for value in box]
    if len(numbers) != 4 or None in numbers:
        raise DataError(where, f"objects[{index}].box_px", f"{excerpt(box)} is not four numbers x1, y1, x2, y2")
    x1, y1, x2, y2 = (value for value in numbers if value is not None)
    entity = _field(where, raw, "entity", str, f"objects[{index}].")
    return SceneObject(entity, (x1, y1, x2, y2), traits_of(_field(where, raw, "note", str, f"objects[{index}].")))


def _names(where: str, provenance: dict[str, Any], name: str) -> tuple[str, ...]:
    """Removes a list of names from the provenance and returns it; empty if there is none."""
    names = provenance.pop(name, [])
    good = isinstance(names, list) and all(isinstance(value, str) for value in names)
    _require(good, where, f"provenance.{name}", f"{excerpt(names)} must be a list of names")
    return tuple(names)


def _field(where: str, record: Mapping[str, Any], name: str, kind: type, prefix: str = "") -> Any:
    if name not in record:
        raise DataError(where, prefix + name, "is missing; add it, or write the shard again")
    value = record[name]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise DataError(where, prefix + name, f"{excerpt(value)} must be {_TYPE_NAMES[kind]}")
    return value


def _require(condition: object, where: str, field: str, remedy: str) -> None:
    if not condition:
        raise DataError(where, field, remedy)
