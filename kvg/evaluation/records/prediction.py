"""One answered question: a line of ``predictions.jsonl``, ours or anybody's.

A line is a JSON object. It needs ``answer`` (the model's text) and what would have been right: ``gt_bbox``, a list of
boxes on the 0-1000 grid over the picture, or ``options`` and ``right`` for a question of several choices. All boxes of
a line stand on that grid, whatever the backbone writes; `kvg-data score --box-unit` brings others there. Everything
else is optional::

    key, set             name of the question, unique within its set; without one the number of the line
    question_id          of the published benchmark
    category, split, knowledge, entity, mode
    box, parser          as read by `kvg-data score`; without ``parser`` the answer is read by the strict one
    codec, size          how boxes stand in the answer: relative (default) or absolute, then with [width, height,
                         resized width, resized height] in pixels
    objects, target      [{"entity", "box", "note"}] of the picture, and which one is asked for
    image                checksum of the picture: cases that share one are not independent of each other
    num_tokens, finish_reason
    description          first turn of the mode `describe`
    artifact, strength   how the picture was disturbed
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from kvg.errors import DataError
from kvg.evaluation.records.fields import box_of, boxes_of, name_field, text_field, whole_number
from kvg.evaluation.records.scoring import Score, score
from kvg.records import excerpt, is_utf8, list_of, parse_json
from kvg.types import Box

PREDICTIONS: Final = "predictions.jsonl"


@dataclass(frozen=True)
class NamedBox:
    """An object of the picture, its box on the 0-1000 grid; ``note`` are its looks in words, in the lab."""

    entity: str
    box: Box
    note: str = ""


@dataclass(frozen=True)
class Prediction:
    """One line of ``predictions.jsonl`` with its verdict. Boxes stand on the 0-1000 grid.

    Attributes:
        key: unique within ``set``.
        answer: the model's text.
        targets: true boxes, any of which is right; empty for a question of several choices.
        box: the box in the answer; None where none can be read.
        iou: best overlap with the true boxes; 0 without a box, and for a question of several choices.
        correct: the verdict.
        image: checksum of the picture.
        target: index of the object that is asked for.
        artifact: kind of the corruption; '' for a picture as it is.
        strength: of the corruption; 0 for a picture as it is.
        options: names to choose from; empty where a box is asked for.
        right: index of the right option.
        chosen: index of the option in the answer; None where none can be read.
        num_tokens: length of the answer; None where it is not known.
        finish_reason: ``stop`` or ``length``; '' where it is not known.
        description: the model's first turn, in the mode ``describe``.
        parser: that has read the box, as the line says; '' for the strict one.
        pattern: 1-based number of that parser's pattern; 0 where none matches, None where the line does not say.
        raw: the line as it was read.
    """

    key: str
    answer: str
    targets: tuple[Box, ...]
    box: Box | None
    iou: float
    correct: bool
    set: str = ""
    category: str = ""
    split: str = ""
    knowledge: str = ""
    entity: str = ""
    mode: str = ""
    image: str = ""
    objects: tuple[NamedBox, ...] = ()
    target: int = 0
    artifact: str = ""
    strength: int = 0
    options: tuple[str, ...] = ()
    right: int = 0
    chosen: int | None = None
    num_tokens: int | None = None
    finish_reason: str = ""
    description: str = ""
    parser: str = ""
    pattern: int | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_score(cls, record: Mapping[str, Any], verdict: Score, where: str, number: int = 0) -> Prediction:
        """A prediction with what figures need: the verdict and the groups, but no texts and no objects.

        Args:
            record: the line; other fields may hold anything.
            verdict: of its answer.
            where: file and line, for messages.
            number: of the line; its name where it has none.

        Raises:
            DataError: a field is wrong.
        """
        words: dict[str, Any] = {
            name: text_field(record, name, where) for name in ("set", "category", "split", "artifact", "parser")
        }
        image = record.get("image")
        return cls(
            key=name_field(record, where)[0] or f"line {number}",
            answer="",
            targets=(),
            box=verdict.box,
            iou=verdict.iou,
            correct=verdict.correct,
            image=image if isinstance(image, str) else "",
            strength=whole_number(record, "strength", where) or 0,
            options=tuple(record.get("options", ())),
            chosen=verdict.chosen,
            pattern=whole_number(record, "pattern", where),
            **words,
        )

    @classmethod
    def from_line(cls, record: Mapping[str, Any], where: str, number: int = 0) -> Prediction:
        """A prediction from its line, judged by the box that the line gives, or else by the strict parser.

        Args:
            record: the line.
            where: file and line, for messages.
            number: of the line; its name where it has none.

        Raises:
            DataError: a field is missing or wrong.
        """
        check_utf8(record, where)
        prediction = cls.from_score(record, score(record, where, parser=None), where, number)
        text_field(record, "codec", where)
        names = ("knowledge", "entity", "mode", "image", "finish_reason", "description")
        words: dict[str, Any] = {name: text_field(record, name, where) for name in names}
        objects = _objects(record, where)
        target = whole_number(record, "target", where) or 0
        if objects and target >= len(objects):
            raise DataError(where, "target", f"{target} is not an index into {len(objects)} objects")
        return replace(
            prediction,
            answer=record["answer"],
            targets=() if prediction.is_choice else tuple(boxes_of(record["gt_bbox"], where, "gt_bbox")),
            objects=objects,
            target=target if objects else 0,
            right=record["right"] if prediction.is_choice else 0,
            num_tokens=whole_number(record, "num_tokens", where),
            raw=record,
            **words,
        )

    def to_line(self) -> dict[str, Any]:
        """The line as it was read, with the verdict in it."""
        if self.is_choice:
            return {**self.raw, "chosen": self.chosen, "correct": self.correct}
        box = None if self.box is None else list(self.box)
        return {**self.raw, "box": box, "iou": self.iou, "correct": self.correct}

    @property
    def id(self) -> str:
        """Set, key and corruption: the same for the same question in another run."""
        corruption = f"@{self.artifact}-{self.strength}" if self.artifact else ""
        return f"{self.set}/{self.key}{corruption}"

    @property
    def is_choice(self) -> bool:
        """Whether the question gives options to choose from, instead of asking for a box."""
        return bool(self.options)

    @property
    def answered(self) -> bool:
        """Whether a box, or an option, could be read."""
        if self.is_choice:
            return self.chosen is not None
        # The published parsers say (0, 0, 0, 0) where no pattern of theirs matches.
        return self.box is not None and not (self.parser and self.pattern == 0)


def read_predictions(run: str | Path) -> list[Prediction]:
    """Reads the answers of a run, and reads boxes from them where that has not been done.

    Args:
        run: a file of such lines, or the folder with ``predictions.jsonl``.

    Returns:
        In the order of the file.

    Raises:
        DataError: there is no such file, it is empty, a line is wrong, or a question comes twice.
    """
    path = Path(run)
    path = path / PREDICTIONS if path.is_dir() else path
    cases: list[Prediction] = []
    lines: dict[str, int] = {}
    for number, record in read_lines(path):
        where = f"{path} line {number}"
        case = Prediction.from_line(record, where, number)
        if case.id in lines:
            remedy = f"'{case.key}' stands in line {lines[case.id]} already; give each question once"
            raise DataError(where, "key", remedy)
        lines[case.id] = number
        cases.append(case)
    return cases


def read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and object of each line.

    Raises:
        DataError: the file is missing, holds nothing, or a line is no JSON object.
    """
    try:
        stream = path.open("rb")
    except OSError as error:
        remedy = f"cannot be read ({error.strerror}); run `kvg predict` first, or correct the path"
        raise DataError(str(path), "predictions", remedy) from error
    num = 0
    with stream:
        for number, raw in enumerate(stream, 1):
            where = f"{path} line {number}"
            line = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
            if not line.strip():
                continue
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path} line {number}", "json", f"cannot be read ({error}); save it as UTF-8"
                ) from error
            record = parse_json(text, f"{path} line {number}")
            if not isinstance(record, dict):
                raise DataError(where, "json", 'is no object; write {"answer": ..., ...}')
            num += 1
            yield number, record
    if not num:
        raise DataError(str(path), "lines", "there are none; an empty file has no score")


def check_utf8(record: Mapping[str, Any], where: str) -> None:
    """Checks that all texts of a line can be written: JSON can hold half a surrogate pair, and UTF-8 cannot.

    Raises:
        DataError: one cannot.
    """
    for name, value in record.items():
        try:
            text = json.dumps({name: value}, ensure_ascii=False)
        except RecursionError as error:
            raise DataError(where, excerpt(name), "is nested too deeply; correct it") from error
        if not is_utf8(text):
            raise DataError(where, excerpt(name), "holds half a surrogate pair; correct it")


def _objects(record: Mapping[str, Any], where: str) -> tuple[NamedBox, ...]:
    objects = record.get("objects")
    if objects is None:
        return ()
    return tuple(_named(raw, where, number) for number, raw in enumerate(list_of(where, "objects", objects)))


def _named(raw: Any, where: str, index: int) -> NamedBox:
    if not isinstance(raw, Mapping) or not isinstance(raw.get("entity"), str):
        raise DataError(where, f"objects[{index}]", "must be an object with entity and box")
    box = box_of(raw.get("box"), where, f"objects[{index}].box")
    return NamedBox(raw["entity"], box, text_field(raw, "note", f"{where} objects[{index}]"))
