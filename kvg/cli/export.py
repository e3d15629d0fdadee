"""``kvg export``: writes a model as a Hugging Face folder that other programs read."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from kvg.errors import ConfigError

_EPILOG = """examples:
  kvg export runs/sft/lightning_logs/version_0/checkpoints/last.ckpt --out runs/sft-model
  kvg export runs/adapters --out runs/merged --figures runs/test --license apache-2.0
  kvg export runs/sft/export --out runs/published --push name/repository

The checkpoint is a file or a sharded folder of a training, a folder of PEFT's adapters, or a model. Adapters are
merged, and every tensor is checked against the model that the training began with before the folder appears. Nothing
is uploaded without --push.
"""


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(
        prog="kvg export",
        description="Writes safetensors, settings, tokenizer, chat template, picture settings and a model card.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("checkpoint", metavar="CHECKPOINT", help="of a training, a folder of a model or of adapters, or a hub name")
    add("--out", type=Path, required=True, help="folder; an earlier model there is replaced")
    add("--config", type=Path, help="config.yaml of the training (default: that in its folder)")
    add("--base", help="model that the training began with, where it has been moved")
    add("--mode", help="prompt mode that the model was trained with (default: the checkpoint's)")
    add("--adapter", action="store_true", help="write the adapters of a training alone, in PEFT's format")
    add("--figures", nargs="+", default=[], metavar="RUN", help="folders with predictions.jsonl, for the model card")
    add("--data", nargs="+", default=[], metavar="SET", help="training sets (default: those of the config)")
    add("--license", default="", metavar="SPDX", help="of the model (default: that in the card of its base)")
    add("--push", metavar="REPOSITORY", help="upload the folder to this private repository of the Hugging Face hub")
    return made


def run(argv: Sequence[str]) -> None:
    """Runs the command.

    Args:
        argv: arguments after ``export``.

    Raises:
        ConfigError: an option or the checkpoint cannot be used.
        TrainingError: a tensor is not what it should be; nothing was written.
    """
    args = parser().parse_args(argv)
    from kvg.text.prompts import PROMPTS

    if args.mode is not None and args.mode not in PROMPTS:
        raise ConfigError("--mode", f"'{args.mode}' is no prompt mode; choose from {', '.join(PROMPTS)}")
    if args.config is not None and not args.config.is_file():
        raise ConfigError("--config", f"'{args.config}' does not exist; correct the path")
    from kvg.pipeline.export import ExportSettings, export
    from kvg.pipeline.model_card import CardSources

    card = CardSources(tuple(args.figures), tuple(args.data), args.license)
    places = (args.config, args.base, args.mode, args.adapter)
    checked = export(ExportSettings(args.checkpoint, args.out, *places, card, args.push))
    print(f"{args.out}: {checked}")
