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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from kvg.errors import DataError
from kvg.evaluation.records.fields import box_of, boxes_of, name_field, text_field, whole_number
from kvg.records import excerpt, is_utf8, list_of, parse_json
from kvg.types import Box

IOU_GATE: Final = 0.5  # an answer with at least this overlap is right (paper v3, section 5.1)
PREDICTIONS: Final = "predictions.jsonl"


@dataclass(frozen=True)
class NamedBox:
    """An object of the picture, its box on the 0-1000 grid; ``note`` are its looks in words, in the lab."""

    entity: str
    box: Box
    note: str = ""


@dataclass(frozen=True)
class Case:
    """An answered question with its verdict. Boxes stand on the 0-1000 grid.

    Attributes:
        key: unique within ``set``.
        answer: the model's text.
        truth: boxes, any of which is right; empty for a question of several choices.
        box: that was read from the answer; None where none could be.
        iou: best overlap with the truth; 0 without a box, and for a question of several choices.
        correct: the verdict.
        facts: the whole line.
    """

    key: str
    answer: str
    truth: tuple[Box, ...]
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
    facts: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def id(self) -> str:
        """Key and set: what the same question is called in another run; a disturbed picture makes it another one."""
        disturbed = f"@{self.artifact}-{self.strength}" if self.artifact else ""
        return f"{self.set}/{self.key}{disturbed}"

    @property
    def is_choice(self) -> bool:
        """Whether an option was to be chosen instead of a box to be given."""
        return "options" in self.facts

    @property
    def answered(self) -> bool:
        """Whether a box, or an option, could be read."""
        if self.is_choice:
            return self.facts.get("chosen") is not None
        # The published parsers say (0, 0, 0, 0) where no pattern of theirs hits.
        return self.box is not None and not (self.facts.get("parser") and self.facts.get("pattern") == 0)

    @property
    def artifact(self) -> str:
        """How the picture was disturbed; '' where it was not."""
        return str(self.facts.get("artifact") or "")

    @property
    def strength(self) -> int:
        """How much it was; 0 where it was not."""
        return int(self.facts.get("strength") or 0)

    @property
    def num_tokens(self) -> int | None:
        """Length of the answer; None where it is not known."""
        found = self.facts.get("num_tokens")
        return None if found is None else int(found)


def read_cases(run: str | Path) -> list[Case]:
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
    cases: list[Case] = []
    lines: dict[str, int] = {}
    for number, record in read_lines(path):
        where = f"{path} line {number}"
        case = case_of(record, where, number)
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


def case_of(record: Mapping[str, Any], where: str, number: int = 0) -> Case:
    """Makes a case of a line.

    Args:
        record: the line.
        where: file and line, for messages.
        number: of the line; its name where it has none.

    Raises:
        DataError: a field is missing or wrong.
    """
    from kvg.evaluation.records.scoring import score  # which needs the gate of this file

    check_utf8(record, where)
    scored = score(record, where, parser=None)
    names = ("set", "category", "split", "knowledge", "entity", "mode", "image")
    words = {name: text_field(record, name, where) for name in names}
    for name in ("artifact", "finish_reason", "description", "parser", "codec"):
        text_field(record, name, where)
    for name in ("num_tokens", "strength", "pattern"):
        whole_number(record, name, where)
    objects = _objects(record, where)
    target = whole_number(record, "target", where) or 0
    if objects and target >= len(objects):
        raise DataError(where, "target", f"{target} is not an index into {len(objects)} objects")
    return Case(
        key=name_field(record, where)[0] or f"line {number}",
        answer=record["answer"],
        truth=tuple(boxes_of(record["gt_bbox"], where, "gt_bbox")) if "options" not in record else (),
        box=scored.box,
        iou=scored.iou,
        correct=scored.correct,
        objects=objects,
        target=target if objects else 0,
        facts={**record, **({"chosen": scored.chosen} if "options" in record else {})},
        **words,
    )


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
