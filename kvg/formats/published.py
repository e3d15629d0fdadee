"""What the published formats share: how names, boxes, images and rationales stand in them.

All of them write boxes on the 0-1000 grid of Qwen2-VL. They name no object but the one asked for, so the other objects
of a scene are those whose boxes the rationale quotes, without names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from kvg.errors import DataError
from kvg.lab.traits import UNSEEN_CATEGORIES
from kvg.pictures import standard_picture
from kvg.shards.reader import Tally
from kvg.shards.schema import check_sample
from kvg.text.box_codec import GRID, BoxCodec, ImageSize, RelativeCodec, written_box
from kvg.text.completion import parse_completion
from kvg.text.prompts import REF_END, REF_START, fill_boxes
from kvg.types import Box, Sample, SceneObject

CODEC: Final[BoxCodec] = RelativeCodec()

_TAGGED_NAME = re.compile(re.escape(REF_START) + r"\s*(.+?)\s*" + re.escape(REF_END), re.DOTALL)
_PLAIN_NAME = re.compile(r"bounding box of:?\s+(.+?)(?:  |\.\s|\.?$|, output its|\n)")
_BOX = re.compile(r"(?:<\|box_start\|>)?\(\s*\d+\s*,\s*\d+\s*\)\s*,\s*\(\s*\d+\s*,\s*\d+\s*\)(?:<\|box_end\|>)?")
_NOT_IN_KEYS = re.compile(r"[^A-Za-z0-9_-]+")


def image_size(width: int, height: int) -> ImageSize:
    """The size of an image that nobody resizes."""
    return ImageSize(width, height, width, height)


def entity_name(*texts: str) -> str:
    """The entity asked for: between the reference tags, else after "bounding box of"; '' where there is none.

    >>> entity_name("Find and give the bounding box of <|object_ref_start|>Merlin<|object_ref_end|>")
    'Merlin'
    >>> entity_name("Find and give the bounding box of Boeing 737-800  Output the thinking process")
    'Boeing 737-800'
    """
    for pattern in (_TAGGED_NAME, _PLAIN_NAME):
        for text in texts:
            if found := pattern.search(text):
                return found[1].strip()
    return ""


def split_of(category: str) -> str:
    """``unseen`` for the categories that the paper keeps out of training, else ``seen``."""
    return "unseen" if category in UNSEEN_CATEGORIES else "seen"


def safe_key(text: str) -> str:
    """A text as a key: letters, digits, dashes and underscores.

    >>> safe_key("bird/0012.jpg")
    'bird-0012-jpg'
    """
    return _NOT_IN_KEYS.sub("-", text).strip("-")


def make_sample(
    where: str, key: str, category: str, image: bytes, question: str, answer: str, provenance: Mapping[str, Any]
) -> Sample:
    """Builds a sample from the texts of a published record.

    Args:
        where: file and record, for messages.
        key: of the sample.
        category: of its entity.
        image: any format that Pillow reads; what is neither JPEG nor PNG is stored as PNG.
        question: holds the entity's name.
        answer: a box, bare or with rationale and tags around it.
        provenance: of the sample.

    Raises:
        DataError: no name, no box, a box outside its image, or an image that cannot be read.
    """
    image, width, height = standard_picture(image, where)
    name = entity_name(question, answer)
    if not name:
        raise DataError(where, "question", f"{question[:80]!r} names no entity; put it between reference tags")
    parsed = parse_completion(answer)
    target = _box_px(where, parsed.answer, width, height)
    _check_on_grid(where, parsed.answer)
    boxes: list[Box] = []

    def placeholder(match: re.Match[str]) -> str:
        box = _box_px(where, match[0], width, height)
        if box not in boxes:
            boxes.append(box)
        return f"<box:{boxes.index(box)}>"

    rationale = _BOX.sub(placeholder, parsed.rationale)
    if target not in boxes:
        boxes.append(target)
    sample = Sample(
        key=key,
        image=image,
        width=width,
        height=height,
        category=category,
        split=split_of(category),
        objects=tuple(SceneObject(name if box == target else "", box) for box in boxes),
        target=boxes.index(target),
        rationale=rationale,
        provenance=provenance,
    )
    check_sample(sample, where)
    return sample


def answer_text(sample: Sample) -> str:
    """The published answer: reference tags, then the box on the 0-1000 grid."""
    box = CODEC.encode(sample.box_px, image_size(sample.width, sample.height))
    return f"{REF_START}{sample.entity}{REF_END}{box}"


def completion_text(sample: Sample) -> str:
    """Rationale and answer in their tags, boxes on the 0-1000 grid; the answer alone where there is no rationale."""
    if not sample.rationale:
        return answer_text(sample)
    size = image_size(sample.width, sample.height)
    rationale = fill_boxes(sample.rationale, [CODEC.encode(o.box_px, size) for o in sample.objects])
    return f"<think>{rationale}</think><answer>{answer_text(sample)}</answer>"


def good_samples(
    rows: Iterable[tuple[int, Any]], build: Callable[[int, Any], Sample], tally: Tally | None
) -> Iterator[tuple[int, Sample]]:
    """Builds samples from rows, passing over the bad ones.

    Args:
        rows: (position, record).
        build: makes a ``Sample`` of (position, record), or raises ``DataError``.
        tally: where to count.
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


def raw_image(where: str, value: Any) -> bytes:
    """Bytes of an image column, which holds bytes or ``{"bytes": ...}``.

    Raises:
        DataError: it holds neither.
    """
    if isinstance(value, Mapping):
        value = value.get("bytes")
    if not isinstance(value, bytes):
        raise DataError(where, "image", "holds no bytes; embed the file's content")
    return value


def category_of_file(path: Path, *prefixes: str) -> str:
    """Category in a file name such as ``cot-sft-bird.json``; the whole stem where no prefix fits.

    >>> category_of_file(Path("data/cot-sft-bird.json"), "cot-sft-")
    'bird'
    """
    for prefix in prefixes:
        if path.stem.startswith(prefix) and len(path.stem) > len(prefix):
            return path.stem[len(prefix) :]
    return path.stem


def _box_px(where: str, text: str, width: int, height: int) -> Box:
    box = CODEC.decode(text, image_size(width, height))
    if box is None:
        raise DataError(where, "answer", f"{text[:80]!r} holds no box; write it as (x1,y1),(x2,y2) on a 0-1000 grid")
    return box


def _check_on_grid(where: str, text: str) -> None:
    """A true box off the grid would be clamped when it is read, and another one would be right."""
    if not all(0 <= v <= GRID for v in written_box(text) or ()):
        raise DataError(where, "answer", f"{text[:80]!r} lies off the 0-{GRID} grid; give relative coordinates")
