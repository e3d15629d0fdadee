"""``kvg app``: a page for a browser, on which models find an entity on a picture."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from kvg.cli.exports import missing_checkpoint, named_checkpoints
from kvg.errors import ConfigError

_EPILOG = """examples:
  kvg app --checkpoint runs/demo/grpo/export
  kvg app --checkpoint base=lab stage1=runs/demo/cot_sft/export mine=runs/demo/grpo/export

It serves this machine only (http://127.0.0.1:7860), fetches nothing, and sends nothing. It needs Gradio:
pip install 'kvg[app]'.
"""
_MAX_MODELS = 4  # more do not fit beside each other


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(
        prog="kvg app",
        description="A page for a browser: a picture and a name; the model's text as it is written, and its boxes.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    text = "a model as in kvg ground; up to four, beside each other, with names of your choice"
    add("--checkpoint", nargs="+", action="extend", metavar="[NAME=]CHECKPOINT", help=text)
    add(
        "--examples",
        type=Path,
        metavar="SET",
        help="set of samples (default: the demo's, or drawings of the lab)",
    )
    add("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1: this machine only)")
    add("--port", type=int, default=7860, help="default 7860")
    add("--mode", default="auto", help="prompt mode: auto (as each model was trained), think, direct, cot, json")
    add("--max-new-tokens", type=int, default=512, help="longest answer (default 512)")
    add("--min-pixels", type=int, help="smallest area of a resized picture (default: the checkpoint's)")
    add("--max-pixels", type=int, help="largest area (default: the checkpoint's)")
    return made


def run(argv: Sequence[str]) -> None:
    """Runs the command.

    Args:
        argv: arguments after ``app``.

    Raises:
        ConfigError: an option is wrong, or Gradio is not installed.
        DataError: the examples cannot be read.
    """
    args = parser().parse_args(argv)
    if not args.checkpoint:
        raise missing_checkpoint()
    checkpoints = named_checkpoints(args.checkpoint, _MAX_MODELS)
    version = metadata.version("gradio") if importlib.util.find_spec("gradio") else ""
    if version.partition(".")[0] != "6":
        raise ConfigError("app", f"needs Gradio 6: pip install 'kvg[app]'{f' (here is {version})' if version else ''}")
    if args.host not in ("127.0.0.1", "localhost", "::1"):
        warning = "whoever reaches this address can use the models and the memory of this machine; there is no password"
        print(f"kvg: warning: --host {args.host}: {warning}", file=sys.stderr)
    from kvg.app.serve import AppSettings, serve
    from kvg.pipeline.ground import GroundSettings

    limits = args.mode, args.max_new_tokens, args.min_pixels, args.max_pixels
    models = {name: GroundSettings(checkpoint, *limits) for name, checkpoint in checkpoints.items()}
    serve(AppSettings(models, args.examples, args.host, args.port))
