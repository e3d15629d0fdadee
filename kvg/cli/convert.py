"""Writes samples in another form: shards, ShareGPT JSON, or the published GRPO and KVG-Bench parquet files.

Read are these, and lists of pictures: referring expressions (RefCOCO) and labels to choose from (FOCI, or one's own).
Boxes whose unit nothing tells, such as lists of four numbers in texts, are refused unless ``--box-unit`` states it.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from kvg.cli.reading_options import add_reading_arguments, reading_of
from kvg.errors import ConfigError, DataError

if TYPE_CHECKING:
    from kvg.shards.reader import SampleStore, Tally
    from kvg.types import Sample

# What a form has no place for. Boxes of all but shards stand on the 0-1000 grid.
LEFT_OUT = {
    "shards": "",
    "sharegpt": "objects that the rationale does not name, splits and knowledge",
    "grpo": "rationales, other objects, keys, splits and knowledge",
    "verl": "rationales, other objects, splits and knowledge",
    "kvg-bench": "rationales, other objects, splits and knowledge",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("--in", dest="source", required=True, help="folder of shards, .parquet, .json, .jsonl or .csv")
    parser.add_argument("--images", help="folder of the pictures that a list names (default: that of the list)")
    parser.add_argument("--category", default="", help="of what is on the pictures of a list that does not tell it")
    parser.add_argument("--seed", type=int, default=0, help="of the choices of labels and their order (default 0)")
    add_reading_arguments(parser)
    parser.add_argument("--out", required=True, help="folder for shards, else a .json or .parquet file")
    parser.add_argument("--to", choices=sorted(LEFT_OUT), required=True, help="form of the result")
    parser.add_argument("--mode", default="think", help="prompt of the question where a form holds it (default think)")
    parser.add_argument("--samples-per-shard", type=int, default=500, help="where shards are written (default 500)")
    parser.add_argument("--overwrite", action="store_true", help="replace what is already there")


def run(args: argparse.Namespace) -> int:
    """Converts.

    Raises:
        ConfigError: the result's name does not fit its form, or is taken.
        DataError: nothing could be read.
    """
    from kvg.formats.stores import open_store
    from kvg.shards.reader import Tally
    from kvg.text.prompts import PROMPTS

    out, suffix = Path(args.out), {"shards": "", "sharegpt": ".json"}.get(args.to, ".parquet")
    if args.mode not in PROMPTS:
        raise ConfigError("mode", f"'{args.mode}' is not one of {', '.join(PROMPTS)}")
    if out.suffix != suffix:
        raise ConfigError("out", f"{out} should {f'end in {suffix}' if suffix else 'be a folder'} for {args.to}")
    if out.is_file() and not args.overwrite:
        raise ConfigError("out", f"{out} is already there; choose another name or allow overwriting")
    tally, clipped = Tally(), Counter[str]()
    store = open_store(args.source, args.images, args.category, args.seed, reading_of(args))
    num = _writer(args)(_samples(store, tally, str(args.source), args.to, clipped), out)
    if not num:
        raise DataError(str(args.source), "samples", "none could be read; see the messages above")
    bad = f"; {tally.num_bad} bad samples and {tally.num_cut} cut files passed over" if tally.problems else ""
    print(f"{num} samples in {out}{bad}")
    if clipped:
        print(f"{clipped['boxes']} boxes stuck out of their picture by less than a pixel and were cut off there")
    if LEFT_OUT[args.to]:
        print(f"{args.to} has no place for {LEFT_OUT[args.to]}")
    return 0


def _samples(store: SampleStore, tally: Tally, source: str, form: str, clipped: Counter[str]) -> Iterator[Sample]:
    from kvg.work.progress import shown

    parts, keys = store.parts(), set[str]()
    read = (sample for part in parts for _, sample in part.read(tally))
    for sample in shown(read, "convert", sum(part.num_samples for part in parts)):
        if form != "shards" and "options" in sample.provenance:
            raise ConfigError("to", f"{form} has no place for questions of several choices, as these are; take shards")
        if sample.key in keys:  # its picture would take the place of the other's
            tally.note(DataError(source, "key", f"'{sample.key}' stands there already; give each a name of its own"))
            continue
        keys.add(sample.key)
        if "clipped" in sample.provenance:
            clipped["boxes"] += 1
        yield sample


def _writer(args: argparse.Namespace) -> Callable[[Iterable[Sample], Path], int]:
    from kvg.formats.grpo_parquet import write_grpo_parquet
    from kvg.formats.kvg_bench import write_kvg_bench
    from kvg.formats.sharegpt import write_sharegpt

    def shards(samples: Iterable[Sample], out: Path) -> int:
        from kvg.shards.writer import ShardWriter

        num = 0
        config = {"converted_from": str(args.source), **reading_of(args).settings}
        with ShardWriter(out, args.samples_per_shard, config=config, overwrite=args.overwrite) as writer:
            for sample in samples:
                writer.write(sample)
                num += 1
            if not num:
                raise DataError(str(args.source), "samples", "none could be read; see the messages above")
        return num

    return {
        "shards": shards,
        "sharegpt": lambda samples, out: write_sharegpt(samples, out, args.mode),
        "grpo": lambda samples, out: write_grpo_parquet(samples, out, mode=args.mode),
        "verl": lambda samples, out: write_grpo_parquet(samples, out, verl=True, mode=args.mode),
        "kvg-bench": write_kvg_bench,
    }[args.to]
