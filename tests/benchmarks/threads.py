"""A token of each row with one thread and with several, as the model grows: where ``SMALL_MODEL`` of kvg.work.cpu lies.

python tests/benchmarks/threads.py --threads 2
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median

import torch

sys.path.insert(0, str(Path(__file__).parent))
from checkpoints import build
from compare_grpo import spread
from decoding import milliseconds

from kvg.backbones.backbone import Backbone


def main() -> int:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument(
        "--layers", type=int, nargs="+", default=[3, 6, 12, 24, 48], help="of width 512, 4 million each"
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 16])
    args = parser.parse_args()
    print(f"milliseconds a step, medians; one thread / {args.threads} threads with its range over {args.turns} turns")
    print(f"| million weights | rows | one thread | {args.threads} threads | ratio |")
    print("|--|--|--|--|--|")
    with tempfile.TemporaryDirectory() as folder:
        for layers in args.layers:
            checkpoint = build(Path(folder) / str(layers), "medium", num_layers=layers)
            backbone = Backbone(str(checkpoint), max_pixels=19600).eval()
            million = sum(one.numel() for one in backbone.parameters()) / 1e6
            for rows in args.rows:
                pairs = []
                for _ in range(args.turns):
                    times = []
                    for threads in (1, args.threads):
                        torch.set_num_threads(threads)
                        times.append(milliseconds(backbone, 1, rows, 24, written_out=True))
                    pairs.append(times)
                ratios = [one / several for one, several in pairs]
                columns = [f"{median(column):.1f}" for column in zip(*pairs, strict=True)]
                print(f"| {million:.0f} | {rows} | {' | '.join(columns)} | {spread(ratios)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
