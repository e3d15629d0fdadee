"""Steps of stage 2 with and without ``overlap``, in turns, with a trained checkpoint: wall and CPU time.

python tests/benchmarks/overlap.py runs/demo/cot_sft/export runs/demo/data/filtered --prompts 8 --group 8 --threads 1
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

sys.path.insert(0, str(Path(__file__).parent))
from compare_grpo import spread

from data_modules import GRPODataModule
from kvg.backbones.backbone import Backbone
from kvg.losses.family import GRPOLoss
from kvg.modules.grpo import GRPOModule
from kvg.rewards.combine import WeightedReward
from kvg.rewards.format import FormatReward
from kvg.rewards.iou import IoUReward
from kvg.work.cpu import keep_freed_memory


class Clock(Callback):
    """Wall and CPU seconds of the steps between the first and the last, where both ways do the same work."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, float]] = []
        self.waited: list[float] = []
        self.tokens: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        """Notes when a step has ended."""
        self.marks.append((time.perf_counter(), time.process_time()))
        self.waited.append(float(trainer.callback_metrics.get("train/wait_s", 0.0)))
        self.tokens.append(float(pl_module.scored.out.completion_mask.sum()))

    def report(self) -> tuple[float, float, float, float]:
        """Wall and CPU seconds a step, seconds of waiting, and tokens of a batch."""
        num = len(self.marks) - 2
        wall, cpu = (b - a for a, b in zip(self.marks[0], self.marks[-2], strict=True))
        return wall / num, cpu / num, sum(self.waited[1:-1]) / num, sum(self.tokens[1:-1]) / num


def fit(args: argparse.Namespace, overlap: bool) -> tuple[float, float, float, float]:
    """A short run; see ``Clock.report``."""
    module = GRPOModule(
        Backbone(args.checkpoint), WeightedReward({"iou": IoUReward(), "format": FormatReward()}), GRPOLoss(),
        partial(torch.optim.AdamW, lr=1e-6, fused=True), group_size=args.group, temperature=0.7, overlap=overlap,
        advantage="batch_std", num_minibatches=args.minibatches, max_new_tokens=args.max_new_tokens, export=False,
    )  # fmt: skip
    data, clock = GRPODataModule(args.shards, batch_size=args.prompts), Clock()
    data.connect(module.backbone)
    with tempfile.TemporaryDirectory() as folder:
        trainer = L.Trainer(
            accelerator="cpu", devices=1, max_steps=args.steps * args.minibatches, max_epochs=-1, logger=False,
            enable_checkpointing=False, default_root_dir=folder, enable_progress_bar=False,
            enable_model_summary=False, use_distributed_sampler=False, callbacks=[clock],
        )  # fmt: skip
        trainer.fit(module, data)
    return clock.report()


def main() -> int:
    """Prints a line a turn, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("shards")
    parser.add_argument("--prompts", type=int, default=8, help="of a batch")
    parser.add_argument("--group", type=int, default=8, help="completions of each")
    parser.add_argument("--minibatches", type=int, default=2, help="optimizer steps of a batch")
    parser.add_argument("--max-new-tokens", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1, help="of each operator, in both threads")
    parser.add_argument("--steps", type=int, default=5, help="batches of a run; the first and the last are left out")
    parser.add_argument("--turns", type=int, default=3)
    args = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    ratios = []
    for turn in range(args.turns):
        walls = []
        for overlap in (False, True):
            wall, cpu, waited, tokens = fit(args, overlap)
            walls.append(wall)
            print(
                f"turn {turn}, overlap {overlap}: {wall:.2f} s a batch, {cpu:.2f} s of CPU, {waited:.2f} s waited for"
                f" samples; {tokens:.0f} tokens",
                flush=True,
            )
        ratios.append(walls[0] / walls[1])
    print(f"how many times as fast with overlap: {spread(ratios)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
