"""``kvg-data completion``: prints the completion of ``kvg`` and ``kvg-data`` for a shell."""

from __future__ import annotations

import argparse
import importlib

SHELLS = ("bash", "zsh", "tcsh")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("shell", choices=SHELLS)
    parser.add_argument("--program", choices=("kvg", "kvg-data"), default="kvg-data", help="default kvg-data")


def run(args: argparse.Namespace) -> int:
    """Prints.

    Raises:
        ConfigError: shtab is not installed.
    """
    from kvg.errors import ConfigError

    try:
        import shtab
    except ImportError as error:
        raise ConfigError("completion", "needs the package shtab: pip install shtab") from error
    if args.program == "kvg":
        parser = _parser_of_kvg(shtab.FILE)
    else:
        from kvg.cli.commands import COMMANDS
        from kvg.cli.kvg_data import parser_of

        parser = parser_of(COMMANDS)
    print(shtab.complete(parser, args.shell))
    return 0


def _parser_of_kvg(of_files: object) -> argparse.ArgumentParser:
    """Commands and configs; the parser of all settings takes seconds to build, too long for each key press."""
    from kvg.cli.usage import COMMANDS, OWN_OPTIONS

    parser = argparse.ArgumentParser(prog="kvg")
    commands = parser.add_subparsers()
    for name, text in COMMANDS.items():
        if name in OWN_OPTIONS:
            own = importlib.import_module(f"kvg.cli.{name}").parser()
            commands.add_parser(name, help=text, parents=[own], add_help=False)
            continue
        command = commands.add_parser(name, help=text)
        command.add_argument("-c", "--config", action="append").complete = of_files  # type: ignore[attr-defined]
        command.add_argument("--print_config", action="store_true")
    return parser
