"""The command line ``kvg-data``: everything that does not train.

A command is a file of this folder with ``add_arguments(parser)`` and ``run(args) -> int``. It is imported when it is
named, and imports nothing heavy at its top, so that ``--help`` is quick.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Collection, Sequence

from kvg.cli.commands import COMMANDS, EXAMPLES
from kvg.config.overlay_files import shipped
from kvg.config.search_path import search_user_folders_last
from kvg.errors import KVGError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: arguments after the program's name; those of the process by default.

    Returns:
        The command's exit code, or 2 for data or settings that cannot be used (one line on stderr says which).
    """
    args = [shipped(arg) for arg in (sys.argv[1:] if argv is None else argv)]
    search_user_folders_last(args)
    named = args[0] if args else ""
    parser = parser_of([named])
    try:
        options = parser.parse_args(args)
        return int(importlib.import_module(f"kvg.cli.{named}").run(options) or 0)
    except SystemExit as stop:  # argparse has said what is wrong, or has printed the help
        return stop.code if isinstance(stop.code, int) else 2
    except KVGError as error:
        print(f"kvg-data: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if argv is None:  # nothing is left to do but to end, which a second Ctrl-C may cut short
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        print("kvg-data: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of the output has closed it (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the final flush would fail
        return 141


def parser_of(named: Collection[str]) -> argparse.ArgumentParser:
    """The parser of all commands.

    Args:
        named: commands that are imported for their options.
    """
    parser = argparse.ArgumentParser(prog="kvg-data", description="Everything that does not train.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, text in COMMANDS.items():
        sub = commands.add_parser(
            name, help=text, description=text[0].upper() + text[1:] + ".", epilog=f"example: {EXAMPLES[name]}"
        )
        if name in named:
            importlib.import_module(f"kvg.cli.{name}").add_arguments(sub)
    return parser


if __name__ == "__main__":
    sys.exit(main())
