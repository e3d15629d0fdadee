"""Installs a pretrained lab model in the package: weights, training log, exam and checksums (`make base`)."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kvg.backbones.backbone import Backbone
from kvg.backbones.builtin import lab_folder
from kvg.errors import DataError
from kvg.pipeline.exam import examine

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


def install_base(run: Path, target: Path | None = None, num: int = 500, seed: int = 12345) -> dict[str, float]:
    """Copies the export of a pretraining, examines the model, and writes checksums of the files.

    Args:
        run: folder of the finished pretraining.
        target: folder of the model; None for ``kvg/lab/base`` of this package.
        num: number of scenes per skill in the exam.
        seed: seed of the scenes.

    Returns:
        The figures of the exam.

    Raises:
        DataError: the run has no export.
    """
    source, target = run / "export", target or lab_folder()
    if not (source / "model.safetensors").is_file():
        raise DataError(str(source), "model.safetensors", "is missing; finish `kvg fit -c configs/lab/pretrain.yaml`")
    target.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    write_log(run, target / LOG)
    figures = examine(Backbone(str(target), max_pixels=None).eval(), num, seed)
    record = {"num": num, "seed": seed, **{name: round(value, 4) for name, value in figures.items()}}
    (target / EXAM).write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    sums = [f"{checksum(target / name)}  {name}" for name in (*FILES, LOG, EXAM) if (target / name).is_file()]
    (target / SUMS).write_text("\n".join(sums) + "\n", "utf-8")
    return figures


def checksum(path: Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_log(folder: Path, out: Path) -> None:
    """Writes the run's TensorBoard scalars as a table: a column for the step, then one for each scalar."""
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
