"""``kvg ground``: one picture and a name, every picture of a folder and a name, or a list of pairs."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, TextIO

from kvg.backbones.find_family import find_family
from kvg.errors import ConfigError, DataError
from kvg.inference.local import LocalClient
from kvg.inference.request import Outcome, Request
from kvg.pictures import picture_size, read_rgb
from kvg.pipeline.ground_pairs import Pair, PairRequests, read_pairs
from kvg.pipeline.grounder import AUTO, MAX_NEW_TOKENS, Grounder, checked_entity, prompt_mode, read_grounding
from kvg.pipeline.grounding import MARK, Grounding, check_suffix, encoded_picture
from kvg.records import json_lines
from kvg.text.prompts import prompt
from kvg.work.cpu import prepare_cpu
from kvg.work.files import atomic_write, disk_errors
from kvg.work.job import Job

ANSWERS, SKIPPED, PICTURES, RECORD = "answers.jsonl", "skipped.jsonl", "pictures", "ground.json"
LIST: Final = ".jsonl"
_VERSION: Final = 1  # increased when the same settings give different files
_OWN_PICTURE = re.compile(r"\d{6}-.*" + re.escape(MARK) + r"\.\w+")
_MAX_REASONS: Final = 5
_JPEG: Final = b"\xff\xd8\xff"


@dataclass(frozen=True)
class GroundSettings:
    """Settings of the model, see ``kvg.pipeline.grounder.Grounder``; ``batch_size`` is that of a folder or a list."""

    checkpoint: str
    mode: str = AUTO
    max_new_tokens: int = MAX_NEW_TOKENS
    min_pixels: int | None = None
    max_pixels: int | None = None
    batch_size: int = 16

    def grounder(self) -> Grounder:
        """Loads the model for single pictures."""
        return Grounder(self.checkpoint, self.mode, self.max_new_tokens, self.min_pixels, self.max_pixels)

    def client(self) -> LocalClient:
        """The model for many pictures, which is loaded with the first request."""
        areas = {"min_pixels": self.min_pixels, "max_pixels": self.max_pixels}
        init = {"checkpoint": self.checkpoint, **{name: area for name, area in areas.items() if area is not None}}
        backbone = {"class_path": "kvg.backbones.backbone.Backbone", "init_args": init}
        return LocalClient(backbone, temperature=0.0, max_tokens=self.max_new_tokens, batch_size=self.batch_size)


@dataclass(frozen=True)
class GroundResult:
    """The result for a folder or a list.

    Attributes:
        out: its folder.
        records: one for each answer, as in ``answers.jsonl``.
        skipped: reasons why pairs were left out.
    """

    out: Path
    records: Sequence[Mapping[str, Any]]
    skipped: Sequence[str]

    def summary(self) -> str:
        """The numbers in words, in one or more lines."""
        num_boxes = sum(record["box_px"] is not None for record in self.records)
        num_cut = sum(record["finish_reason"] == "length" for record in self.records)
        lines = [f"{len(self.records)} answers: {num_boxes} with a box, {len(self.records) - num_boxes} without"]
        if num_cut:
            lines[0] += f"; {num_cut} were cut off, see --max-new-tokens"
        if self.skipped:
            lines.append(f"{len(self.skipped)} left out (all in {self.out / SKIPPED}):")
            lines += [f"  {reason}" for reason in self.skipped[:_MAX_REASONS]]
        return "\n".join([*lines, f"{self.out / ANSWERS}   {self.out / PICTURES}"])


# -- one picture ---------------------------------------------------------------------------------------------------
def ground_picture(path: Path, entity: str, out: Path | None, settings: GroundSettings, as_json: bool) -> None:
    """Prints text and box, and writes the picture with the box.

    Args:
        path: of the picture.
        entity: its name.
        out: file to write; None for one beside the picture.
        settings: of the model.
        as_json: print one line of JSON instead.

    Raises:
        ConfigError: a setting cannot work.
        DataError: the picture cannot be used, or the file cannot be written.
    """
    checked_entity(entity)
    prompt_mode(settings.checkpoint, settings.mode)
    _, data = encoded_picture(path)
    target = out or path.with_name(f"{path.stem}{MARK}{'.jpg' if data.startswith(_JPEG) else '.png'}")
    _check_target(path, check_suffix(target))
    _check_picture(settings, path, data)
    grounder = settings.grounder()
    backbone = grounder.backbone
    if backbone.device.type == "cpu":
        prepare_cpu(sum(one.numel() for one in backbone.parameters()))
    grounding = grounder.ground(path, entity, None if as_json else _print_text)
    saved = grounding.save(target) if grounding.box_px else None
    if as_json:
        print(json.dumps({**grounding.record(), "picture": str(saved) if saved else None}, ensure_ascii=False))
    else:
        print(f"\n\n{in_words(grounding)}")
        print(saved or "no box: no picture was written")


def in_words(grounding: Grounding) -> str:
    """The box in each convention, in lines."""
    head = f"{grounding.entity} in {grounding.image} ({grounding.width} x {grounding.height} pixels, upright)"
    if grounding.finish_reason == "length":
        head += "\nThe answer was cut off; --max-new-tokens allows longer ones"
    if grounding.box_px is None:
        return head
    record = grounding.record()
    rows = (("pixels", "box_px"), ("0-1", "box_unit"), ("0-1000", "box_norm"))
    lines = [f"  {name:<8}" + "  ".join(f"{value:g}" for value in record[key]) for name, key in rows]
    return "\n".join([head, *lines])


def _print_text(text: str) -> None:
    print(text, end="", flush=True)


def _check_picture(settings: GroundSettings, path: Path, data: bytes) -> None:
    """Finds what is wrong with checkpoint and picture before anything large is loaded."""
    find_family(settings.checkpoint)
    read_rgb(data, str(path))


def _check_target(source: Path, target: Path) -> None:
    if target.exists() and source.samefile(target):
        raise ConfigError("--out", f"'{target}' is the picture itself; name another file")
    folder = target.parent
    while not folder.exists() and folder.parent != folder:
        folder = folder.parent
    if target.is_dir() or not os.access(folder, os.W_OK):
        raise ConfigError("--out", f"'{target}' cannot be written; name another file with --out")


# -- many pictures -------------------------------------------------------------------------------------------------
def ground_many(
    source: Path, entity: str | None, out: Path | None, settings: GroundSettings, as_json: bool
) -> GroundResult:
    """Answers the pairs of a folder or a list, or resumes.

    ``answers.jsonl`` and the pictures with boxes grow while later pictures are being answered. A resumed run writes
    them anew from the stored answers, so that an end in the middle of a line leaves no trace.

    Args:
        source: see ``read_pairs``.
        entity: see ``read_pairs``.
        out: folder for ``answers.jsonl`` and the pictures with boxes; None for one beside ``source``.
        settings: of the model.
        as_json: print the lines of ``answers.jsonl`` as they come, and nothing else on stdout.

    Raises:
        ConfigError: a setting cannot work.
        DataError: no picture can be used, or a file cannot be written.
    """
    folder = out or source.with_name(f"{source.resolve().stem}-boxes")
    pairs, skipped = read_pairs(source, entity)
    mode, client = prompt_mode(settings.checkpoint, settings.mode), settings.client()
    form = client.prompt_format  # also checks the checkpoint's settings
    requests = PairRequests(pairs, [prompt(pair.entity, mode, form) for pair in pairs])
    text = json.dumps([_VERSION, client.identity(), mode, asdict(settings), list(map(_identity, pairs)), skipped])
    job = Job(folder, RECORD, text)
    if job.is_complete(folder / ANSWERS):
        return _finished(folder, as_json)
    job.reopen()
    writer = _AnswerWriter(pairs, client, folder, sys.stdout if as_json else None, skipped)
    progress_to = sys.stderr if as_json else sys.stdout  # rich looks for stdout when it prints
    with contextlib.redirect_stdout(progress_to), contextlib.closing(writer):
        client.ask_in_order(requests, _text, job.units, writer.write)
    skipped += requests.skipped.values()
    if not writer.records:
        raise DataError(str(source), "pictures", f"none can be used ({skipped[0]})")
    with disk_errors(folder):
        lines = "".join(json.dumps({"fault": reason}, ensure_ascii=False) + "\n" for reason in skipped)
        atomic_write(folder / SKIPPED, lines)
    job.complete({"settings": asdict(settings), "num_answers": len(writer.records), "num_skipped": len(skipped)})
    return GroundResult(folder, writer.records, skipped)


def _finished(folder: Path, as_json: bool) -> GroundResult:
    if as_json:
        print((folder / ANSWERS).read_text("utf-8"), end="")
    read = {name: [json.loads(line) for _, line in json_lines(folder / name)] for name in (ANSWERS, SKIPPED)}
    return GroundResult(folder, read[ANSWERS], [one["fault"] for one in read[SKIPPED]])


def _identity(pair: Pair) -> list[Any]:
    state = pair.image.stat() if pair.image.exists() else None
    return [pair.where, str(pair.image), pair.entity, *((state.st_size, state.st_mtime_ns) if state else ())]


def _text(request: Request, answer: str) -> str:
    return answer


class _AnswerWriter:
    """Writes the pictures with boxes, and a line for each answer.

    Args:
        pairs: all pairs.
        client: the model that answers.
        folder: of the result; the pictures of an earlier run are removed.
        stdout: gets the lines, too, unless it is None.
        skipped: gets the reasons of what cannot be used.

    Attributes:
        records: the lines that were written.

    Raises:
        DataError: the disk cannot be written.
    """

    def __init__(
        self, pairs: Sequence[Pair], client: LocalClient, folder: Path, stdout: TextIO | None, skipped: list[str]
    ) -> None:
        self.pairs, self.client, self.folder, self.stdout, self.skipped = pairs, client, folder, stdout, skipped
        self.pictures, self.records = folder / PICTURES, list[dict[str, Any]]()
        self._numbers = {pair.where: number for number, pair in enumerate(pairs)}
        with disk_errors(folder):
            for path in self.pictures.glob("*") if self.pictures.is_dir() else ():
                if _OWN_PICTURE.fullmatch(path.name):
                    path.unlink()
            self._stream = (folder / ANSWERS).open("w", encoding="utf-8")

    def write(self, outcome: Outcome[str]) -> None:
        """Writes one answer; a reader of the file sees it at once.

        Raises:
            DataError: the disk cannot be written.
        """
        if not outcome.values:
            self.skipped += outcome.faults
            return
        number = self._numbers[outcome.request.key]
        grounding = _grounding(self.pairs[number], outcome, self.client)
        saved = None
        if grounding.box_px:
            saved = grounding.save(self.pictures / f"{number:06d}-{self.pairs[number].image.stem}{MARK}.jpg")
        record = {**grounding.record(), "picture": str(saved) if saved else None}
        self.records.append(record)
        line = json.dumps(record, ensure_ascii=False)
        with disk_errors(self.folder):
            self._stream.write(line + "\n")
            self._stream.flush()
        if self.stdout:
            print(line, file=self.stdout, flush=True)

    def close(self) -> None:
        """Closes the file, and removes it if it has no line.

        Raises:
            DataError: the disk cannot be written.
        """
        with disk_errors(self.folder), self._stream as stream:
            os.fsync(stream.fileno())
        if not self.records:
            (self.folder / ANSWERS).unlink()


def _grounding(pair: Pair, outcome: Outcome[str], client: LocalClient) -> Grounding:
    data, backbone = outcome.request.image, client.backbone
    size = backbone.processor.image_size(*picture_size(data, pair.where))
    return read_grounding(outcome.completions[0], backbone.codec, size, pair.entity, str(pair.image), data)
