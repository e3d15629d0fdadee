"""The command line ``kvg``: fit, validate, test, predict and doctor from overlays of YAML, ground, and app."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence

from kvg.cli.usage import COMMANDS, OWN_OPTIONS, USAGE
from kvg.config.overlay_files import check_overlays, shipped_configs, switches, with_test_sets
from kvg.config.search_path import search_user_folders_last
from kvg.errors import ConfigError, KVGError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: arguments after the program's name; those of the process by default.

    Returns:
        The exit code: 0; 1 where ``kvg doctor`` finds a fault; 2 for settings or data that cannot be used (one line on
        stderr says which).
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
        if args[0] in OWN_OPTIONS:
            return int(importlib.import_module(f"kvg.cli.{args[0]}").run(args[1:]) or 0)
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
    except BrokenPipeError:  # the reader of the output has closed it (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the final flush would fail
        return 141
    return 0


if __name__ == "__main__":
    sys.exit(main())
