"""``kvg doctor``: checks before a training, with the answers of the base."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from kvg.config.overlay_files import check_overlays, shipped_configs

_EPILOG = """examples:
  kvg doctor -c configs/stage/cot_sft.yaml -c configs/backbone/lab.yaml --data.train runs/data/train
  kvg doctor -c configs/experiment/qwen2_vl_7b_grpo.yaml --data.train runs/data/filtered --num 40

Configs and settings are those of kvg fit. The base answers about some twenty samples of the training set, in this
process, on a GPU if there is one. Exit code: 0, 1 where a check finds a fault, 2 for settings or data that cannot be
used. It can be interrupted; the same command resumes.
"""


def parser() -> argparse.ArgumentParser:
    """The options of the command itself; all others are those of ``kvg fit``."""
    made = argparse.ArgumentParser(
        prog="kvg doctor",
        description="Asks the base about samples of the training set; says which box convention its answers have, and"
        " checks special tokens, names, pictures, lengths, and the rewards of groups.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = made.add_argument
    add("-c", "--config", action="append", default=[], metavar="CONFIG", help="an overlay, as in kvg fit")
    add("--num", type=int, default=20, help="samples that the base is asked about (default 20)")
    add("--mode", default="auto", help="prompt mode of these questions: auto (stage 2: data.mode; stage 1: as the base "
        "was trained, or direct, json, qwen), think, direct, cot, json, qwen")  # fmt: skip
    add("--out", type=Path, help="folder for doctor.html and doctor.json (default: trainer.default_root_dir-doctor)")
    add("--seed", type=int, default=0, help="of the choice of samples and of rollouts (default 0)")
    return made


def split(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The command's own options, and the arguments of ``kvg fit``.

    Args:
        argv: arguments after ``doctor``.
    """
    options, settings = parser().parse_known_args(argv)
    return options, [*(word for path in options.config for word in ("-c", path)), *settings]


def run(argv: Sequence[str]) -> int:
    """Runs the command.

    Args:
        argv: arguments after ``doctor``.

    Returns:
        0, or 1 where a check finds a fault.

    Raises:
        KVGError: a setting or the data cannot be used.
    """
    options, settings = split(argv)
    args = shipped_configs(settings)
    check_overlays(args)
    from kvg.pipeline.doctor.doctor import DoctorSettings, examine

    result = examine(args, DoctorSettings(options.num, options.mode, options.out, options.seed))
    print(result.text())
    return 1 if result.num_faults else 0
