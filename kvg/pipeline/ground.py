"""``kvg ground``: one picture and a name, every picture of a folder and a name, or a list of pairs."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final

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
from kvg.work.progress import with_progress

ANSWERS, SKIPPED, PICTURES, RECORD = "answers.jsonl", "skipped.jsonl", "pictures", "ground.json"
LIST: Final = ".jsonl"
_VERSION: Final = 1  # increased when the same settings give different files
_OWN_PICTURE = re.compile(r"\d{6}-.*" + re.escape(MARK) + r"\.\w+")
_MAX_REASONS: Final = 5
_SMALL: Final = 100_000_000  # weights of a model that one thread runs faster than several
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
    if backbone.device.type == "cpu" and sum(one.numel() for one in backbone.parameters()) < _SMALL:
        prepare_cpu()
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

    Args:
        source: see ``read_pairs``.
        entity: see ``read_pairs``.
        out: folder for ``answers.jsonl`` and the pictures with boxes; None for one beside ``source``.
        settings: of the model.
        as_json: keep stdout free of progress bars.

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
        return _finished(folder)
    job.reopen()
    with contextlib.redirect_stdout(sys.stderr if as_json else sys.stdout):  # rich looks for it when it prints
        outcomes = _with_bar(client.ask(requests, _text, job.units), len(pairs))
        records = [*_records(folder / PICTURES, pairs, outcomes, client, skipped)]
    skipped += requests.skipped.values()
    if not records:
        raise DataError(str(source), "pictures", f"none can be used ({skipped[0]})")
    with disk_errors(folder):
        atomic_write(folder / ANSWERS, "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in records))
        lines = "".join(json.dumps({"fault": reason}, ensure_ascii=False) + "\n" for reason in skipped)
        atomic_write(folder / SKIPPED, lines)
    job.complete({"settings": asdict(settings), "num_answers": len(records), "num_skipped": len(skipped)})
    return GroundResult(folder, records, skipped)


def _finished(folder: Path) -> GroundResult:
    read = {name: [json.loads(line) for _, line in json_lines(folder / name)] for name in (ANSWERS, SKIPPED)}
    return GroundResult(folder, read[ANSWERS], [one["fault"] for one in read[SKIPPED]])


def _identity(pair: Pair) -> list[Any]:
    state = pair.image.stat() if pair.image.exists() else None
    return [pair.where, str(pair.image), pair.entity, *((state.st_size, state.st_mtime_ns) if state else ())]


def _text(request: Request, answer: str) -> str:
    return answer


def _records(
    pictures: Path, pairs: Sequence[Pair], outcomes: Iterable[Outcome[str]], client: LocalClient, skipped: list[str]
) -> Iterator[dict[str, Any]]:
    """Writes the pictures with boxes; yields the records. Adds the reasons of what cannot be used to ``skipped``."""
    numbers = {pair.where: number for number, pair in enumerate(pairs)}
    with disk_errors(pictures):
        for path in pictures.glob("*") if pictures.is_dir() else ():
            if _OWN_PICTURE.fullmatch(path.name):
                path.unlink()
    for outcome in outcomes:
        if not outcome.values:
            skipped += outcome.faults
            continue
        number = numbers[outcome.request.key]
        grounding = _grounding(pairs[number], outcome, client)
        saved = None
        if grounding.box_px:
            saved = grounding.save(pictures / f"{number:06d}-{pairs[number].image.stem}{MARK}.jpg")
        yield {**grounding.record(), "picture": str(saved) if saved else None}


def _grounding(pair: Pair, outcome: Outcome[str], client: LocalClient) -> Grounding:
    data, backbone = outcome.request.image, client.backbone
    size = backbone.processor.image_size(*picture_size(data, pair.where))
    return read_grounding(outcome.completions[0], backbone.codec, size, pair.entity, str(pair.image), data)


def _with_bar(outcomes: Iterator[Outcome[str]], total: int) -> Iterator[Outcome[str]]:
    """Adds a progress bar from the first outcome on. Before that, the client shows its own."""
    for first in outcomes:
        yield from with_progress(chain([first], outcomes), "drawing boxes", total)
