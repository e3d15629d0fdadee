"""``kvg-data exam``: the skills of the lab's model, one by one."""

from __future__ import annotations

import argparse
import json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("--checkpoint", default="lab", help="'lab', or the folder of a model trained from it")
    parser.add_argument("--num", type=int, default=300, help="scenes per skill (default 300)")
    parser.add_argument("--seed", type=int, default=12345, help="of the scenes (default 12345)")
    parser.add_argument("--out", help="JSON file for the figures")


def run(args: argparse.Namespace) -> int:
    """Prints one line per skill."""
    from kvg.backbones.backbone import Backbone
    from kvg.pipeline.exam import examine
    from kvg.work.cpu import prepare_cpu

    prepare_cpu()
    backbone = Backbone(args.checkpoint, max_pixels=None).eval()
    figures = examine(backbone, args.num, args.seed)
    for name, value in figures.items():
        print(f"{name:28s} {value:6.1%}")
    if args.out:
        with open(args.out, "w", encoding="utf-8") as file:
            json.dump({"checkpoint": args.checkpoint, "num": args.num, "seed": args.seed, **figures}, file, indent=1)
    return 0
