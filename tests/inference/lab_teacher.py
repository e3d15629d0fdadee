"""Trains the lab's base to be a teacher: told a composite's names and boxes as the data engine tells them, it reasons.

    python tests/inference/lab_teacher.py --out runs/lab-teacher --steps 400
    python tests/inference/real_server.py --model runs/lab-teacher --port 8000

A stand-in for a big model in trials of ``kvg-data rationalize`` without a GPU. It learns from the card writer's words:
its rationales are right where it looks well, and what it gets wrong is for the checks of the answers to find.
"""

from __future__ import annotations

import argparse
import dataclasses
import time

import torch

from kvg.backbones.backbone import Backbone
from kvg.composites.compositor import Compositor
from kvg.lab.world import LabSource, lab_canvas
from kvg.rationales.rationale import CardWriter
from kvg.rationales.teacher import teacher_prompt
from kvg.text.box_codec import ImageSize
from kvg.text.prompts import fill_boxes
from kvg.types import Sample
from kvg.work.cpu import prepare_cpu


def told_and_wanted(backbone: Backbone, sample: Sample) -> tuple[str, str]:
    """The question, and the four parts that answer it."""
    size = ImageSize(sample.width, sample.height, sample.width, sample.height)
    boxes = [backbone.codec.encode(o.box_px, size) for o in sample.objects]
    parts = fill_boxes(CardWriter().write(sample), boxes)
    for title in ("Look:", "Compare:", "Conclusion:"):
        parts = parts.replace(f" {title}", f"\n{title}")
    return teacher_prompt(sample, backbone.codec, size), parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--lr", type=float, default=1e-3)
    args = parser.parse_args()
    prepare_cpu()
    torch.manual_seed(0)
    backbone = Backbone("lab", max_pixels=None, freeze_vision=True, freeze_projector=True).train()
    config = dataclasses.replace(lab_canvas(77, {2: 1.0, 3: 1.0, 4: 1.0}, 0.5))
    compositor = Compositor(LabSource(variants=16, pool="train"), config)
    trained = [p for p in backbone.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=args.lr, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, args.steps, pct_start=0.1)
    began = time.monotonic()
    for step in range(args.steps):
        samples = [compositor.sample(step * args.batch_size + i) for i in range(args.batch_size)]
        pairs = [told_and_wanted(backbone, sample) for sample in samples]
        examples = [
            backbone.processor.encode_question(sample.key, sample.image, asked, wanted)
            for sample, (asked, wanted) in zip(samples, pairs, strict=True)
        ]
        loss, _ = backbone.label_loss(backbone.processor.collate(examples, samples))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step + 1 == args.steps:
            tokens = len(examples[0]["input_ids"])
            print(f"{step:5d} loss {loss.item():.3f}, {tokens} tokens, {time.monotonic() - began:.0f} s", flush=True)
    backbone.export(args.out)


if __name__ == "__main__":
    main()
