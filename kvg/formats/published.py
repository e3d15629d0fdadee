"""Code that the published formats share: names, boxes, images and rationales of their records.

All published files write boxes on the 0-1000 grid of Qwen2-VL. A user's file in the same format may have another unit,
which is declared (``kvg.formats.written_boxes``). The formats name only the target. So the other objects of a scene are
those whose boxes the rationale quotes, and they have no names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from kvg.benchmark import split_of
from kvg.box_forms import pixel_frame
from kvg.errors import DataError
from kvg.formats.written_boxes import BoxReader, Reading
from kvg.pictures import standard_picture
from kvg.records import excerpt
from kvg.shards.reader import Tally
from kvg.shards.schema import check_sample
from kvg.text.box_codec import BoxCodec, ImageSize, RelativeCodec
from kvg.text.box_refs import PLACEHOLDER
from kvg.text.completion import parse_completion
from kvg.text.prompts import REF_END, REF_START, fill_boxes
from kvg.text.question_names import name_in_question
from kvg.text.special_tokens import PICTURE_PLACEHOLDERS, check_prompt
from kvg.types import Sample, SceneObject

CODEC: Final[BoxCodec] = RelativeCodec()

_NOT_IN_KEYS = re.compile(r"[^A-Za-z0-9_-]+")


def image_size(width: int, height: int) -> ImageSize:
    """Returns the size of an image that is not resized."""
    return ImageSize(width, height, width, height)


def safe_key(text: str) -> str:
    """Converts a text to a key of letters, digits, dashes and underscores.

    >>> safe_key("bird/0012.jpg")
    'bird-0012-jpg'
    """
    return _NOT_IN_KEYS.sub("-", text).strip("-")


def make_sample(
    where: str,
    key: str,
    category: str,
    image: bytes,
    question: str,
    answer: str,
    provenance: Mapping[str, Any],
    reading: Reading,
) -> Sample:
    """Builds a sample from the texts of a published record.

    Args:
        where: file and record, for messages.
        key: key of the sample.
        category: category of its entity.
        image: a file that Pillow reads; it is stored upright, as JPEG or PNG.
        question: text that contains the entity's name.
        answer: text with a box, alone or with rationale and tags.
        provenance: provenance of the sample.
        reading: declared unit and frame of the file's boxes.

    Raises:
        DataError: there is no name or no box, the unit of a box is unknown, a box lies outside its image, the image
            cannot be read, or a text contains control tokens.
    """
    stored, width, height = standard_picture(image, where)
    boxes = BoxReader(where, reading, pixel_frame(image, where, reading.boxes_of))
    _check_texts(where, question, answer)
    name = name_in_question(question, answer)
    if not name:
        raise DataError(where, "question", f"{excerpt(question)} names no entity; put it between reference tags")
    parsed = parse_completion(answer)
    target = boxes.only_box(parsed.answer, "answer")
    rationale, quoted = boxes.with_placeholders(parsed.rationale, "rationale")
    if target not in quoted:
        quoted.append(target)
    sample = Sample(
        key=key,
        image=stored,
        width=width,
        height=height,
        category=category,
        split=split_of(category),
        objects=tuple(SceneObject(name if box == target else "", box) for box in quoted),
        target=quoted.index(target),
        rationale=rationale,
        provenance=provenance,
    )
    check_sample(sample, where)
    return sample


def _check_texts(where: str, question: str, answer: str) -> None:
    num = sum(map(question.count, PICTURE_PLACEHOLDERS))
    if num > 1 or question.count(PICTURE_PLACEHOLDERS[0]) != num:
        raise DataError(
            where, "question", f"{excerpt(question)} has {num} placeholders of pictures or films; ask about one picture"
        )
    if sum(map(answer.count, PICTURE_PLACEHOLDERS)):
        raise DataError(where, "answer", f"{excerpt(answer)} contains a placeholder of a picture; remove it")
    if PLACEHOLDER.search(answer):
        raise DataError(
            where, "answer", f"{excerpt(answer)} contains <box:N>, which is for shards only; write the box itself"
        )
    check_prompt(question, where, "question")
    check_prompt(parse_completion(answer).answer, where, "answer")


def answer_text(sample: Sample) -> str:
    """Returns the published answer: the name in reference tags, then the box on the 0-1000 grid."""
    box = CODEC.encode(sample.box_px, image_size(sample.width, sample.height))
    return f"{REF_START}{sample.entity}{REF_END}{box}"


def completion_text(sample: Sample) -> str:
    """Returns rationale and answer in their tags, boxes on the 0-1000 grid; without a rationale, only the answer."""
    if not sample.rationale:
        return answer_text(sample)
    size = image_size(sample.width, sample.height)
    rationale = fill_boxes(sample.rationale, [CODEC.encode(o.box_px, size) for o in sample.objects])
    return f"<think>{rationale}</think><answer>{answer_text(sample)}</answer>"


def good_samples(
    rows: Iterable[tuple[int, Any]], build: Callable[[int, Any], Sample], tally: Tally | None
) -> Iterator[tuple[int, Sample]]:
    """Builds samples from rows; skips and counts bad rows.

    Args:
        rows: pairs of position and record.
        build: converts position and record to a sample, or raises ``DataError``.
        tally: counts good and bad samples.
    """
    tally = Tally() if tally is None else tally
    for position, row in rows:
        try:
            sample = build(position, row)
        except DataError as error:
            tally.note(error)
            continue
        tally.num_read += 1
        yield position, sample


def raw_image(where: str, value: Any, field: str = "image") -> bytes:
    """Returns the bytes of an image column, whose value is bytes or ``{"bytes": ...}``.

    Raises:
        DataError: the value is neither.
    """
    if isinstance(value, Mapping):
        value = value.get("bytes")
    if not isinstance(value, bytes) or not value:
        raise DataError(where, field, "contains no bytes; embed the file's content")
    return value


def category_of_file(path: Path, *prefixes: str) -> str:
    """Returns the category in a file name such as ``cot-sft-bird.json``; the whole stem if no prefix matches.

    >>> category_of_file(Path("data/cot-sft-bird.json"), "cot-sft-")
    'bird'
    """
    for prefix in prefixes:
        if path.stem.startswith(prefix) and len(path.stem) > len(prefix):
            return path.stem[len(prefix) :]
    return path.stem
