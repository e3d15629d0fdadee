"""Writes pictures with boxes in an exchange format, as corrections of a catalogue, or as predictions."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, TextIO

from kvg.catalogue.corrections import Correction
from kvg.errors import ConfigError, DataError
from kvg.evaluation.records.question import Question
from kvg.formats.exchange.base import ExchangeFormat
from kvg.formats.exchange.picture import AnnotatedPicture, LabelledBox
from kvg.formats.exchange.registry import FORMATS
from kvg.formats.exchange.samples import SampleMaker, only_target, with_target
from kvg.pipeline.exchange_sources import Input
from kvg.records import object_of
from kvg.text.box_codec import ImageSize, RelativeCodec, to_norm
from kvg.text.names import clean_name
from kvg.types import Box, Sample
from kvg.work.files import disk_errors

CORRECTIONS_FORM, PREDICTIONS_FORM = "corrections", "predictions"
TARGETS: Final = (*FORMATS, CORRECTIONS_FORM, PREDICTIONS_FORM)
_SAME: Final = 0.01  # pixels; boxes that differ less were not corrected
_DIGITS: Final = 4  # of a coordinate on the 0-1000 grid


def write_set(source: Input, out: Path, form: str, *, target_only: bool = False, overwrite: bool = False) -> int:
    """Writes pictures to a folder in an exchange format.

    The set is written beside ``out`` and gets its name when it is complete.

    Args:
        source: what to read.
        out: the folder.
        form: a key of ``FORMATS``.
        target_only: whether each picture gets only the box that its question asks for.
        overwrite: whether a set of the same format is replaced.

    Returns:
        Number of pictures.

    Raises:
        ConfigError: the folder has a set and ``overwrite`` is off, or has other files.
        DataError: nothing could be read, or the disk cannot be written.
    """
    exchange = FORMATS[form]
    _check_folder(exchange, out, overwrite)
    partial = out.with_name(f"{out.name}.partial")
    pictures = _writable(source, exchange, target_only)
    with disk_errors(out.parent):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            num = exchange.write(pictures, partial)
            if not num:
                raise DataError(str(source.path), "pictures", "none could be read; see the messages above")
            if out.exists():
                shutil.rmtree(out)
            os.replace(partial, out)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return num


def write_corrections(source: Input, out: Path, overwrite: bool = False) -> int:
    """Writes the boxes that differ from those of the catalogue, see ``kvg.catalogue.corrections``.

    Args:
        source: pictures that were exported from a catalogue, and edited.
        out: a ``.jsonl`` file.
        overwrite: whether an existing file is replaced.

    Returns:
        Number of corrections; 0 is possible.

    Raises:
        ConfigError: the name of the file does not fit, or it exists already.
        DataError: no picture could be read, or the disk cannot be written.
    """

    def write(stream: TextIO) -> int:
        num_read = num = 0
        for picture in source.annotated():
            num_read += 1
            try:
                correction = _correction(picture)
            except DataError as error:
                source.tally.note(error)
                continue
            if correction is not None:
                stream.write(correction.line() + "\n")
                num += 1
        _check_num(num_read, source)
        return num

    return _write_lines(out, overwrite, write)


def write_predictions(source: Input, out: Path, overwrite: bool = False) -> int:
    """Writes predicted boxes as lines of ``predictions.jsonl``.

    The answer of a question is the box with the highest score that has the entity's label, on the 0-1000 grid. Without
    such a box the answer is empty, which counts as unparsed. Pictures whose true box nobody knows keep their question.

    Args:
        source: pictures with predictions, and true boxes as far as they are known.
        out: a ``.jsonl`` file.
        overwrite: whether an existing file is replaced.

    Returns:
        Number of lines.

    Raises:
        ConfigError: the name of the file does not fit, or it exists already.
        DataError: no picture could be read, or the disk cannot be written.
    """

    def write(stream: TextIO) -> int:
        maker, num, keys = SampleMaker(source.category, source.tally, boxless=True), 0, set[str]()
        for picture in source.annotated():
            for sample in maker.samples(picture):
                if sample.key in keys:
                    source.tally.note(DataError(sample.key, "key", "occurs twice; make keys unique"))
                    continue
                keys.add(sample.key)
                stream.write(json.dumps(_line(sample, picture.predictions), ensure_ascii=False) + "\n")
                num += 1
        _check_num(num, source)
        return num

    return _write_lines(out, overwrite, write)


def _check_folder(exchange: ExchangeFormat, out: Path, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise ConfigError("out", f"{out} is a file; name a folder for {exchange.name}")
    names = [path.relative_to(out) for path in out.iterdir()] if out.is_dir() else []
    foreign = sorted(str(name) for name in names if not any(name.match(entry) for entry in exchange.entries))
    if foreign:
        remedy = f"{out} has {foreign[0]}, which is no part of {exchange.name}; choose another folder"
        raise ConfigError("out", remedy)
    if names and not overwrite:
        raise ConfigError("out", f"{out} already exists; choose another name or allow overwriting")


def _writable(source: Input, exchange: ExchangeFormat, target_only: bool) -> Iterator[AnnotatedPicture]:
    keys: set[str] = set()
    for read in source.annotated():
        try:
            picture = only_target(with_target(read) if read.target is None else read) if target_only else read
            exchange.check(picture)
            if picture.key in keys:
                raise DataError(picture.key, "key", "occurs twice; make keys unique")
        except DataError as error:
            source.tally.note(error)
            continue
        keys.add(picture.key)
        yield picture


def _write_lines(out: Path, overwrite: bool, write: Callable[[TextIO], int]) -> int:
    """Writes a file, all or nothing."""
    if out.suffix != ".jsonl":
        raise ConfigError("out", f"{out} should end in .jsonl")
    if out.is_dir() or (out.exists() and not overwrite):
        raise ConfigError("out", f"{out} already exists; choose another name or allow overwriting")
    partial = out.with_name(f"{out.name}.partial")
    with disk_errors(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("w", encoding="utf-8") as stream:
                num = write(stream)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(partial, out)
        finally:
            partial.unlink(missing_ok=True)
    return num


def _check_num(num: int, source: Input) -> None:
    if not num:
        raise DataError(str(source.path), "pictures", "none could be read; see the messages above")


def _correction(picture: AnnotatedPicture) -> Correction | None:
    """Returns the correction of a picture; None if its box was not changed.

    Raises:
        DataError: it does not come from a catalogue, its label was changed, or there are several boxes.
    """
    facts = picture.facts.get("catalogue")
    if facts is None:
        remedy = "is missing: the picture was not exported from a catalogue (--from catalogue); convert to a listing"
        raise DataError(picture.key, "catalogue", remedy)
    record = object_of(picture.key, "catalogue", facts)
    texts = [record.get(name) for name in ("source", "ref", "sha256", "entity")]
    if not all(isinstance(text, str) and text for text in texts):
        raise DataError(picture.key, "catalogue", "lacks source, ref, sha256 or entity; export the catalogue again")
    source, ref, sha256, entity = map(str, texts)
    if picture.unclear:
        raise DataError(picture.key, "boxes", "has a box that cannot be read; correct it")
    boxes = [box for box in picture.boxes if clean_name(box.label) == entity]
    if len(boxes) != len(picture.boxes) or len(boxes) > 1:
        labels = ", ".join(sorted({box.label for box in picture.boxes}))
        remedy = f"holds {len(picture.boxes)} boxes ({labels}); give one box of '{entity}', change names in the source"
        raise DataError(picture.key, "label", remedy)
    box = boxes[0].box_px if boxes else None
    return None if _same(box, record.get("box_px")) else Correction(source, ref, sha256, entity, box)


def _same(box: Box | None, before: object) -> bool:
    if box is None or not isinstance(before, list) or len(before) != 4:
        return box is None and before is None
    return all(isinstance(b, int | float) and abs(a - b) < _SAME for a, b in zip(box, before, strict=True))


def _line(sample: Sample, predictions: Iterable[LabelledBox]) -> dict[str, object]:
    size = ImageSize(sample.width, sample.height, sample.width, sample.height)
    own = [box for box in predictions if clean_name(box.label) == sample.entity]
    best = max(own, key=lambda box: 1.0 if box.score is None else box.score, default=None)
    answer = ""
    if best is not None:
        x1, y1, x2, y2 = (f"{value:.{_DIGITS}f}".rstrip("0").rstrip(".") for value in to_norm(best.box_px, size))
        answer = f"({x1},{y1}),({x2},{y2})"
    return Question(sample).line(answer, "direct", RelativeCodec(), size)
