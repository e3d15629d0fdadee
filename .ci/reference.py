"""Writes the reference pages that are made from the code: commands, and keys of configs.

    python .ci/reference.py [--check]

The pages are ``docs/reference/commands.md`` and ``docs/reference/configuration.md``. With ``--check`` nothing is
written; the exit code is 1 if a page differs from the code. ``make docs`` runs it.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import inspect
import io
import pkgutil
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from docstring_parser import DocstringStyle, parse

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs/reference"
MADE = "<!-- Made by `python .ci/reference.py`; change the code, not this page. -->\n"


def main(args: list[str]) -> int:
    """Writes or checks the pages; returns the exit code."""
    sys.path.insert(0, str(ROOT))
    stale = []
    for name, text in {"commands.md": commands(), "configuration.md": configuration()}.items():
        path = PAGES / name
        if path.is_file() and path.read_text("utf-8") == text:
            continue
        stale.append(str(path.relative_to(ROOT)))
        if "--check" not in args:
            path.write_text(text, "utf-8")
    if stale:
        print(
            f"{', '.join(stale)}: {'differs from the code; run `make reference`' if '--check' in args else 'written'}"
        )
    return 1 if stale and "--check" in args else 0


# -- commands --------------------------------------------------------------------------------------------------------
_PARTS = ("modules.text_replay.TextReplay", "rl.difficulty.DifficultyWeight", "modules.card_teacher.CardTeacher")


def commands() -> str:
    """The page of all commands: the usage of ``kvg``, and every command of ``kvg-data`` with its options."""
    from kvg.cli.commands import COMMANDS, EXAMPLES
    from kvg.cli.kvg import main as kvg
    from kvg.cli.usage import OWN_OPTIONS

    usage = io.StringIO()
    with contextlib.redirect_stdout(usage):
        kvg(["--help"])
    parts = [
        MADE,
        "# Commands\n",
        "Two programs: `kvg` trains and answers, `kvg-data` does what does not train. Exit codes: 0, 1 where a check\n"
        "finds a fault (`kvg doctor`, `kvg-data verify`), 2 for settings or data that cannot be used (one line says\n"
        "which), 130 for an interruption.\n",
        "## kvg\n",
        f"```text\n{usage.getvalue().rstrip()}\n```\n",
        "The keys of its configs are those of [configuration](configuration.md).\n",
    ]
    for name in OWN_OPTIONS:
        own = importlib.import_module(f"kvg.cli.{name}").parser()
        parts += [f"## kvg {name}\n", table(("argument", "default", "meaning"), options(own))]
    parts += [
        "## kvg-data\n",
        table(("command", "what it does"), ((f"[`{n}`](#kvg-data-{n})", text) for n, text in COMMANDS.items())),
    ]
    for name, text in COMMANDS.items():
        parser = argparse.ArgumentParser()
        importlib.import_module(f"kvg.cli.{name}").add_arguments(parser)
        parts += [f"### kvg-data {name}\n", f"{text[0].upper()}{text[1:]}.\n", f"```sh\n{EXAMPLES[name]}\n```\n"]
        parts.append(table(("argument", "default", "meaning"), options(parser)))
    return "\n".join(parts)


def options(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str, str]]:
    """Name, default and help of each argument of a command."""
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        value = "" if action.nargs == 0 else f" {metavar(action)}".rstrip()
        name = ", ".join(f"`{flag}{value}`" for flag in action.option_strings) or f"`{metavar(action)}`"
        default = "required" if action.required and action.option_strings else ""
        if not default and action.default not in (None, False, argparse.SUPPRESS, []):
            default = f"`{action.default}`"
        meaning = (action.help or "").replace("%(default)s", str(action.default)).replace("%%", "%")
        is_named = not action.choices or meaning.startswith("one of ")
        choices = "" if is_named else f"one of {', '.join(f'`{c}`' for c in action.choices)}"
        yield name, default, "; ".join(filter(None, (meaning, choices)))


def metavar(action: argparse.Action) -> str:
    """What stands for the value of an argument."""
    name = action.metavar or (action.dest.upper() if action.option_strings else action.dest)
    first = name if isinstance(name, str) else name[0]
    return f"{first} ..." if action.nargs in ("+", "*") else first


# -- keys of configs -------------------------------------------------------------------------------------------------
def configuration() -> str:
    """The page of all keys: arguments of the classes that overlays name, and sections of a project file."""
    modules = {name: importlib.import_module(f"kvg.modules.{name}") for name in ("cot_sft", "grpo", "client")}
    parts = [
        MADE,
        "# Configuration\n",
        "A config is YAML. Overlays (`-c FILE`) are merged from left to right; `--KEY VALUE` on the command line\n"
        "comes last. `kvg fit -c ... --print_config` prints the result. A class is named by `class_path`, and its\n"
        "arguments are its `init_args`, a level that the command line may leave out (`--model.backbone.dtype auto`).\n"
        "`trainer` has the arguments of Lightning's `Trainer`. The files under `configs/` show the keys in use.\n",
        "## Stages (`model`)\n",
        *classes([modules["cot_sft"].CoTSFTModule, modules["grpo"].GRPOModule, modules["client"].ClientModule]),
        "## Backbone (`model.backbone`)\n",
        *classes([attribute("kvg.backbones.backbone.Backbone")]),
        "## Rewards (`model.reward`)\n",
        *classes([attribute("kvg.rewards.combine.WeightedReward"), *subclasses("kvg.rewards", "base.Reward")]),
        "## Losses (`model.loss`)\n",
        *classes(subclasses("kvg.losses", "policy.PolicyLoss")),
        "## Engines of rollouts (`model.engine`, `model.mismatch`)\n",
        *classes([*subclasses("kvg.inference", "rollout_engine.RolloutEngine")]),
        *classes([attribute("kvg.rl.mismatch.MismatchCorrection")]),
        "## Parts of stage 2 (`model.replay`, `model.difficulty`, `model.teacher`)\n",
        *classes([attribute(f"kvg.{name}") for name in _PARTS]),
        "## Clients and box codecs\n",
        *classes([*subclasses("kvg.inference", "request.Client"), *subclasses("kvg.text", "box_codec.BoxCodec")]),
        "## Data modules (`data`)\n",
        *classes(exported("data_modules")),
        "## Callbacks (`trainer.callbacks`)\n",
        *classes(exported("callbacks")),
        "## Sources of a project file (`sources.NAME`)\n",
        *classes(subclasses("kvg.catalogue", "listing.FileSource")),
        "## Sections of a project file\n",
        "`configs/project.yaml` shows them with comments.\n",
        *classes(project_sections()),
    ]
    return "\n".join(part if part.endswith("\n") else part + "\n" for part in parts)


def attribute(path: str) -> Any:
    """The object at a dotted path."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def exported(package: str) -> list[type]:
    """The classes that a package names in ``__all__``."""
    module = importlib.import_module(package)
    return [getattr(module, name) for name in module.__all__]


