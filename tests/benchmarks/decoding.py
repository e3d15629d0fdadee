"""A token of each row written out (``kvg.backbones.token_pass``) beside the same through the model's layers, in turns.

python tests/benchmarks/decoding.py --threads 2
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

sys.path.insert(0, str(Path(__file__).parent))
from checkpoints import SIZES, build, scene
from compare_grpo import spread

from kvg.backbones.backbone import Backbone


@torch.no_grad()
def milliseconds(backbone: Backbone, prompts: int, group: int, tokens: int, written_out: bool) -> float:
    """Median time of a decoding step."""
    samples = [scene(number, 140) for number in range(prompts)]
    examples = [backbone.processor.encode(sample, mode="think", target=None) for sample in samples]
    logits, state = backbone.prefill(backbone.processor.collate(examples, samples, pad_left=True), group)
    if not written_out:
        state.token_pass = None
    drawn, times = logits.argmax(-1), []
    for _ in range(tokens):
        start = time.perf_counter()
        backbone.decode(drawn, state)
        times.append(1000 * (time.perf_counter() - start))
    return median(times)


def main() -> int:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--models", nargs="+", choices=("lab", *SIZES), default=["lab", "medium", "small"])
    parser.add_argument("--prompts", type=int, nargs="+", default=[1, 8, 32])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{args.threads} threads, milliseconds a step, medians; ratios with their range over {args.turns} turns")
    print("| model | rows | layers | written out | ratio |")
    print("|--|--|--|--|--|")
    with tempfile.TemporaryDirectory() as folder:
        for size in args.models:
            checkpoint = size if size == "lab" else str(build(Path(folder) / size, size))
            backbone = Backbone(checkpoint, max_pixels=19600).eval()
            for prompts in args.prompts:
                pairs = [
                    [milliseconds(backbone, prompts, 8, 48, way) for way in (False, True)] for _ in range(args.turns)
                ]
                ratios = [layers / written for layers, written in pairs]
                columns = [f"{median(column):.1f}" for column in zip(*pairs, strict=True)]
                print(f"| {size} | {8 * prompts} | {' | '.join(columns)} | {spread(ratios)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
