"""Writes the lab's cards as text, to be replayed in stage 1 beside the composites, so that they are not forgotten."""

from __future__ import annotations

import argparse
import json
import os
import random
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("--out", required=True, help="the file: a JSON object a line")
    parser.add_argument(
        "--knowledge", choices=("known", "unknown", "all"), default="known", help="whose cards (default known)"
    )
    parser.add_argument("--seed", type=int, default=0, help="decides the phrasings (default 0)")
    parser.add_argument("--repeats", type=int, default=8, help="texts of each card (default 8)")


def run(args: argparse.Namespace) -> int:
    """Writes the file.

    Raises:
        ConfigError: ``--repeats`` is below 1.
    """
    from kvg.errors import ConfigError
    from kvg.lab.skills import card_text
    from kvg.lab.traits import load_cards

    if args.repeats < 1:
        raise ConfigError("--repeats", f"{args.repeats} must be at least 1")
    cards = [card for card in load_cards() if args.knowledge in ("all", card.knowledge)]
    rng = random.Random(args.seed)
    lines = []
    for card in cards * args.repeats:
        asked, text = card_text(card, rng)
        lines.append(json.dumps({"text": text} if asked is None else {"prompt": asked, "completion": text}))
    out = Path(args.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    partial.write_text("\n".join(lines) + "\n", "utf-8")
    os.replace(partial, out)
    print(f"{len(lines)} texts of {len(cards)} cards in {out}")
    return 0
