"""``kvg-data base``: puts a freshly pretrained lab model into the package. `make base`."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("--run", dest="folder", default="runs/lab-base", help="folder of the finished pretraining")
    parser.add_argument("--out", help="where the model goes (default: kvg/lab/base of this package)")
    parser.add_argument("--num", type=int, default=500, help="scenes per skill in the exam (default 500)")
    parser.add_argument("--seed", type=int, default=12345, help="of the exam's scenes (default 12345)")


def run(args: argparse.Namespace) -> int:
    """Copies, examines and signs.

    Raises:
        DataError: the run has no export.
    """
    from kvg.backbones.builtin import lab_folder
    from kvg.pipeline.base_model import install_base

    target = Path(args.out) if args.out else lab_folder()
    for name, value in install_base(Path(args.folder), target, args.num, args.seed).items():
        print(f"{name:28s} {value:6.1%}")
    print(f"the lab's base is in {target}")
    return 0
