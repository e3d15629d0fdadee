"""``kvg plan``: the memory that a training needs on each GPU, before it runs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from kvg.errors import ConfigError

_EPILOG = """examples:
  kvg plan -c configs/experiment/qwen2_vl_7b_grpo.yaml
  kvg plan -c configs/experiment/qwen2_vl_7b_cot_sft.yaml --size Qwen2-VL-72B --trainer.devices 8 --trainer.num_nodes 8
  kvg plan -c configs/stage/cot_sft.yaml -c configs/backbone/qwen2_vl_2b.yaml --tokens 1024

All other arguments are those of `kvg fit`. Neither weights nor data nor a GPU are needed.
"""


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(
        prog="kvg plan",
        description="Runs a training step with tensors that have shapes and no memory, and counts what it would hold.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = made.add_argument
    add("-c", "--config", action="append", default=[], metavar="CONFIG", help="as for kvg fit; may be repeated")
    add("--size", metavar="NAME", help="published model to plan for (default: that which the checkpoint names)")
    add("--tokens", type=int, help="of the longest sample or prompt, where it is below data.max_tokens")
    add("--card", type=float, default=80, metavar="GB", help="of the GPUs whose table is shown (default 80)")
    add("--write", action="store_true", help="put the plan into the head of the last config")
    return made


def run(args: Sequence[str]) -> None:
    """Prints the plan.

    Raises:
        ConfigError: the settings cannot work, or no size of the model is known.
    """
    options, settings = parser().parse_known_args(list(args))
    if not options.config:
        raise ConfigError("-c", "is missing; name the configs of a training")
    path = Path(options.config[-1])
    if options.write and not path.is_file():
        raise ConfigError("--write", f"{path} is no file here, but one of the package; copy it first")
    from kvg.planning.command import planned
    from kvg.planning.heads import with_plan

    words = [word for path in options.config for word in ("-c", path)] + settings
    lines = planned(words, options.size, options.tokens, options.card)
    print("\n".join(lines))
    if options.write:
        command = " ".join(["kvg plan", *(word for word in args if word != "--write")])
        path.write_text(with_plan(path.read_text("utf-8"), command, lines), "utf-8")
