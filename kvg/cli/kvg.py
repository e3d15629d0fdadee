"""The command line ``kvg``: fit, validate, test and predict from overlays of YAML."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

from kvg.config.overlay_files import check_overlays, shipped_configs, switches, with_test_sets
from kvg.config.search_path import search_user_folders_last
from kvg.errors import ConfigError, KVGError

COMMANDS = {
    "fit": "train a stage",
    "validate": "measure a model on the validation set",
    "test": "write a model's answers to the test sets to predictions.jsonl, and measure them",
    "predict": "write them, without measuring",
}
USAGE = """usage: kvg {fit,validate,test,predict} -c CONFIG [-c CONFIG ...] [--KEY VALUE ...]

%(commands)s

Configs are overlays, merged from left to right: the stage first, then backbone, data and strategy. A path that
starts with configs/ also names a config shipped with the package. Any setting can be given as --KEY VALUE.

  kvg fit -c configs/stage/cot_sft.yaml -c configs/backbone/lab.yaml --data.train runs/data/train
  kvg fit -c configs/experiment/qwen2_vl_7b_cot_sft.yaml --data.train cot-sft.json
  kvg test -c configs/stage/cot_sft.yaml -c configs/backbone/lab.yaml --data.test runs/data/test
  kvg fit -c configs/stage/cot_sft.yaml --print_config     the merged settings
  kvg fit --help                                           every setting (takes some seconds)

An interrupted fit (Ctrl-C) saves a checkpoint and prints how to resume; --ckpt_path last resumes from the newest one.
A folder that holds a run is an error, unless the fit resumes from its checkpoint or --overwrite is given.

Errors in the settings end with exit code 2. All other commands are in kvg-data.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: arguments after the program's name; those of the process by default.

    Returns:
        The exit code: 0, or 2 for settings or data that cannot be used (one line on stderr says which).
    """
    args = list(sys.argv[1:] if argv is None else argv)
    search_user_folders_last(args)
    if not args or args[0] in ("-h", "--help"):
        lines = (f"  {name:<10}{text}" for name, text in COMMANDS.items())
        print(USAGE % {"commands": "\n".join(lines)}, end="", file=sys.stdout if args else sys.stderr)
        return 0 if args else 2
    try:
        if args[0] not in COMMANDS:
            raise ConfigError(args[0], f"no such command; there are {', '.join(COMMANDS)}")
        typed, args = args, with_test_sets(switches(shipped_configs(args)))
        check_overlays(args)
        from kvg.training.lightning_cli import run

        run(args, typed)
    except KVGError as error:
        print(f"kvg: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, SystemExit) as stop:
        # Lightning ends with exit code 1 where it has caught an interrupt.
        if isinstance(stop, SystemExit) and not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        if argv is None:  # nothing is left to do but to end, which a second Ctrl-C may cut short
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        print("kvg: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
