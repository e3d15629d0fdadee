"""Tokens per second of stage 1 beside transformers' Trainer with padding, on the lab's own composites and cards.

    python tests/benchmarks/sft_step.py

Both train the lab's model on the same examples in the same order; each run is a process of its own, in turns. Tokens
are those of the examples, padding not counted.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

BATCH = 16


def examples_of(num: int) -> tuple[Any, list[Any], list[Any]]:
    """A fresh model, tokenised composites with rationales and cards as in the demo's stage 1, and their samples."""
    from kvg.backbones.backbone import Backbone
    from kvg.composites.compositor import Compositor
    from kvg.lab.world import LabSource, lab_canvas
    from kvg.rationales.rationale import CardWriter

    backbone = Backbone("lab-random", max_pixels=19600)
    compositor = Compositor(LabSource(variants=2), lab_canvas(0, {2: 1.0, 3: 1.0, 4: 1.0}, 0.5))
    samples, examples = [], []
    for index in range(num):
        sample = compositor.sample(index)
        if index % 5 < 2:  # replayed cards are two in five there
            card = sample.objects[sample.target]
            examples.append(backbone.processor.encode_text(f"Describe the {card.entity}.", card.description))
            continue
        filled = replace(sample, rationale=CardWriter().write(sample))
        samples.append(filled)
        examples.append(backbone.processor.encode(filled, mode="think", target="rationale"))
    return backbone, examples, samples


def ours(batches: list[Any], backbone: Any, share: bool) -> list[float]:
    """Seconds of each step of our stage 1."""
    import torch

    backbone.shares_prefix = share and backbone.shares_prefix
    optimizer = torch.optim.AdamW([p for p in backbone.parameters() if p.requires_grad], lr=1e-4)
    seconds = []
    for batch in batches:
        start = time.perf_counter()
        loss, _ = backbone.label_loss(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
    return seconds


def transformers_trainer(batches: list[Any], backbone: Any) -> list[float]:
    """Seconds of each step of ``transformers.Trainer`` on the same padded batches."""
    import tempfile

    from transformers import Trainer, TrainerCallback, TrainingArguments

    class Steps(TrainerCallback):
        def __init__(self) -> None:
            self.marks: list[float] = []

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.marks.append(time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.marks.append(time.perf_counter())

    names = ("input_ids", "labels", "attention_mask")
    rows = []
    for batch in batches:
        row, pictures = {name: getattr(batch, name) for name in names}, batch.pictures.tensors
        row["pixel_values"] = backbone.processor.pictures.pixel_values(pictures["patches"])
        row["image_grid_thw"] = pictures["grid"]
        row["mm_token_type_ids"] = (batch.input_ids == backbone.processor.image_token_id).int()
        rows.append(row)
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            folder, per_device_train_batch_size=1, max_steps=len(rows), learning_rate=1e-4, report_to="none",
            use_cpu=True, save_strategy="no", disable_tqdm=True, remove_unused_columns=False, logging_strategy="no",
        )  # fmt: skip
        steps = Steps()
        trainer = Trainer(
            backbone.model, settings, train_dataset=rows, data_collator=lambda found: found[0], callbacks=[steps]
        )
        trainer.get_train_dataloader = lambda: rows
        trainer.train()
    return [b - a for a, b in zip(steps.marks[0::2], steps.marks[1::2], strict=True)]


def measure(way: str, steps: int) -> dict[str, float]:
    """One run in this process."""
    import torch

    from kvg.work.cpu import prepare_cpu

    torch.manual_seed(0)
    prepare_cpu()
    backbone, examples, samples = examples_of(BATCH * (steps + 1))
    batches = [backbone.processor.collate(examples[at : at + BATCH], samples) for at in range(0, len(examples), BATCH)]
    tokens = [float(batch.attention_mask.sum()) for batch in batches]
    backbone.train()
    seconds = transformers_trainer(batches, backbone) if way == "trainer" else ours(batches, backbone, way == "packed")
    padded = sum(batch.input_ids.numel() for batch in batches)
    return {"tokens_per_s": sum(tokens[1:]) / sum(seconds[1:]), "padding": 1 - sum(tokens) / padded}


def main() -> int:
    """Runs all ways in turns and prints ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12, help="timed steps; one more comes before them")
    parser.add_argument("--way", choices=("packed", "padded", "trainer"), help="measure in this process, print JSON")
    args = parser.parse_args()
    if args.way:
        print(json.dumps(measure(args.way, args.steps)))
        return 0
    found: dict[str, list[dict[str, float]]] = {"packed": [], "padded": [], "trainer": []}
    for _ in range(args.turns):
        for way, runs in found.items():
            command = [sys.executable, str(Path(__file__)), "--way", way, "--steps", str(args.steps)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            runs.append(json.loads(done.stdout.splitlines()[-1]))
    print(f"padding is {found['packed'][0]['padding']:.0%} of the padded batches")
    for way, runs in found.items():
        ratios = [a["tokens_per_s"] / b["tokens_per_s"] for a, b in zip(found["packed"], runs, strict=True)]
        speed = median(run["tokens_per_s"] for run in runs)
        spread = f"{median(ratios):.2f} times as fast ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"{way:8s} {speed:6.0f} tokens/s; packed is {spread}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
