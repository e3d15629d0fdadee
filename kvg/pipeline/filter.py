"""A set of samples, asked about several times each: those that are neither too easy nor too hard become a new set."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvg.errors import ConfigError, DataError

if TYPE_CHECKING:
    from kvg.inference.request import Asker, Outcome, Request
    from kvg.shards.reader import SampleStore, Tally
    from kvg.text.box_codec import BoxCodec, ImageSize
    from kvg.types import Box, Sample

RECORD = "filter.json"  # beside the shards: the settings and the histogram
WORK = "filter.pieces"  # answers, until all is done
_REMEDY = "train stage 1 longer, give easier or harder samples, or widen --keep-min and --keep-max"


@dataclass(frozen=True)
class Difficulty:
    """What is asked, and what is kept.

    Attributes:
        samples: answers to each sample.
        iou: an answer with at least this IoU is right.
        keep_min: right answers that a kept sample has at least.
        keep_max: and at most; None for one less than ``samples``.
        mode: prompt mode.
        limit: only the first so many samples; None for all.
        samples_per_shard: of every shard but the last.
    """

    samples: int = 4
    iou: float = 0.5
    keep_min: int = 1
    keep_max: int | None = None
    mode: str = "think"
    limit: int | None = None
    samples_per_shard: int = 500

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ConfigError: one cannot work.
        """
        from kvg.text.prompts import PROMPTS

        if self.samples < 1:
            raise ConfigError("--samples", f"{self.samples} must be at least 1")
        if not 0 <= self.keep_min <= self.most <= self.samples:
            text = f"{self.keep_min} to {self.most} is no range within 0 to {self.samples} right answers"
            raise ConfigError("--keep-min, --keep-max", text)
        if not 0 <= self.iou <= 1:
            raise ConfigError("--iou", f"{self.iou} is not within 0 to 1")
        if self.mode not in PROMPTS:
            raise ConfigError("--mode", f"'{self.mode}' is not one of {', '.join(PROMPTS)}")

    @property
    def most(self) -> int:
        """Right answers that a kept sample has at most."""
        return self.samples - 1 if self.keep_max is None else self.keep_max


@dataclass(frozen=True)
class Trial:
    """A sample and how many of the answers to it were right."""

    sample: Sample
    num_right: int


@dataclass(frozen=True)
class Asked:
    """The requests of a store; they can be gone through again and again."""

    store: SampleStore
    difficulty: Difficulty

    def samples(self, tally: Tally) -> Iterator[Sample]:
        """The good samples that are asked about."""
        left = self.difficulty.limit
        for part in self.store.parts():
            for _, sample in part.read(tally):
                if left == 0:
                    return
                left = None if left is None else left - 1
                yield sample

    def __iter__(self) -> Iterator[Request]:
        """A request a sample."""
        from kvg.inference.request import Request
        from kvg.shards.reader import Tally
        from kvg.text.prompts import prompt

        for sample in self.samples(Tally(log_problems=False)):  # told of when the outcomes are read
            text = prompt(sample.entity, self.difficulty.mode)
            yield Request(sample.key, text, sample.image, self.difficulty.samples)


class BoxReader:
    """Reads the box of an answer, in pixels of the stored picture.

    Args:
        asker: who answers; a model that is loaded here has its own convention and its own sizes of pictures.
        codec: ``relative``, ``json`` or ``absolute``; None for the model's own, or ``relative``.
        min_pixels: area that a server's model enlarges pictures to, for absolute boxes.
        max_pixels: area that it shrinks them to.

    Raises:
        ConfigError: boxes are absolute, and nobody knows in which size.
    """

    def __init__(
        self, asker: Asker, codec: str | None = None, min_pixels: int = 56 * 56, max_pixels: int | None = None
    ) -> None:
        from kvg.inference.local import LocalModel

        self.model = asker if isinstance(asker, LocalModel) else None
        self.codec, self.min_pixels, self.max_pixels = codec, min_pixels, max_pixels
        if codec == "absolute" and self.model is None and not max_pixels:
            raise ConfigError("--max-pixels", "is needed for absolute boxes: name what the server's model is set to")

    def __call__(self, text: str, sample: Sample) -> Box | None:
        """The box; None where there is none."""
        from kvg.text.completion import parse_completion

        return self._codec().decode(parse_completion(text).answer, self._size(sample.width, sample.height))

    def _codec(self) -> BoxCodec:
        from kvg.text.box_codec import AbsoluteCodec, RelativeCodec

        if self.codec is None:
            return self.model.backbone.codec if self.model else RelativeCodec()
        return AbsoluteCodec() if self.codec == "absolute" else RelativeCodec(as_json=self.codec == "json")

    def _size(self, width: int, height: int) -> ImageSize:
        from kvg.text.box_codec import ImageSize

        if self.model:
            return self.model.backbone.processor.image_size(width, height)
        if self.codec != "absolute":
            return ImageSize(width, height, width, height)
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

        resized_height, resized_width = smart_resize(height, width, 28, self.min_pixels, self.max_pixels)
        return ImageSize(width, height, resized_width, resized_height)


