"""Writes samples and pictures in another form.

Forms of samples are shards, ShareGPT JSON, and the published GRPO and KVG-Bench parquet files; lists of pictures are
read, too: referring expressions (RefCOCO) and labels to choose from (FOCI, or a user's list). Forms of pictures with
boxes are those of other tools (``kvg.formats.exchange``), the catalogue's, and predictions. Boxes of unknown unit, such
as lists of four numbers in texts, are rejected without ``--box-unit``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kvg.errors import ConfigError, DataError
from kvg.formats.exchange.registry import FORMATS
from kvg.formats.grpo_parquet import write_grpo_parquet
from kvg.formats.kvg_bench import write_kvg_bench
from kvg.formats.sharegpt import write_sharegpt
from kvg.pipeline.exchange import CORRECTIONS_FORM, PREDICTIONS_FORM, write_corrections, write_predictions, write_set
from kvg.pipeline.exchange_sources import Input
from kvg.ranges import check_choice
from kvg.shards.schema import check_has_box
from kvg.shards.writer import ShardWriter
from kvg.text.prompts import PROMPTS
from kvg.types import Sample

# What each form cannot contain. Boxes of the published forms are on the 0-1000 grid.
LEFT_OUT = {
    "shards": "",
    "sharegpt": "objects that the rationale does not name, splits and knowledge",
    "grpo": "rationales, other objects, keys, splits and knowledge",
    "verl": "rationales, other objects, splits and knowledge",
    "kvg-bench": "rationales, other objects, splits and knowledge",
    "corrections": "",
    "predictions": "rationales",
    **{name: exchange.left_out for name, exchange in FORMATS.items()},
}


@dataclass(frozen=True)
class ConvertResult:
    """A converted set.

    Attributes:
        num_samples: number of samples that were written.
        num_bad: number of samples that were skipped.
        num_cut: number of files that end early.
        num_clipped: number of boxes that extended beyond their picture by less than a pixel.
        num_rationales_lost: number of rationales that were left out, because labels had been changed.
    """

    num_samples: int
    num_bad: int
    num_cut: int
    num_clipped: int
    num_rationales_lost: int = 0


def convert(
    source: Input,
    out: Path,
    form: str,
    *,
    mode: str = "think",
    samples_per_shard: int = 500,
    target_only: bool = False,
    overwrite: bool = False,
) -> ConvertResult:
    """Writes samples or pictures in another form.

    Args:
        source: what to read.
        out: folder for shards and exchange formats, else a ``.json``, ``.jsonl`` or ``.parquet`` file.
        form: form of the result, one of ``LEFT_OUT``.
        mode: prompt template of the question, for forms that contain the prompt.
        samples_per_shard: size of shards.
        target_only: whether exchange formats get only the box that the question of a picture asks for.
        overwrite: whether an existing file or set is replaced.

    Raises:
        ConfigError: the name of the result does not fit its form, or exists already.
        DataError: no sample could be read.
    """
    check_choice("mode", mode, PROMPTS)
    if form in FORMATS:
        num = write_set(source, out, form, target_only=target_only, overwrite=overwrite)
    elif form == CORRECTIONS_FORM:
        num = write_corrections(source, out, overwrite)
    elif form == PREDICTIONS_FORM:
        num = write_predictions(source, out, overwrite)
    else:
        num = _write_samples(source, out, form, mode, samples_per_shard, overwrite)
    tally = source.tally
    return ConvertResult(num, tally.num_bad, tally.num_cut, source.num_clipped, source.num_rationales_lost)


def _write_samples(source: Input, out: Path, form: str, mode: str, samples_per_shard: int, overwrite: bool) -> int:
    suffix = {"shards": "", "sharegpt": ".json"}.get(form, ".parquet")
    if out.suffix != suffix:
        raise ConfigError("out", f"{out} should {f'end in {suffix}' if suffix else 'be a folder'} for {form}")
    if out.is_file() and not overwrite:
        raise ConfigError("out", f"{out} already exists; choose another name or allow overwriting")
    samples = _samples(source, form)
    writers: dict[str, Callable[[Iterable[Sample], Path], int]] = {
        "sharegpt": lambda samples, out: write_sharegpt(samples, out, mode),
        "grpo": lambda samples, out: write_grpo_parquet(samples, out, mode=mode),
        "verl": lambda samples, out: write_grpo_parquet(samples, out, verl=True, mode=mode),
        "kvg-bench": write_kvg_bench,
    }
    if form != "shards":
        num = writers[form](samples, out)
        _check_num(num, source)
        return num
    config = {"converted_from": str(source.path), **source.reading.settings}
    with ShardWriter(out, samples_per_shard, config=config, overwrite=overwrite) as writer:
        num = 0
        for sample in samples:
            writer.write(sample)
            num += 1
        _check_num(num, source)
    return num


def _check_num(num: int, source: Input) -> None:
    if not num:
        raise DataError(str(source.path), "samples", "none could be read; see the messages above")


def _samples(source: Input, form: str) -> Iterator[Sample]:
    keys: set[str] = set()
    for sample in source.samples():
        check_has_box(sample)
        if form != "shards" and sample.options:
            raise ConfigError("to", f"{form} cannot contain multiple-choice questions, as these are; use shards")
        if sample.key in keys:  # the picture of the earlier sample would be replaced
            source.tally.note(DataError(str(source.path), "key", f"'{sample.key}' occurs twice; make keys unique"))
            continue
        keys.add(sample.key)
        yield sample
