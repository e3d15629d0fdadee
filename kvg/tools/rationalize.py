"""Writes rationales for composites: shards in, shards with rationales out."""

from __future__ import annotations

import argparse
import dataclasses
import logging
from typing import TYPE_CHECKING

from kvg.errors import ConfigError, DataError

if TYPE_CHECKING:
    from kvg.synthesis.rationale import RationaleWriter

log = logging.getLogger(__name__)

WRITERS = ("cards",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("--in", dest="source", required=True, help="folder of shards, or a published file")
    parser.add_argument("--out", required=True, help="folder for the new shards")
    parser.add_argument("--writer", choices=WRITERS, default="cards", help="who writes (default cards)")
    parser.add_argument("--samples-per-shard", type=int, default=500, help="of every shard but the last (default 500)")
    parser.add_argument("--overwrite", action="store_true", help="replace a set that is already there")


def run(args: argparse.Namespace) -> int:
    """Writes the set.

    Raises:
        DataError: the input cannot be used, or no rationale could be written.
    """
    from kvg.formats.stores import open_store
    from kvg.shards.reader import ShardFolder, Tally
    from kvg.shards.writer import ShardWriter

    store, writer, tally = open_store(args.source), build_writer(args.writer), Tally()
    parts = store.parts()
    before = store.manifest if isinstance(store, ShardFolder) else None
    with ShardWriter(
        args.out,
        args.samples_per_shard,
        seed=before.seed if before else None,
        config={**(before.config if before else {}), "rationale_writer": args.writer},
        total=sum(part.num_samples for part in parts),
        overwrite=args.overwrite,
    ) as shards:
        num_written = 0
        for part in parts:
            for _, sample in part.read(tally):
                try:
                    rationale = writer.write(sample)
                except DataError as error:
                    tally.note(error)
                    continue
                shards.write(dataclasses.replace(sample, rationale=rationale))
                num_written += 1
        if not num_written:
            raise DataError(str(args.source), "rationale", "none could be written; see the messages above")
    bad = f"; {tally.num_bad} bad samples and {tally.num_cut} cut files passed over" if tally.problems else ""
    print(f"{num_written} rationales in {args.out}{bad}")
    return 0


def build_writer(name: str) -> RationaleWriter:
    """The writer of that name.

    Raises:
        ConfigError: there is none.
    """
    from kvg.synthesis.rationale import CardWriter

    if name != "cards":
        raise ConfigError("writer", f"'{name}' is none of {WRITERS}")
    return CardWriter()
