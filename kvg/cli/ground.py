"""``kvg ground``: finds an entity on a picture, or on many."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from kvg.cli.exports import missing_checkpoint
from kvg.errors import ConfigError, DataError

_EPILOG = """examples:
  kvg ground dog.jpg "Clumber Spaniel" --checkpoint runs/demo/grpo/export
  kvg ground photographs/ "Clumber Spaniel" --checkpoint runs/demo/grpo/export
  kvg ground pairs.jsonl --checkpoint runs/demo/grpo/export     lines {"image": "dog.jpg", "entity": "Clumber Spaniel"}

A folder or a list can be interrupted; the same command resumes. answers.jsonl grows with each batch, and so does the
output of --json. Pictures that cannot be used are counted and left out.
"""


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(
        prog="kvg ground",
        description="Finds an entity by its name: prints the model's text and the box, and draws the box.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("source", metavar="PICTURE", help="a picture, a folder of pictures, or a list of pairs (.jsonl)")
    add("entity", metavar="NAME", nargs="?", help="what to find; a list has its own names")
    add("--checkpoint", help="RUN/export of a training, lab (small, shipped), LoRA adapters, or a hub name")
    add("--mode", default="auto", help="prompt mode: auto (as the model was trained), think, direct, cot, json")
    add("--out", type=Path, help="the picture with the box (default: PICTURE.boxed.jpg), or a folder for many")
    add("--json", action="store_true", help="print one line of JSON for each answer, and nothing else on stdout")
    add("--max-new-tokens", type=int, default=512, help="longest answer (default 512)")
    add("--min-pixels", type=int, help="smallest area of a resized picture (default: the checkpoint's)")
    add("--max-pixels", type=int, help="largest area (default: the checkpoint's)")
    add("--batch-size", type=int, default=16, help="pictures at once, of a folder or a list (default 16)")
    return made


def run(argv: Sequence[str]) -> None:
    """Runs the command.

    Args:
        argv: arguments after ``ground``.

    Raises:
        ConfigError: an option is wrong.
        DataError: a single picture cannot be used, or none of several.
    """
    args = parser().parse_args(argv)
    source = Path(args.source)
    if not source.exists():
        raise DataError(str(source), "image", "does not exist; give a picture, a folder or a list (.jsonl)")
    many = source.is_dir() or source.suffix.lower() == ".jsonl"
    if not many and args.entity is None:
        raise ConfigError("NAME", f'is missing: what is to be found? kvg ground {source} "Clumber Spaniel"')
    if not args.checkpoint:
        raise missing_checkpoint()
    from kvg.pipeline.ground import GroundSettings, ground_many, ground_picture

    limits = args.max_new_tokens, args.min_pixels, args.max_pixels, args.batch_size
    settings = GroundSettings(args.checkpoint, args.mode, *limits)
    if not many:
        ground_picture(source, args.entity, args.out, settings, args.json)
        return
    result = ground_many(source, args.entity, args.out, settings, args.json)
    if not args.json:
        print(result.summary())
