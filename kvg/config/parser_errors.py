"""Shortens error messages of the settings parser: the setting, and what is wrong with it."""

from __future__ import annotations

import re

from kvg.config.search_path import hidden_module


def explain(message: str) -> tuple[str, str]:
    """Returns the wrong setting in a parser's message, and what is wrong with it.

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
    # Every optional argument is a union with None, and the parser prints an error for each member of a union.
    noise = (
        r"Does not validate|Subtypes|Errors$|Given value|Expected a <class 'NoneType'>|Expected a path|[Pp]arser key"
    )
    lines = [line.strip(" -:") for line in message.splitlines()]
    reasons = [line for line in lines if line and not re.match(noise, line)]
    classes = [re.findall(r"given class_path '([^']+)'", line) for line in reasons]
    option = re.search(r"Option '([^']+)' is not accepted|does not accept option '([^']+)'", message)
    if option:
        owner = [name for names in classes for name in names]
        return ".".join([field, "init_args", option[1] or option[2]]), f"unknown setting of {(owner or [field])[-1]}"
    return field, ("; ".join(dict.fromkeys(reasons)) or message) + hidden_module(message)