def subclasses(package: str, base: str) -> list[type]:
    """The concrete subclasses of ``package.base`` in the package, by module and line."""
    kind = attribute(f"{package}.{base}")
    matches = []
    for module in modules_of(package):
        own = [v for v in vars(module).values() if inspect.isclass(v) and v.__module__ == module.__name__]
        matches += [v for v in own if issubclass(v, kind) and not inspect.isabstract(v) and v is not kind]
    return matches


def modules_of(package: str) -> list[ModuleType]:
    """The modules of a package, by name."""
    names = sorted(item.name for item in pkgutil.iter_modules(importlib.import_module(package).__path__))
    return [importlib.import_module(f"{package}.{name}") for name in names]


def project_sections() -> list[type]:
    """The dataclasses of a project file's sections."""
    names = ("catalogue.project", "catalogue.box_rules", "composites.settings", "composites.augmentations")
    sections = ("compose", "filter", "probe", "rationalize", "shard")
    names += (*(f"pipeline.settings.{name}" for name in sections), "rationales.rules")
    kinds = []
    for module in (importlib.import_module(f"kvg.{name}") for name in names):
        own = [v for v in vars(module).values() if inspect.isclass(v) and v.__module__ == module.__name__]
        kinds += [v for v in own if dataclasses.is_dataclass(v)]
    return kinds


def classes(kinds: Iterable[type]) -> Iterator[str]:
    """A section for each class: first paragraph of its docstring, and its arguments."""
    for kind in kinds:
        path = f"{kind.__module__}.{kind.__qualname__}"
        if kind.__module__.split(".")[0] in ("data_modules", "callbacks"):
            path = f"{kind.__module__.split('.')[0]}.{kind.__qualname__}"
        yield f"### {kind.__qualname__}\n"
        yield f"`{path}`: {plain(parse(inspect.getdoc(kind) or '', DocstringStyle.GOOGLE).short_description or '')}\n"
        rows = list(arguments(kind))
        yield table(("key", "type", "default", "meaning"), rows) if rows else "No keys.\n"


def arguments(kind: type) -> Iterator[tuple[str, str, str, str]]:
    """Name, type, default and meaning of each argument of a class."""
    for name, parameter in parameters(kind).items():
        type_ = str(parameter.annotation).replace("|", "\\|")
        value = "required" if parameter.default is inspect.Parameter.empty else f"`{written(kind, parameter)}`"
        yield f"`{name}`", f"`{type_}`" if type_ else "", value, meaning(kind, name)


def parameters(kind: type) -> dict[str, inspect.Parameter]:
    """Arguments by name; those of a base class where ``**kwargs`` hands them on."""
    own: dict[str, inspect.Parameter] = {}
    for base in kind.__mro__[:-1]:
        if "__init__" not in vars(base):
            continue
        signature = inspect.signature(vars(base)["__init__"]).parameters
        named = (p for p in signature.values() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL))
        own |= {p.name: p for p in named if p.name != "self" and p.name not in own}
        if not any(p.kind is p.VAR_KEYWORD for p in signature.values()):
            break
    return own


def written(kind: type, parameter: inspect.Parameter) -> str:
    """A default as text that does not depend on the process."""
    default = parameter.default
    if dataclasses.is_dataclass(kind):
        made = [f.default_factory for f in dataclasses.fields(kind) if f.name == parameter.name]
        default = made[0]() if made and made[0] is not dataclasses.MISSING else default
        default = {} if default == {} or dataclasses.is_dataclass(default) else default  # its own table follows
    if inspect.isclass(default) or inspect.isfunction(default):
        return default.__name__
    return (str(default) if isinstance(default, Path) else repr(default)).replace("|", "\\|")


def meaning(kind: type, name: str) -> str:
    """Description of an argument, in the class's docstring or in that of the base class it refers to."""
    for base in kind.__mro__:
        for entry in parse(inspect.getdoc(base) or "", DocstringStyle.GOOGLE).params if base.__doc__ else ():
            text = plain(entry.description or "")
            if name in entry.arg_name.split(", ") and not re.match(r"see `\w+`\.?$", text):
                return text
    return ""


def plain(text: str) -> str:
    """A docstring's text as one line of Markdown."""
    return " ".join(text.replace("``", "`").split()).replace("|", "\\|")


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, ("--",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(row)} |".replace("|  |", "| |") for row in lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
