"""Checks precisions, and keeps numbers outside the model in float32."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch.distributed.tensor import DTensor
from torch.optim import Adam, AdamW, Optimizer

from kvg.errors import ConfigError

TRAINED: Final = ("32-true", "bf16-mixed", "bf16-true")
ANSWERED: Final = (*TRAINED, "16-mixed", "16-true")  # float16 is allowed without gradients
_SHORT: Final = {"None": "32-true", "64": "64-true", "32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}
SAMPLE: Final = 1000  # weights of a tensor
_CHOICE: Final = "bf16-mixed, bf16-true or 32-true"
Module = TypeVar("Module")
Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")


def check_precision(precision: Any, training: bool) -> None:
    """Checks the Trainer's precision.

    Args:
        precision: as in ``trainer.precision``, or ``Trainer.precision`` of a plugin.
        training: whether gradients are needed. In float16 they overflow, and manual optimization would clip scaled
            gradients.

    Raises:
        ConfigError: it is none of ``TRAINED``, or of ``ANSWERED``.

    >>> check_precision("bf16", training=True)
    >>> check_precision(16, training=True)
    Traceback (most recent call last):
    ...
    kvg.errors.ConfigError: trainer.precision: '16' is not supported in training; use bf16-mixed, bf16-true or 32-true
    """
    if _SHORT.get(str(precision), str(precision)) not in (TRAINED if training else ANSWERED):
        where = " in training" if training else ""
        raise ConfigError("trainer.precision", f"'{precision}' is not supported{where}; use {_CHOICE}")


def check_plugins(plugins: Any) -> None:
    """Checks that no precision plugin overrides ``trainer.precision``.

    Args:
        plugins: as in ``trainer.plugins``: None, one or a list of names and mappings with a ``class_path``.

    Raises:
        ConfigError: one is a precision plugin.
    """
    for plugin in plugins if isinstance(plugins, list) else [plugins]:
        path = plugin.get("class_path", "") if hasattr(plugin, "get") else plugin
        if str(path).endswith("Precision"):
            remedy = f"{path} is not supported; leave it out, and set trainer.precision to {_CHOICE}"
            raise ConfigError("trainer.plugins", remedy)


def with_float32_numbers(
    step: Callable[Concatenate[Module, Arguments], Result],
) -> Callable[Concatenate[Module, Arguments], Result]:
    """Decorates a module's step so that new float tensors are float32.

    With ``precision: bf16-true`` Lightning sets bfloat16 as the default dtype in a step. Rewards, advantages,
    log-probabilities and counts are new tensors and would have three significant digits.

    Args:
        step: ``training_step`` and its like.
    """

    @functools.wraps(step)
    def run(module: Module, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        try:
            return step(module, *args, **kwargs)
        finally:
            torch.set_default_dtype(before)

    return run


def lost_share(optimizer: Optimizer) -> float:
    """Share of the trained weights that a step of the learning rate does not change, because of rounding.

    A step of AdamW is about as large as the learning rate. A bfloat16 weight has 8 bits of precision: steps below 1/512
    of it are lost. The share is estimated on a sample of each tensor.

    Args:
        optimizer: with the learning rates of the run (``initial_lr``, or ``lr`` without a schedule).

    >>> weight = torch.nn.Parameter(torch.tensor([1.0, 1e-3], dtype=torch.bfloat16))
    >>> lost_share(torch.optim.AdamW([weight], lr=1e-4))
    0.5
    """
    lost = total = 0
    for group in optimizer.param_groups:
        step = float(group.get("initial_lr", group["lr"]))
        for parameter in group["params"]:
            weight = parameter.detach()
            weight = (weight.to_local() if isinstance(weight, DTensor) else weight).flatten()[:SAMPLE]
            total += len(weight)
            if weight.dtype == torch.bfloat16:
                lost += int((weight.abs() > 512 * step).sum())
    return lost / max(1, total)


def warn_of_lost_steps(optimizer: Optimizer) -> None:
    """Warns if rounding loses the steps of AdamW or Adam for most trained weights."""
    share = lost_share(optimizer) if isinstance(optimizer, Adam | AdamW) else 0.0
    if share > 0.5:
        rank_zero_warn(
            f"{share:.0%} of the trained weights are in bfloat16 and too large for a step of the learning rate to "
            "change them; train float32 weights (backbone.dtype: float32 with trainer.precision: bf16-mixed), or "
            "adapters (backbone.lora)"
        )
