"""JSON lines for fine-tuning vision-language models: ``annotations.jsonl`` beside its pictures.

A line is ``{"image": name, "prefix": prompt, "suffix": answer}``. The model determines prompt and answer:

- ``jsonl-paligemma``: ``detect Merlin ; Hobby`` and ``<loc0102><loc0051><loc0512><loc0409> Merlin ; ...``, that is y1,
  x1, y2, x2 on a grid of 1024;
- ``jsonl-florence2``: ``<OD>`` and ``Merlin<loc_50><loc_99><loc_400><loc_500>...``, that is x1, y1, x2, y2 on a grid of
  1000;
- ``jsonl-qwen2.5-vl`` and ``jsonl-qwen3-vl``: Qwen's prompt for RefCOCO and
  ``[{"bbox_2d": [x1, y1, x2, y2], "label": "Merlin"}]``, in pixels and in 0-1000. The answer does not show which.
"""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from kvg.box_forms import BoxForm
from kvg.errors import DataError
from kvg.formats.exchange.base import ExchangeFormat, Keys, OpenPicture, PictureWriter, Source, check_boxes
from kvg.formats.exchange.picture import AnnotatedPicture, LabelledBox
from kvg.records import excerpt, json_lines, list_of, object_of, parse_json, text_of
from kvg.shards.reader import Tally
from kvg.text.prompts import prompt

_FILE: Final = "annotations.jsonl"
_PALIGEMMA = re.compile(r"<loc(\d{4})><loc(\d{4})><loc(\d{4})><loc(\d{4})>\s*([^<;]*)", re.ASCII)
_FLORENCE = re.compile(r"([^<]*)((?:<loc_\d{1,3}><loc_\d{1,3}><loc_\d{1,3}><loc_\d{1,3}>)+)", re.ASCII)
_FLORENCE_NUMBER = re.compile(r"<loc_(\d{1,3})>", re.ASCII)
_FENCE = re.compile(r"^\s*```(?:json)?\s*|\s*```\s*$")
_Written = tuple[str, list[float]]  # label, four numbers


class JSONLFormat(ExchangeFormat):
    """Base of the forms above: each says how it writes and reads the answer."""

    entries = (_FILE, "*.jpg", "*.png")
    has_fixed_unit = True
    left_out = "predictions, targets, categories, traits, rationales, splits and knowledge"

    def check(self, picture: AnnotatedPicture) -> None:
        """See ``ExchangeFormat``; a picture without boxes has nothing to learn."""
        super().check(picture)
        check_boxes(picture)

    def write(self, pictures: Iterable[AnnotatedPicture], folder: Path) -> int:
        """See ``ExchangeFormat``."""
        writer, num = PictureWriter(folder), 0
        with (folder / _FILE).open("w", encoding="utf-8") as stream:
            for picture in pictures:
                line = {"image": writer.write(picture), "prefix": self.prefix(picture)}
                line["suffix"] = self.suffix(picture)
                stream.write(json.dumps(line, ensure_ascii=False) + "\n")
                num += 1
        return num

    def read(self, source: Source, tally: Tally) -> Iterator[AnnotatedPicture]:
        """See ``ExchangeFormat``."""
        folder, keys = source.folder(), Keys()
        for number, text in source.counted(list(json_lines(source.path))):
            where = f"{source.path} line {number}"
            try:
                line = object_of(where, "line", parse_json(text, where))
                name, suffix = text_of(where, line, "image"), text_of(where, line, "suffix")
                picture = OpenPicture(source, where, folder.read(where, "image", name))
                written = self.boxes(where, suffix)
                if not written:
                    raise DataError(where, "suffix", f"{excerpt(suffix)} has no box of {self.name}; correct it")
                for label, numbers in written:
                    text_of(where, {"label": label}, "label")
                    picture.add(label.strip(), numbers, self.box_form, "suffix", tally)
                yield picture.annotated(keys.key(name))
            except DataError as error:
                tally.note(error)

    @abstractmethod
    def prefix(self, picture: AnnotatedPicture) -> str:
        """Returns the prompt."""

    @abstractmethod
    def suffix(self, picture: AnnotatedPicture) -> str:
        """Returns the answer."""

    @abstractmethod
    def boxes(self, where: str, suffix: str) -> list[_Written]:
        """Returns label and numbers of each box of an answer, in order."""


class TokenJSONL(JSONLFormat):
    """Base of the forms with location tokens, whose labels must not contain the marks around them."""

    def check(self, picture: AnnotatedPicture) -> None:
        """See ``ExchangeFormat``."""
        super().check(picture)
        for box in picture.boxes:
            _check_label(picture, box)


