"""Samples several answers of a stage-1 model to each sample, and keeps samples with some correct answers.

See the paper, section 4.2. If all answers of a group are correct, or none is, all its advantages are 0, and there is
nothing to learn.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from kvg.boxes import MISSING_BOX, iou
from kvg.errors import DataError
from kvg.formats.stores import checksums_of, open_store
from kvg.inference.request import Client, Outcome, Request
from kvg.pipeline.answer_boxes import BoxReader
from kvg.pipeline.settings.filter import FilterSettings
from kvg.shards.manifest import MANIFEST
from kvg.shards.reader import SampleStore, ShardFolder, Tally
from kvg.shards.schema import check_has_box
from kvg.shards.writer import ShardWriter, check_set
from kvg.text.prompts import PUBLISHED, PromptFormat, prompt
from kvg.types import Box, Sample
from kvg.work.job import Job

RECORD = "filter.json"  # settings and histogram, beside the shards
_REMEDY = "train stage 1 longer, give easier or harder samples, or widen --keep-min and --keep-max"


@dataclass(frozen=True)
class FilterResult:
    """A filtered set.

    Attributes:
        out: its folder.
        settings: settings of the filter.
        counts: number of samples by number of correct answers.
        num_kept: number of samples that are kept.
        paired: whether pairs were judged by the mean of their two numbers.
        num_bad: number of samples that could not be read.
        num_cut: number of files that end early.
        usage: summary of the client, in words.
    """

    out: Path
    settings: FilterSettings
    counts: Mapping[int, int]
    num_kept: int
    paired: bool
    num_bad: int
    num_cut: int
    usage: str

    @property
    def num_samples(self) -> int:
        """Returns the number of samples with answers."""
        return sum(self.counts.values())

    def show(self) -> None:
        """Prints the histogram and the summary."""
        Console().print(self.histogram())
        print(self.summary())

    def histogram(self) -> Table:
        """Returns a bar chart of the number of samples with 0, 1, ... correct answers."""
        by = ", pairs by their mean" if self.paired else ""
        table = Table(title=f"right answers of {self.settings.samples}{by}", box=None)
        for title, side in (("right", "right"), ("samples", "right"), ("", "left"), ("share", "right"), ("", "left")):
            table.add_column(title, justify="right" if side == "right" else "left")
        most = max(self.counts.values(), default=1)
        for right in range(self.settings.samples + 1):
            num, kept = self.counts.get(right, 0), self.settings.keep_min <= right <= self.settings.most
            share, verdict = f"{num / max(1, self.num_samples):.0%}", "kept" if kept else "dropped"
            bar = "█" * round(30 * num / most)
            table.add_row(str(right), str(num), bar, share, verdict, style=None if kept else "dim")
        return table

    def summary(self) -> str:
        """Returns the numbers in words, in one or more lines."""
        bad = f"; {self.num_bad} bad samples and {self.num_cut} cut files skipped"
        counted = bad if self.num_bad or self.num_cut else ""
        return f"kept {self.num_kept} of {self.num_samples} in {self.out}{counted}\n{self.usage}"


class SampleRequests:
    """The requests of a set; they can be iterated several times.

    Args:
        store: the set.
        settings: settings of the filter.
        prompt_format: prompt format of the client.
    """

    def __init__(self, store: SampleStore, settings: FilterSettings, prompt_format: PromptFormat = PUBLISHED) -> None:
        self.store, self.settings, self.prompt_format = store, settings, prompt_format

    def samples(self, tally: Tally) -> Iterator[Sample]:
        """Yields the good samples, at most ``limit``."""
        left = self.settings.limit
        for part in self.store.parts():
            for _, sample in part.read(tally):
                if left == 0:
                    return
                check_has_box(sample)
                left = None if left is None else left - 1
                yield sample

    def __len__(self) -> int:
        """Number of samples, with those that cannot be used."""
        num = sum(part.num_samples for part in self.store.parts())
        return num if self.settings.limit is None else min(num, self.settings.limit)

    def __iter__(self) -> Iterator[Request]:
        """Yields a request for each sample."""
        for sample in self.samples(Tally(log_problems=False)):  # problems are logged when the outcomes are read
            text = prompt(sample.entity, self.settings.mode, self.prompt_format)
            yield Request(sample.key, text, sample.image, self.settings.samples)


def _job(out: Path, settings: FilterSettings, record: Mapping[str, Any], checksums: Sequence[str]) -> Job:
    return Job(out, RECORD, json.dumps([record, settings.samples_per_shard, checksums], sort_keys=True))


def filter_set(
    source: str | Path,
    out: str | Path,
    settings: FilterSettings,
    overwrite: bool = False,
    client: Client | None = None,
    read: Callable[[str, Sample], Box | None] | None = None,
) -> FilterResult:
    """Filters one set, or resumes an interrupted one.

    Args:
        source: folder of shards, or a published file.
        out: folder for the kept samples.
        settings: settings of the filter.
        overwrite: whether an existing set is replaced.
        client: replaces the client of the settings. If it uses several processes, only the first one returns.
        read: reads the box of an answer; by default a ``BoxReader`` of the settings.

    Raises:
        ConfigError: the set exists already, or a setting is outside its range.
        DataError: the input cannot be used, or no sample is kept.
    """
    out, num = Path(out), settings.samples
    client = client or settings.build_client()
    read = read or BoxReader(client, settings.codec, settings.min_pixels, settings.max_pixels)
    check_set(out, overwrite)
    store = open_store(source)
    record, checksums = settings.record(str(source)), checksums_of(source)
    job = _job(out, settings, record, checksums)
    requests, tally, counts = SampleRequests(store, settings, client.prompt_format), Tally(), Counter[int]()
    num_kept, paired = 0, False
    before = store.manifest if isinstance(store, ShardFolder) else None
    outcomes = client.ask(requests, lambda _, text: text, job.units)
    first = next(outcomes, None)  # other processes end here, so nothing may be written before
    config, seed = {**(before.config if before else {}), "filter": record}, before.seed if before else None
    job.reopen()
    with ShardWriter(out, settings.samples_per_shard, seed=seed, config=config, overwrite=overwrite) as writer:
        judged = _judged(requests, itertools.chain([first] if first else [], outcomes), read, tally)
        for unit in whole_pairs(judged, tally):
            counts.update(num_right for _, num_right in unit)
            paired |= len(unit) > 1
            if settings.keep_min <= sum(num_right for _, num_right in unit) / len(unit) <= settings.most:
                num_kept += len(unit)
                for sample, num_right in unit:
                    provenance = {**sample.provenance, "num_right": num_right, "num_tries": num}
                    writer.write(dataclasses.replace(sample, provenance=provenance))
        result = FilterResult(out, settings, counts, num_kept, paired, tally.num_bad, tally.num_cut, client.summary())
        if not result.num_kept:
            bad = [f"{tally.num_bad} bad samples"] if tally.num_bad else []
            listed = [f"{counts[right]} with {right}/{num} right" for right in range(num + 1) if counts[right]]
            raise DataError(str(source), "filter", f"keeps nothing: {', '.join(listed + bad)}; {_REMEDY}")
    numbers = {"num_tried": result.num_samples, "num_kept": result.num_kept}
    numbers |= {"num_bad": tally.num_bad, "num_cut": tally.num_cut}
    right = {str(right): counts[right] for right in range(num + 1)}
    job.complete({**record, "made_of": checksums, "right": right, **numbers})
    return result


def is_complete(source: str | Path, out: Path, settings: FilterSettings) -> bool:
    """Returns whether a set exists that was made with these settings from the present source."""
    job = _job(out, settings, settings.record(str(source)), checksums_of(source))
    return job.is_complete(out / MANIFEST)


def whole_pairs(judged: Iterable[tuple[Sample, int]], tally: Tally) -> Iterator[list[tuple[Sample, int]]]:
    """Yields what is kept or dropped together: a sample, or the two of a pair (``compositor.paired``).

    Args:
        judged: samples with their number of correct answers.
        tally: gets one whose pair is not whole.
    """
    for pair, group in itertools.groupby(judged, key=lambda one: one[0].pair):
        if not pair:
            yield from ([one] for one in group)
            continue
        unit = list(group)
        if len(unit) == 2:
            yield unit
        else:
            tally.note(DataError(unit[0][0].key, "pair", "is not whole; compose the set again"))


def _judged(
    requests: SampleRequests,
    outcomes: Iterator[Outcome[str]],
    read: Callable[[str, Sample], Box | None],
    tally: Tally,
) -> Iterator[tuple[Sample, int]]:
    """Yields each sample with answers, and the number of correct ones; an unparsed answer is wrong."""
    for sample, outcome in zip(requests.samples(tally), outcomes, strict=True):
        if not outcome.values:
            tally.note(DataError(sample.key, "answer", "; ".join(outcome.faults) or "there is none"))
            continue
        preds = torch.tensor([read(text, sample) or MISSING_BOX for text in outcome.values])
        target = torch.tensor([sample.box_px] * len(preds))
        yield sample, int((iou(preds, target) >= requests.settings.iou).sum())
