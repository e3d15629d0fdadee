"""Sampling with and without speculation, in turns; and whether the tokens are the same.

python tests/benchmarks/speculation.py runs/demo/cot_sft/export runs/demo/data/filtered --prompts 8 --group 8
python tests/benchmarks/speculation.py lab-random runs/demo/data/filtered --prompts 1 --group 8

Random weights (``lab-random``) repeat nothing, so the second command shows what drafting costs where it saves nothing.
CPU seconds are printed, too: with one thread they do not depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import sys
import time
from itertools import islice
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from compare_grpo import spread

from kvg.backbones.backbone import Backbone
from kvg.rl.completions import Rollouts
from kvg.rl.drafter import NGramDrafter
from kvg.rl.rollout import rollout
from kvg.rl.sampling import SamplingSettings
from kvg.shards.reader import ShardFolder
from kvg.work.cpu import keep_freed_memory


def texts(out: Rollouts) -> list[list[int]]:
    """Tokens of each completion."""
    return [row[keep].tolist() for row, keep in zip(out.tokens, out.completion_mask, strict=True)]


def main() -> int:
    """Prints a line a batch, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("shards")
    parser.add_argument("--prompts", type=int, default=8, help="of a batch")
    parser.add_argument("--group", type=int, default=8, help="completions of each")
    parser.add_argument("--batches", type=int, default=6)
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--max-new-tokens", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    backbone, drafter = Backbone(args.checkpoint).eval(), NGramDrafter()
    settings = SamplingSettings(args.max_new_tokens, args.temperature)
    samples = (sample for part in ShardFolder(args.shards).parts() for _, sample in part.read())
    ratios, cpu_ratios, num_rows, num_differ = [], [], 0, 0
    for number in range(args.batches):
        batch_samples = list(islice(samples, args.prompts))
        if not batch_samples:
            break
        examples = [backbone.processor.encode(sample, mode="think", target=None) for sample in batch_samples]
        batch = backbone.with_visual_tokens(backbone.processor.collate(examples, batch_samples, pad_left=True))
        outs, seconds, cpu = [], [], []
        for one in (NGramDrafter(max_draft=0), drafter):
            generator = torch.Generator().manual_seed(number)
            start, cpu_start = time.perf_counter(), time.process_time()
            outs.append(rollout(backbone, batch, settings, args.group, generator, one))
            seconds.append(time.perf_counter() - start)
            cpu.append(time.process_time() - cpu_start)
        plain, drafted = map(texts, outs)
        drafter.learn(drafted)
        ratios.append(seconds[0] / seconds[1])
        cpu_ratios.append(cpu[0] / cpu[1])
        num_rows += len(plain)
        num_differ += sum(one != other for one, other in zip(plain, drafted, strict=True))
        counts = outs[1].counts
        assert counts is not None, "the model takes no drafts"
        print(
            f"batch {number}: {seconds[0]:.2f} s plain, {seconds[1]:.2f} s with drafts; "
            f"{counts.tokens_per_pass:.2f} tokens a pass, {counts.acceptance:.0%} of the drafted ones accepted",
            flush=True,
        )
    print(f"completions that differ: {num_differ} of {num_rows}")
    print(f"how many times as fast, without the first batch: {spread(ratios[1:] or ratios)}")
    print(f"in CPU time: {spread(cpu_ratios[1:] or cpu_ratios)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
