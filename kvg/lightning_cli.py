"""The LightningCLI behind ``kvg``: module and data module from config, tied together by the backbone's processor."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_info

from kvg.errors import ConfigError


class KVGCLI(LightningCLI):
    """Builds any module and data module from config and gives the data module the backbone's processor.

    Args:
        args: arguments after the program's name.
        run: run the subcommand, which ``args`` then begin with; otherwise parse and instantiate only.

    Raises:
        ConfigError: a setting is unknown or of the wrong type, or a class cannot be imported.
    """

    def __init__(self, args: Sequence[str], run: bool = True) -> None:
        # an own message instead of 150 lines of usage
        quiet: dict[str, Any] = {"exit_on_error": False}
        try:
            super().__init__(
                args=list(args),
                run=run,
                auto_configure_optimizers=False,  # the optimizer is an argument of the module
                load_from_checkpoint_support=False,  # the config says it all; checkpoints hold tensors and counters
                seed_everything_default=0,
                save_config_kwargs={"overwrite": True},  # a requeued job comes back to its own folder
                parser_kwargs={**quiet, **{command: dict(quiet) for command in self.subcommands()}},
            )
        except argparse.ArgumentError as error:
            raise ConfigError(*explain(str(error))) from error

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        parser.set_defaults({"weights_only": True})  # unpickling a stranger's checkpoint runs the stranger's code
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses ``args``; Lightning's own warns whenever the process has arguments too, which here are the same."""
        self.config = parser.parse_args(args)

    def before_instantiate_classes(self) -> None:
        """Keeps a CPU process to one thread unless OMP_NUM_THREADS says otherwise."""
        if not torch.cuda.is_available() and "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(1)
            rank_zero_info("No GPU: one thread per process, which is fastest for tiny models; OMP_NUM_THREADS sets it.")

    def after_instantiate_classes(self) -> None:
        """Names the processor once: the data module takes the backbone's."""
        connect = getattr(self.datamodule, "connect", None)
        if connect is not None:
            connect(self.model.backbone)


def run(args: Sequence[str]) -> KVGCLI:
    """Runs ``kvg ARGS``.

    Raises:
        ConfigError: a setting cannot be used, or the checkpoint is of another architecture.
    """
    try:
        return KVGCLI(args)
    except RuntimeError as error:
        if "Error(s) in loading state_dict" not in str(error):
            raise
        raise ConfigError("ckpt_path", explain_mismatch(str(error))) from error


def explain_mismatch(message: str) -> str:
    r"""Sums up torch's list of keys that do not fit.

    >>> explain_mismatch('Error(s) in loading state_dict for M:\n\tMissing key(s) in state_dict: "a.b", "c". ')
    'does not fit M: 2 missing (a.b, ...); use the backbone and the settings it was trained with'
    """
    owner = re.search(r"loading state_dict for (\w+)", message)
    parts = []
    for word, pattern in (("missing", r"Missing key\(s\)[^\n]*"), ("unexpected", r"Unexpected key\(s\)[^\n]*")):
        line = re.search(pattern, message)
        keys = re.findall(r'"([^"]+)"', line.group()) if line else []
        if keys:
            parts.append(f"{len(keys)} {word} ({keys[0]}, ...)")
    shapes = re.findall(r"size mismatch for ([\w.]+):", message)
    if shapes:
        parts.append(f"{len(shapes)} of another shape ({shapes[0]}, ...)")
    fault = ", ".join(parts)
    name = owner.group(1) if owner else "the model"
    return f"does not fit {name}: {fault}; use the backbone and the settings it was trained with"


def explain(message: str) -> tuple[str, str]:
    """Sums up a parser's message as the setting at fault and what is wrong with it.

    >>> explain("unrecognized arguments: --trainer.max_stepz=3")
    ('trainer.max_stepz', 'unknown setting')
    >>> explain("Subcommand 'fit' does not accept option 'trainer.max_step'")
    ('trainer.max_step', 'unknown setting')
    >>> explain("the following arguments are required: fit.model")
    ('model', 'is missing; begin with the config of a stage, for example -c configs/stage/cot_sft.yaml')
    """
    unknown = re.search(r"unrecognized arguments: -*([^\s=]+)", message)
    unknown = unknown or re.search(r"does not accept option '([^']+)'", message)
    if unknown and "class_path" not in message:
        return unknown.group(1), "unknown setting"
    missing = re.search(r"arguments are required: (?:\w+\.)?(\w+)$", message.strip())
    if missing:
        remedy = "is missing; begin with the config of a stage, for example -c configs/stage/cot_sft.yaml"
        return missing.group(1), remedy
    key = re.search(r'[Pp]arser key "([^"]+)"', message)
    field = key.group(1) if key else "settings"
    # Every optional argument is a union with None, and every union lists all that it is not.
    noise = (
        r"Does not validate|Subtypes|Errors$|Given value|Expected a <class 'NoneType'>|Expected a path|[Pp]arser key"
    )
    lines = [line.strip(" -:") for line in message.splitlines()]
    told = [line for line in lines if line and not re.match(noise, line)]
    classes = [re.findall(r"given class_path '([^']+)'", line) for line in told]
    option = re.search(r"Option '([^']+)' is not accepted|does not accept option '([^']+)'", message)
    if option:
        owner = [name for names in classes for name in names]
        return ".".join([field, "init_args", option[1] or option[2]]), f"unknown setting of {(owner or [field])[-1]}"
    return field, "; ".join(dict.fromkeys(told)) or message
