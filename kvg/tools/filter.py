"""Lets a stage-1 model answer each sample several times, and keeps what it sometimes gets right (paper section 4.2).

What is always right teaches nothing, and what is never right gives no reward to learn from: in both cases all
advantages of a group are 0.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvg.errors import ConfigError, DataError

if TYPE_CHECKING:
    import torch

    from kvg.backbones.base import Backbone
    from kvg.rl.rollout import SamplingSettings
    from kvg.shards.reader import SampleStore, Tally
    from kvg.types import Example, Sample

RECORD = "filter.json"  # beside the shards: the settings and the histogram
QWEN2_VL = "kvg.backbones.qwen2_vl.Qwen2VLBackbone"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("--in", dest="source", required=True, help="folder of shards, or a published file")
    parser.add_argument("--out", required=True, help="folder for the kept samples")
    parser.add_argument("--checkpoint", required=True, help="the stage-1 model: a Hugging Face folder, or lab")
    parser.add_argument("--backbone-class", default=QWEN2_VL, help=f"its family (default {QWEN2_VL})")
    parser.add_argument("--samples", type=int, default=4, help="answers per sample (default 4)")
    parser.add_argument("--temperature", type=float, default=1.0, help="of the answers (default 1)")
    parser.add_argument(
        "--iou", type=float, default=0.5, help="an answer with at least this IoU is right (default 0.5)"
    )
    parser.add_argument("--keep-min", type=int, default=1, help="right answers a kept sample has at least (default 1)")
    parser.add_argument("--keep-max", type=int, help="and at most (default: one less than --samples)")
    parser.add_argument("--batch-size", type=int, default=64, help="prompts at once (default 64)")
    parser.add_argument("--mode", default="think", help="prompt mode (default think)")
    parser.add_argument("--max-new-tokens", type=int, default=256, help="longest answer (default 256)")
    parser.add_argument("--limit", type=int, help="try only the first so many samples")
    parser.add_argument("--seed", type=int, default=0, help="of the answers (default 0)")
    parser.add_argument("--samples-per-shard", type=int, default=500, help="of every shard but the last (default 500)")
    parser.add_argument("--overwrite", action="store_true", help="replace a set that is already there")


@dataclass(frozen=True)
class Trial:
    """A sample and how many of the answers to it were right."""

    sample: Sample
    num_right: int


def run(args: argparse.Namespace) -> int:
    """Tries every sample and writes those that are neither too easy nor too hard.

    Raises:
        ConfigError: an option cannot work.
        DataError: the input cannot be used, or no sample is kept.
    """
    args.keep_max = args.samples - 1 if args.keep_max is None else args.keep_max
    check_options(args)

    from kvg.formats.stores import open_store
    from kvg.shards.reader import ShardFolder, Tally
    from kvg.shards.writer import ShardWriter

    store, tally, counts = open_store(args.source), Tally(), Counter[int]()
    before = store.manifest if isinstance(store, ShardFolder) else None
    settings = {name: value for name, value in vars(args).items() if name in _NOTED}
    start = time.perf_counter()
    with ShardWriter(
        args.out,
        args.samples_per_shard,
        seed=before.seed if before else None,
        config={**(before.config if before else {}), "filter": settings},
        overwrite=args.overwrite,
    ) as writer:
        for trial in _trials(args, store, tally):
            counts[trial.num_right] += 1
            if args.keep_min <= trial.num_right <= args.keep_max:
                noted = {**trial.sample.provenance, "num_right": trial.num_right, "num_tries": args.samples}
                writer.write(dataclasses.replace(trial.sample, provenance=noted))
        num_kept = sum(counts[right] for right in range(args.keep_min, args.keep_max + 1))
        if not num_kept:
            raise DataError(str(args.source), "filter", f"keeps nothing: {_listed(counts, args.samples)}; {_REMEDY}")
    record = {
        **settings,
        "right": {str(right): counts[right] for right in range(args.samples + 1)},
        "num_tried": counts.total(),
        "num_kept": num_kept,
        "num_bad": tally.num_bad,
        "num_cut": tally.num_cut,
        "seconds": round(time.perf_counter() - start, 1),
    }
    (Path(args.out) / RECORD).write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    print_histogram(counts, args.samples, args.keep_min, args.keep_max)
    bad = f"; {tally.num_bad} bad samples and {tally.num_cut} cut files passed over" if tally.problems else ""
    print(f"kept {num_kept} of {counts.total()} in {args.out}{bad}")
    return 0


_REMEDY = "train stage 1 longer, give easier or harder samples, or widen --keep-min and --keep-max"
_NOTED = (
    "source", "checkpoint", "backbone_class", "samples", "temperature", "iou", "keep_min", "keep_max", "mode",
    "max_new_tokens", "limit", "seed",
)  # fmt: skip


def check_options(args: argparse.Namespace) -> None:
    """Checks the options against each other, before torch is imported.

    Raises:
        ConfigError: one cannot work.
    """
    for name in ("samples", "batch_size", "max_new_tokens"):
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')}", f"{getattr(args, name)} must be at least 1")
    if not 0 <= args.keep_min <= args.keep_max <= args.samples:
        text = f"{args.keep_min} to {args.keep_max} is no range within 0 to {args.samples} right answers"
        raise ConfigError("--keep-min, --keep-max", text)
    if args.samples > 1 and args.temperature <= 0:
        raise ConfigError("--temperature", "must be above 0: greedy answers are all alike")


def load_backbone(class_path: str, checkpoint: str) -> Backbone:
    """Loads a frozen model onto the GPU, or where there is none onto the CPU with one thread.

    Raises:
        ConfigError: there is no such class or checkpoint, or they do not belong together.
    """
    import torch

    from kvg.backbones.base import Backbone
    from kvg.cpu import prepare_cpu

    module, _, name = class_path.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError("--backbone-class", f"'{class_path}' cannot be imported ({error}); correct it") from error
    if not (isinstance(kind, type) and issubclass(kind, Backbone)):
        raise ConfigError("--backbone-class", f"'{class_path}' is no backbone; give a subclass of Backbone")
    if not torch.cuda.is_available():
        prepare_cpu()
    backbone = kind(checkpoint)
    return backbone.requires_grad_(False).eval().to("cuda" if torch.cuda.is_available() else "cpu")


def _trials(args: argparse.Namespace, store: SampleStore, tally: Tally) -> Iterator[Trial]:
    import torch
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from kvg.rl.rollout import SamplingSettings
    from kvg.text.prompts import PROMPTS

    if args.mode not in PROMPTS:
        raise ConfigError("--mode", f"'{args.mode}' is not one of {', '.join(PROMPTS)}")
    backbone = load_backbone(args.backbone_class, args.checkpoint)
    settings = SamplingSettings(args.max_new_tokens, args.temperature)
    generator = torch.Generator(device=backbone.device).manual_seed(args.seed)
    num = sum(part.num_samples for part in store.parts())
    total = num if args.limit is None else min(num, args.limit)
    rate = TextColumn("{task.fields[rate]:.0f}/s")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
    start, num_done = time.perf_counter(), 0
    with Progress(*columns) as progress:
        task = progress.add_task("answering", total=total, rate=0.0)
        for samples, examples in _batches(args, store, backbone, tally):
            for sample, num_right in zip(
                samples,
                count_right(backbone, samples, examples, settings, args.samples, args.iou, generator),
                strict=True,
            ):
                yield Trial(sample, num_right)
            num_done += len(samples)
            done = num_done + tally.num_bad
            progress.update(task, completed=done, rate=num_done / (time.perf_counter() - start))


def _batches(
    args: argparse.Namespace, store: SampleStore, backbone: Backbone, tally: Tally
) -> Iterator[tuple[list[Sample], list[Example]]]:
    samples: list[Sample] = []
    examples: list[Example] = []
    num_taken = 0
    for part in store.parts():
        for _, sample in part.read(tally):
            if num_taken == args.limit:
                break
            num_taken += 1
            try:
                examples.append(backbone.processor.encode(sample, mode=args.mode, target=None))
            except DataError as error:
                tally.note(error)
                continue
            samples.append(sample)
            if len(samples) == args.batch_size:
                yield samples, examples
                samples, examples = [], []
    if samples:
        yield samples, examples


def count_right(
    backbone: Backbone,
    samples: Sequence[Sample],
    examples: Sequence[Example],
    settings: SamplingSettings,
    num_tries: int,
    iou_gate: float,
    generator: torch.Generator,
) -> list[int]:
    """Answers each prompt ``num_tries`` times and counts the boxes with an IoU of at least ``iou_gate``."""
    import torch

    from kvg.backbones.answers import answered_box, completion_texts
    from kvg.boxes import MISSING_BOX, iou
    from kvg.rl.rollout import rollout

    batch: dict[str, Any] = backbone.processor.collate(examples, samples, pad_left=True)
    moved = {k: v.to(backbone.device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
    out = rollout(backbone, moved, settings, num_tries, generator)
    texts = completion_texts(backbone, out.tokens, out.completion_mask)
    asked = [sample for sample in samples for _ in range(num_tries)]
    boxes = [answered_box(backbone, text, sample) or MISSING_BOX for text, sample in zip(texts, asked, strict=True)]
    hits = iou(torch.tensor(boxes), torch.tensor([sample.box_px for sample in asked])) >= iou_gate
    return [int(right) for right in hits.view(-1, num_tries).sum(1)]


def print_histogram(counts: Counter[int], num_tries: int, keep_min: int, keep_max: int) -> None:
    """Prints how many samples had 0, 1, ... right answers, as bars."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"right answers of {num_tries}", box=None)
    for title, side in (("right", "right"), ("samples", "right"), ("", "left"), ("share", "right"), ("", "left")):
        table.add_column(title, justify="right" if side == "right" else "left")
    most = max(counts.values(), default=1)
    for right in range(num_tries + 1):
        kept = keep_min <= right <= keep_max
        bar = "█" * round(30 * counts[right] / most)
        share = f"{counts[right] / max(1, counts.total()):.0%}"
        verdict = "kept" if kept else "dropped"
        table.add_row(str(right), str(counts[right]), bar, share, verdict, style=None if kept else "dim")
    Console().print(table)


def _listed(counts: Counter[int], num_tries: int) -> str:
    return ", ".join(
        f"{counts[right]} with {right}/{num_tries} right" for right in range(num_tries + 1) if counts[right]
    )