def filter_set(
    source: str | Path,
    out: Path,
    asker: Asker,
    read: Callable[[str, Sample], Box | None],
    difficulty: Difficulty,
    noted: Mapping[str, Any],
    overwrite: bool = False,
) -> None:
    """Asks about every sample of a set and writes those that are kept.

    Args:
        source: folder of shards, or a published file.
        out: folder for the kept samples.
        asker: who answers. Where it is many processes, only the first comes back from it, and alone writes.
        read: see ``BoxReader``.
        difficulty: see there.
        noted: settings, for the record and the manifest.
        overwrite: replace a set that is already there.

    Raises:
        ConfigError: the set is there already.
        DataError: the input cannot be used, or no sample is kept.
    """
    from kvg.formats.stores import checksums_of, open_store
    from kvg.shards.reader import ShardFolder, Tally
    from kvg.shards.writer import ShardWriter, check_set
    from kvg.work.pieces import write_whole, writing

    num, least, most = difficulty.samples, difficulty.keep_min, difficulty.most
    check_set(out, difficulty.samples_per_shard, overwrite)
    asked, tally, counts = Asked(open_store(source), difficulty), Tally(), Counter[int]()
    before = asked.store.manifest if isinstance(asked.store, ShardFolder) else None
    outcomes = asker.ask(asked, lambda _, text: text, out / WORK)
    first = next(outcomes, None)  # nothing may be written before
    trials = _trials(asked, chain([first] if first else [], outcomes), read, difficulty.iou, tally)
    config = {**(before.config if before else {}), "filter": dict(noted)}
    seed, size = before.seed if before else None, difficulty.samples_per_shard
    with ShardWriter(out, size, seed=seed, config=config, overwrite=overwrite) as writer:
        for trial in trials:
            counts[trial.num_right] += 1
            if least <= trial.num_right <= most:
                provenance = {**trial.sample.provenance, "num_right": trial.num_right, "num_tries": num}
                writer.write(dataclasses.replace(trial.sample, provenance=provenance))
        num_kept = sum(counts[right] for right in range(least, most + 1))
        if not num_kept:
            bad = [f"{tally.num_bad} bad samples"] if tally.num_bad else []
            listed = [f"{counts[right]} with {right}/{num} right" for right in range(num + 1) if counts[right]]
            raise DataError(str(source), "filter", f"keeps nothing: {', '.join(listed + bad)}; {_REMEDY}")
        right = {str(right): counts[right] for right in range(num + 1)}
        record = {
            **noted,
            "made_of": checksums_of(source),
            "right": right,
            "num_tried": counts.total(),
            "num_kept": num_kept,
        }
        record |= {"num_bad": tally.num_bad, "num_cut": tally.num_cut}
        with writing(out):
            write_whole(out / RECORD, json.dumps(record, indent=1) + "\n")
    shutil.rmtree(out / WORK, ignore_errors=True)
    print_histogram(counts, num, least, most)
    bad_text = f"; {tally.num_bad} bad samples and {tally.num_cut} cut files passed over" if tally.problems else ""
    print(f"kept {num_kept} of {counts.total()} in {out}{bad_text}")
    print(asker.summary())


def is_finished(source: str | Path, out: Path, noted: Mapping[str, Any]) -> bool:
    """Whether a set is there, filtered with these settings from the source as it is."""
    from kvg.formats.stores import checksums_of
    from kvg.records import own_record
    from kvg.shards.manifest import MANIFEST

    record = own_record(out / RECORD)
    wanted = {**noted, "made_of": checksums_of(source)}
    return (out / MANIFEST).is_file() and all(record.get(name) == value for name, value in wanted.items())


def _trials(
    asked: Asked,
    outcomes: Iterator[Outcome[str]],
    read: Callable[[str, Sample], Box | None],
    iou_gate: float,
    tally: Tally,
) -> Iterator[Trial]:
    """Each sample that was answered at all; an answer that is missing, cut off or no box is wrong."""
    import torch

    from kvg.boxes import MISSING_BOX, iou

    for sample, outcome in zip(asked.samples(tally), outcomes, strict=True):
        if not outcome.values:
            tally.note(DataError(sample.key, "answer", "; ".join(outcome.faults) or "there is none"))
            continue
        boxes = torch.tensor([read(text, sample) or MISSING_BOX for text in outcome.values])
        hits = iou(boxes, torch.tensor([sample.box_px] * len(boxes))) >= iou_gate
        yield Trial(sample, int(hits.sum()))


def print_histogram(counts: Counter[int], num_tries: int, keep_min: int, keep_max: int) -> None:
    """Prints how many samples had 0, 1, ... right answers, as bars."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"right answers of {num_tries}", box=None)
    for title, side in (("right", "right"), ("samples", "right"), ("", "left"), ("share", "right"), ("", "left")):
        table.add_column(title, justify="right" if side == "right" else "left")
    most = max(counts.values(), default=1)
    for right in range(num_tries + 1):
        kept = keep_min <= right <= keep_max
        bar = "█" * round(30 * counts[right] / most)
        share = f"{counts[right] / max(1, counts.total()):.0%}"
        verdict = "kept" if kept else "dropped"
        table.add_row(str(right), str(counts[right]), bar, share, verdict, style=None if kept else "dim")
    Console().print(table)
