"""``kvg-data cards``: writes the lab's cards as text."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("--out", required=True, help="the file: a JSON object a line")
    parser.add_argument(
        "--knowledge", choices=("known", "unknown", "all"), default="known", help="whose cards (default known)"
    )
    unknown = "texts of each card that the base model has not read, beside the others (default 0)"
    parser.add_argument("--unknown-repeats", type=int, default=0, help=unknown)
    parser.add_argument("--seed", type=int, default=0, help="decides the phrasings (default 0)")
    parser.add_argument("--repeats", type=int, default=8, help="texts of each card (default 8)")


def run(args: argparse.Namespace) -> int:
    """Writes the file.

    Raises:
        ConfigError: ``--repeats`` is below 1.
    """
    from kvg.pipeline.cards import write_cards

    num_texts, num_cards = write_cards(Path(args.out), args.knowledge, args.seed, args.repeats, args.unknown_repeats)
    print(f"{num_texts} texts of {num_cards} cards in {args.out}")
    return 0
