"""One answered question: a line of ``predictions.jsonl``, of this project or another one.

A line is a JSON object. It needs ``answer`` (the model's text) and the ground truth: ``gt_bbox``, a list of boxes on
the 0-1000 grid of the picture (null: not known), or ``options`` and ``right`` for a multiple-choice question. All
boxes of a line are on that grid, whatever the backbone writes; `kvg-data score --box-unit` converts others. Everything
else is optional::

    key, set             name of the question, unique within its set; without one the number of the line
    question_id          of the published benchmark
    category, split, knowledge, entity, mode
    box, parser          as read by `kvg-data score`; without ``parser`` the strict parser reads the answer
    codec, size          box convention of the answer: relative (default) or absolute, then with [width, height,
                         resized width, resized height] in pixels
    objects, target      [{"entity", "box", "note"}] of the picture, and the index of the target
    image                checksum of the picture: cases on one picture are not independent
    num_tokens, finish_reason
    description          first turn of the mode `describe`
    artifact, strength   corruption of the picture
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kvg.errors import DataError
from kvg.evaluation.records.fields import box_of, boxes_of, name_field, text_field, whole_number
from kvg.evaluation.records.scoring import Score, score
from kvg.records import excerpt, is_utf8, list_of, parse_json
from kvg.runs.folder import PREDICTIONS
from kvg.types import Box

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NamedBox:
    """An object of the picture with its box on the 0-1000 grid; ``note`` holds its traits as text, in the lab."""

    entity: str
    box: Box
    note: str = ""


@dataclass(frozen=True)
class Prediction:
    """One line of ``predictions.jsonl`` with its verdict. Boxes are on the 0-1000 grid.

    Attributes:
        key: unique within ``set``.
        answer: the model's text.
        targets: true boxes, any of which counts; empty for a multiple-choice question.
        box: the box in the answer; None if it is unparsed.
        iou: highest IoU with the true boxes; 0 without a box, and for a multiple-choice question.
        correct: the verdict.
        image: checksum of the picture.
        target: index of the target in ``objects``.
        artifact: kind of the corruption; '' for a clean picture.
        strength: of the corruption; 0 for a clean picture.
        options: names to choose from; empty for a box question.
        right: index of the correct option.
        chosen: index of the option in the answer; None if it is unparsed.
        num_tokens: length of the answer; None if unknown.
        finish_reason: ``stop`` or ``length``; '' if unknown.
        description: the model's first turn, in mode ``describe``.
        parser: the parser that read the box, as given in the line; '' for the strict one.
        pattern: 1-based number of that parser's pattern; 0 if none matched, None if the line does not give it.
        has_truth: whether the true box, or the right option, is known; without it nothing can be measured.
        raw: the line as read.
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
    has_truth: bool = True
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_score(cls, record: Mapping[str, Any], verdict: Score, where: str, number: int = 0) -> Prediction:
        """A prediction with the fields that figures need: verdict and groups, but no texts and no objects.

        Args:
            record: the line; other fields are not checked.
            verdict: of its answer.
            where: file and line, for messages.
            number: of the line; used as its name if it has none.

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
            has_truth="options" in record or record.get("gt_bbox") is not None,
            **words,
        )

    @classmethod
    def from_line(cls, record: Mapping[str, Any], where: str, number: int = 0) -> Prediction:
        """A prediction from its line, scored with the line's own box, or else by the strict parser.

        Args:
            record: the line.
            where: file and line, for messages.
            number: of the line; used as its name if it has none.

        Raises:
            DataError: a field is missing or wrong.
        """
        check_utf8(record, where)
        prediction = cls.from_score(record, score(record, where, parser=None), where, number)
        text_field(record, "codec", where)
        names = ("knowledge", "entity", "mode", "image", "finish_reason", "description")
        words: dict[str, Any] = {name: text_field(record, name, where) for name in names}
        objects, asks_box = _objects(record, where), not prediction.is_choice
        target = whole_number(record, "target", where) or 0
        if objects and target >= len(objects):
            raise DataError(where, "target", f"{target} is not an index into {len(objects)} objects")
        return replace(
            prediction,
            answer=record["answer"],
            targets=tuple(boxes_of(record["gt_bbox"], where, "gt_bbox")) if asks_box and prediction.has_truth else (),
            objects=objects,
            target=target if objects else 0,
            right=record["right"] if prediction.is_choice else 0,
            num_tokens=whole_number(record, "num_tokens", where),
            raw=record,
            **words,
        )

    def to_line(self) -> dict[str, Any]:
        """The line as read, with the verdict added."""
        if self.is_choice:
            return {**self.raw, "chosen": self.chosen, "correct": self.correct}
        box = None if self.box is None else list(self.box)
        return {**self.raw, "box": box, "iou": self.iou, "correct": self.correct}

    @property
    def id(self) -> str:
        """Set, key and corruption: equal for the same question in different runs."""
        corruption = f"@{self.artifact}-{self.strength}" if self.artifact else ""
        return f"{self.set}/{self.key}{corruption}"

    @property
    def is_choice(self) -> bool:
        """Whether this is a multiple-choice question; otherwise it is a box question."""
        return bool(self.options)

    @property
    def answered(self) -> bool:
        """Whether a box, or an option, was read from the answer."""
        if self.is_choice:
            return self.chosen is not None
        # The published parsers return (0, 0, 0, 0) if no pattern matches.
        return self.box is not None and not (self.parser and self.pattern == 0)


def read_predictions(run: str | Path) -> list[Prediction]:
    """Reads the predictions of a run; parses boxes where a line has none.

    Args:
        run: a file of lines, or the folder with ``predictions.jsonl``.

    Returns:
        Predictions in the order of the file.

    Raises:
        DataError: there is no such file, it is empty, a line is wrong, or a question occurs twice.
    """
    path = Path(run)
    path = path / PREDICTIONS if path.is_dir() else path
    cases: list[Prediction] = []
    lines: dict[str, int] = {}
    for number, record in read_lines(path):
        where = f"{path} line {number}"
        case = Prediction.from_line(record, where, number)
        if case.id in lines:
            remedy = f"'{case.key}' is already in line {lines[case.id]}; give each question once"
            raise DataError(where, "key", remedy)
        lines[case.id] = number
        cases.append(case)
    return cases


def with_truth(cases: Sequence[Prediction], run: str | Path) -> list[Prediction]:
    """The cases that can be measured; says how many others there are.

    Args:
        cases: of the run.
        run: its path, for messages.

    Raises:
        DataError: no case can be measured.
    """
    known = [case for case in cases if case.has_truth]
    if not known:
        raise DataError(str(run), "gt_bbox", "is null in all lines; without a true box nothing can be measured")
    if len(known) < len(cases):
        log.warning(
            "%s: %d of %d answers have no true box; they are left out", run, len(cases) - len(known), len(cases)
        )
    return known


def read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and object of each line.

    Raises:
        DataError: the file is missing or empty, or a line is not a JSON object.
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
                raise DataError(where, "json", 'is not an object; write {"answer": ..., ...}')
            num += 1
            yield number, record
    if not num:
        raise DataError(str(path), "lines", "the file has no lines; run `kvg predict` first")


def num_lines(path: Path) -> int | None:
    """Number of lines that are not blank, for a progress bar; None if the file cannot be read."""
    try:
        with path.open("rb") as stream:
            return sum(1 for line in stream if line.strip())
    except OSError:
        return None  # ``read_lines`` says why


def check_utf8(record: Mapping[str, Any], where: str) -> None:
    """Checks that all texts of a line can be encoded as UTF-8: JSON can hold half a surrogate pair, UTF-8 cannot.

    Raises:
        DataError: a text cannot be encoded.
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