class PaliGemmaJSONL(TokenJSONL):
    """PaliGemma's location tokens. A number is rounded to 1/1024 of a side, so a box moves by up to half of that.

    The last token, 1023, stands for the last 1/1024 of a side and for its end: a box that ends there comes back smaller
    by 1/1024 of the side.
    """

    name = "jsonl-paligemma"
    box_form = BoxForm("unit")

    def prefix(self, picture: AnnotatedPicture) -> str:
        """See ``JSONLFormat``."""
        return "detect " + " ; ".join(dict.fromkeys(box.label for box in picture.boxes))

    def suffix(self, picture: AnnotatedPicture) -> str:
        """See ``JSONLFormat``."""
        return " ; ".join(self._text(picture, box) for box in picture.boxes)

    def boxes(self, where: str, suffix: str) -> list[_Written]:
        """See ``JSONLFormat``."""
        matches = _PALIGEMMA.finditer(suffix)
        return [(match[5].strip(), [int(match[group]) / 1024 for group in (2, 1, 4, 3)]) for match in matches]

    def _text(self, picture: AnnotatedPicture, box: LabelledBox) -> str:
        sides = (picture.width, picture.height) * 2
        bins = [round(v * 1024 / side) for v, side in zip(box.box_px, sides, strict=True)]
        x1, y1, x2, y2 = _pairs(bins, (1023, 1023))
        return "".join(f"<loc{value:04d}>" for value in (y1, x1, y2, x2)) + f" {box.label}"


class FlorenceJSONL(TokenJSONL):
    """Florence-2's location tokens. A token stands for 1/1000 of a side and is read as its middle, as Florence-2 does.

    So a number moves by up to half of 1/1000 of a side.
    """

    name = "jsonl-florence2"
    box_form = BoxForm("relative_1000")

    def prefix(self, picture: AnnotatedPicture) -> str:
        """See ``JSONLFormat``."""
        return "<OD>"

    def suffix(self, picture: AnnotatedPicture) -> str:
        """See ``JSONLFormat``."""
        return "".join(self._text(picture, box) for box in picture.boxes)

    def boxes(self, where: str, suffix: str) -> list[_Written]:
        """See ``JSONLFormat``; several boxes may follow one label."""
        boxes: list[_Written] = []
        for match in _FLORENCE.finditer(suffix):
            values = [int(value) + 0.5 for value in _FLORENCE_NUMBER.findall(match[2])]
            boxes += [(match[1].strip(), values[first : first + 4]) for first in range(0, len(values), 4)]
        return boxes

    def _text(self, picture: AnnotatedPicture, box: LabelledBox) -> str:
        sides = (picture.width, picture.height) * 2
        bins = [int(v * 1000 / side) for v, side in zip(box.box_px, sides, strict=True)]
        return box.label + "".join(f"<loc_{value}>" for value in _pairs(bins, (999, 999)))


class QwenJSONL(JSONLFormat):
    """Base of Qwen's JSON, which the models write with integers. Both forms look alike; they differ in the unit."""

    def prefix(self, picture: AnnotatedPicture) -> str:
        """See ``JSONLFormat``."""
        return prompt(", ".join(dict.fromkeys(box.label for box in picture.boxes)), "qwen")

    def suffix(self, picture: AnnotatedPicture) -> str:
        """See ``JSONLFormat``."""
        is_grid = self.box_form.unit == "relative_1000"
        sides = picture.width, picture.height
        last = (1000, 1000) if is_grid else sides
        units = [limit / side for limit, side in zip(last, sides, strict=True)] * 2
        entries = []
        for box in picture.boxes:
            numbers = [round(v * unit) for v, unit in zip(box.box_px, units, strict=True)]
            entries.append({"bbox_2d": _pairs(numbers, last), "label": box.label})
        return json.dumps(entries, ensure_ascii=False)

    def boxes(self, where: str, suffix: str) -> list[_Written]:
        """See ``JSONLFormat``; a list or one object, with or without a code fence."""
        value: Any = parse_json(_FENCE.sub("", suffix), where)
        entries = [object_of(where, "suffix", entry) for entry in (value if isinstance(value, list) else [value])]
        return [(text_of(where, entry, "label"), list_of(where, "bbox_2d", entry.get("bbox_2d"))) for entry in entries]


class Qwen25JSONL(QwenJSONL):
    """Qwen2.5-VL: pixels of the picture in the file. A program that resizes the picture has to scale them, too."""

    name = "jsonl-qwen2.5-vl"
    box_form = BoxForm("pixels")


class Qwen3JSONL(QwenJSONL):
    """Qwen3-VL: 0-1000 over width and height."""

    name = "jsonl-qwen3-vl"
    box_form = BoxForm("relative_1000")


def _check_label(picture: AnnotatedPicture, box: LabelledBox) -> None:
    if set(box.label) & set("<>;"):
        remedy = f"{excerpt(box.label)} contains <, > or ;, which separate boxes; rename it"
        raise DataError(picture.key, "label", remedy)


def _pairs(numbers: Sequence[int], last: Sequence[int]) -> list[int]:
    """Keeps an extent of at least 1 on both axes, so that a box never becomes degenerate.

    >>> _pairs([7, 1023, 7, 1024], [1023] * 2)
    [7, 1022, 8, 1023]
    """
    pairs = []
    for low, high, limit in zip(numbers[:2], numbers[2:], last, strict=True):
        first = min(low, limit - 1)
        pairs.append((first, min(max(high, first + 1), limit)))
    return [*(low for low, _ in pairs), *(high for _, high in pairs)]
