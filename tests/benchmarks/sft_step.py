"""Tokens per second of stage 1 beside transformers' Trainer with padding, on the lab's own composites and cards.

    python tests/benchmarks/sft_step.py

Both train the lab's model on the same examples in the same order; each run is a process of its own, in turns. Tokens
are those of the examples, padding not counted. ``--checkpoint`` names another model, ``--device cuda`` a GPU.
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

sys.path.insert(0, str(Path(__file__).parent))
BATCH = 16


def examples_of(num: int, args: argparse.Namespace) -> tuple[Any, list[Any], list[Any]]:
    """A model, tokenised composites with rationales and cards as in the demo's stage 1, and their samples."""
    from kvg.backbones.backbone import Backbone
    from kvg.backbones.lora import LoRASettings
    from kvg.composites.compositor import Compositor
    from kvg.lab.world import LabSource, lab_canvas
    from kvg.rationales.rationale import CardWriter

    backbone = Backbone(
        str(args.checkpoint or "lab-random"), dtype=args.dtype, max_pixels=max(19600, args.image_size**2),
        lora=LoRASettings(args.lora, 2 * args.lora) if args.lora else None, gradient_checkpointing=args.recompute,
    )  # fmt: skip
    if args.checkpoint:
        return backbone, *larger_examples(backbone, num, args.image_size)
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


def larger_examples(backbone: Any, num: int, side: int) -> tuple[list[Any], list[Any]]:
    """Composites with rationales on squares of this side in pixels, tokenised, and their samples."""
    from checkpoints import lab_samples

    from kvg.rationales.rationale import CardWriter

    samples = [replace(sample, rationale=CardWriter().write(sample)) for sample in lab_samples(num, side)]
    return [backbone.processor.encode(one, mode="think", target="rationale") for one in samples], samples


def ours(batches: list[Any], backbone: Any, share: bool) -> list[float]:
    """Seconds of each step of our stage 1."""
    import torch

    backbone.shares_prefix = share and backbone.shares_prefix
    device = backbone.device
    optimizer = torch.optim.AdamW([p for p in backbone.parameters() if p.requires_grad], lr=1e-4, fused=True)
    seconds = []
    for batch in batches:
        start = time.perf_counter()
        loss, _ = backbone.label_loss(batch.to(device))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return seconds


def transformers_trainer(batches: list[Any], backbone: Any) -> list[float]:
    """Seconds of each step of ``transformers.Trainer`` on the same padded batches."""
    import tempfile

    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments

    wait = torch.cuda.synchronize if backbone.device.type == "cuda" else lambda: None

    class Steps(TrainerCallback):
        def __init__(self) -> None:
            self.marks: list[float] = []

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            wait()
            self.marks.append(time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            wait()
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
            use_cpu=backbone.device.type == "cpu", save_strategy="no", disable_tqdm=True, remove_unused_columns=False,
            logging_strategy="no", optim="adamw_torch_fused",
        )  # fmt: skip
        steps = Steps()
        trainer = Trainer(
            backbone.model, settings, train_dataset=rows, data_collator=lambda found: found[0], callbacks=[steps]
        )
        trainer.get_train_dataloader = lambda: rows
        trainer.train()
    return [b - a for a, b in zip(steps.marks[0::2], steps.marks[1::2], strict=True)]


def measure(args: argparse.Namespace) -> dict[str, float]:
    """One run in this process."""
    import torch

    from kvg.work.cpu import prepare_cpu

    torch.manual_seed(0)
    prepare_cpu()
    size, way = args.batch, args.way
    backbone, examples, samples = examples_of(size * (args.steps + 1), args)
    batches = [backbone.processor.collate(examples[at : at + size], samples) for at in range(0, len(examples), size)]
    tokens = [float(batch.attention_mask.sum()) for batch in batches]
    backbone.to(args.device).train()
    seconds = transformers_trainer(batches, backbone) if way == "trainer" else ours(batches, backbone, way == "packed")
    padded = sum(batch.input_ids.numel() for batch in batches)
    found = {"tokens_per_s": sum(tokens[1:]) / sum(seconds[1:]), "padding": 1 - sum(tokens) / padded}
    found |= {"step_s": median(seconds[1:]), "tokens": sum(tokens[1:])}
    if args.device == "cuda":
        found["peak_gpu_mib"] = torch.cuda.max_memory_allocated() // 2**20
    return found


def main() -> int:
    """Runs all ways in turns and prints ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12, help="timed steps; one more comes before them")
    parser.add_argument("--way", choices=("packed", "padded", "trainer"), help="measure in this process, print JSON")
    parser.add_argument("--checkpoint", type=Path, help="folder of a Qwen2-VL checkpoint (default: the lab's model)")
    parser.add_argument("--batch", type=int, default=BATCH, help="examples a step (default 16)")
    parser.add_argument("--image-size", type=int, default=140, help="side of pictures, with --checkpoint (default 140)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the weights")
    parser.add_argument("--lora", type=int, default=0, help="rank of adapters (default 0: whole training)")
    parser.add_argument("--recompute", action="store_true", help="activations in the backward pass")
    args = parser.parse_args()
    if args.way:
        print(json.dumps(measure(args)))
        return 0
    found: dict[str, list[dict[str, float]]] = {"packed": [], "padded": [], "trainer": []}
    for _ in range(args.turns):
        for way, runs in found.items():
            command = [sys.executable, str(Path(__file__)), *sys.argv[1:], "--way", way]
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
