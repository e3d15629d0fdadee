"""Puts a freshly pretrained lab model into the package: weights, training log, exam and checksums. `make base`."""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import shutil
from pathlib import Path

from kvg.errors import DataError

FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)
SUMS = "SHA256SUMS"
LOG, EXAM = "training_log.csv", "exam.json"


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
    source = Path(args.folder) / "export"
    if not (source / "model.safetensors").is_file():
        raise DataError(str(source), "model.safetensors", "is missing; finish `kvg fit -c configs/lab/pretrain.yaml`")
    from kvg.backbones.backbone import Backbone
    from kvg.backbones.builtin import lab_folder
    from kvg.cli.exam import examine

    target = Path(args.out) if args.out else lab_folder()
    target.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    write_log(Path(args.folder), target / LOG)
    figures = examine(Backbone(str(target), max_pixels=None).eval(), args.num, args.seed)
    record = {"num": args.num, "seed": args.seed, **{name: round(value, 4) for name, value in figures.items()}}
    (target / EXAM).write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    for name, value in figures.items():
        print(f"{name:28s} {value:6.1%}")
    sums = [f"{checksum(target / name)}  {name}" for name in (*FILES, LOG, EXAM) if (target / name).is_file()]
    (target / SUMS).write_text("\n".join(sums) + "\n", "utf-8")
    print(f"the lab's base is in {target}")
    return 0


def checksum(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_log(folder: Path, out: Path) -> None:
    """Writes the run's TensorBoard scalars as a table: step, then a column for each scalar."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    values: dict[int, dict[str, float]] = {}
    for events in sorted(folder.rglob("events.out.tfevents.*")):
        log = EventAccumulator(str(events), size_guidance={"scalars": 0}).Reload()
        for tag in log.Tags()["scalars"]:
            for point in log.Scalars(tag):
                values.setdefault(point.step, {})[tag] = point.value
    tags = sorted({tag for row in values.values() for tag in row} - {"epoch"})
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["step", *tags])
        for step, row in sorted(values.items()):
            writer.writerow([step, *(f"{row[tag]:.4g}" if tag in row else "" for tag in tags)])
