"""Writes samples in another form: shards, ShareGPT JSON, or the published GRPO and KVG-Bench parquet files.

It reads the same forms, and lists of pictures: referring expressions (RefCOCO) and labels to choose from (FOCI, or a
user's list). Boxes of unknown unit, such as lists of four numbers in texts, are rejected without ``--box-unit``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kvg.errors import ConfigError, DataError
from kvg.formats.grpo_parquet import write_grpo_parquet
from kvg.formats.kvg_bench import write_kvg_bench
from kvg.formats.sharegpt import write_sharegpt
from kvg.formats.stores import open_store
from kvg.formats.written_boxes import Reading
from kvg.shards.reader import SampleStore, Tally
from kvg.shards.writer import ShardWriter
from kvg.text.prompts import PROMPTS
from kvg.types import Sample
from kvg.work.progress import with_progress

# What each form cannot contain. Boxes of all forms but shards are on the 0-1000 grid.
LEFT_OUT = {
    "shards": "",
    "sharegpt": "objects that the rationale does not name, splits and knowledge",
    "grpo": "rationales, other objects, keys, splits and knowledge",
    "verl": "rationales, other objects, splits and knowledge",
    "kvg-bench": "rationales, other objects, splits and knowledge",
}


@dataclass(frozen=True)
class ConvertResult:
    """A converted set.

    Attributes:
        num_samples: number of samples that were written.
        num_bad: number of samples that were skipped.
        num_cut: number of files that end early.
        num_clipped: number of boxes that extended beyond their picture by less than a pixel.
    """

    num_samples: int
    num_bad: int
    num_cut: int
    num_clipped: int


def convert(
    source: str | Path,
    out: Path,
    form: str,
    *,
    images: str | None = None,
    category: str = "",
    seed: int = 0,
    reading: Reading | None = None,
    mode: str = "think",
    samples_per_shard: int = 500,
    overwrite: bool = False,
) -> ConvertResult:
    """Writes samples in another form.

    Args:
        source: folder of shards, ``.parquet``, ``.json``, ``.jsonl`` or ``.csv``.
        out: folder for shards, else a ``.json`` or ``.parquet`` file.
        form: form of the result, one of ``LEFT_OUT``.
        images: folder of the pictures that a list names; None for that of the list.
        category: category for a list without categories.
        seed: seed of the options of labels and their order.
        reading: unit and frame of the boxes if the form does not define them.
        mode: prompt template of the question, for forms that contain the prompt.
        samples_per_shard: size of shards.
        overwrite: whether an existing file or set is replaced.

    Raises:
        ConfigError: the name of the result does not fit its form, or exists already.
        DataError: no sample could be read.
    """
    suffix, reading = {"shards": "", "sharegpt": ".json"}.get(form, ".parquet"), reading or Reading()
    if mode not in PROMPTS:
        raise ConfigError("mode", f"'{mode}' is not one of {', '.join(PROMPTS)}")
    if out.suffix != suffix:
        raise ConfigError("out", f"{out} should {f'end in {suffix}' if suffix else 'be a folder'} for {form}")
    if out.is_file() and not overwrite:
        raise ConfigError("out", f"{out} already exists; choose another name or allow overwriting")
    tally, clipped = Tally(), Counter[str]()
    samples = _samples(open_store(source, images, category, seed, reading), tally, str(source), form, clipped)
    writers: dict[str, Callable[[Iterable[Sample], Path], int]] = {
        "sharegpt": lambda samples, out: write_sharegpt(samples, out, mode),
        "grpo": lambda samples, out: write_grpo_parquet(samples, out, mode=mode),
        "verl": lambda samples, out: write_grpo_parquet(samples, out, verl=True, mode=mode),
        "kvg-bench": write_kvg_bench,
    }
    if form == "shards":
        config = {"converted_from": str(source), **reading.settings}
        with ShardWriter(out, samples_per_shard, config=config, overwrite=overwrite) as writer:
            num = 0
            for sample in samples:
                writer.write(sample)
                num += 1
            _check_num(num, source)
    else:
        num = writers[form](samples, out)
        _check_num(num, source)
    return ConvertResult(num, tally.num_bad, tally.num_cut, clipped["boxes"])


def _check_num(num: int, source: str | Path) -> None:
    if not num:
        raise DataError(str(source), "samples", "none could be read; see the messages above")


def _samples(store: SampleStore, tally: Tally, source: str, form: str, clipped: Counter[str]) -> Iterator[Sample]:
    parts, keys = store.parts(), set[str]()
    read = (sample for part in parts for _, sample in part.read(tally))
    for sample in with_progress(read, "convert", sum(part.num_samples for part in parts)):
        if form != "shards" and sample.options:
            raise ConfigError("to", f"{form} cannot contain multiple-choice questions, as these are; use shards")
        if sample.key in keys:  # the picture of the earlier sample would be replaced
            tally.note(DataError(source, "key", f"'{sample.key}' occurs twice; make keys unique"))
            continue
        keys.add(sample.key)
        if "clipped" in sample.provenance:
            clipped["boxes"] += 1
        yield sample
