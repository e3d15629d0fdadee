"""Which precisions a stage runs in, and that its own numbers stay float32 in all of them."""

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
ANSWERED: Final = (*TRAINED, "16-mixed", "16-true")  # without gradients float16 may do
_SHORT: Final = {"None": "32-true", "64": "64-true", "32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}
SAMPLE: Final = 1000  # weights of a tensor
_CHOICE: Final = "bf16-mixed, bf16-true or 32-true"
Module = TypeVar("Module")
Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")


def check_precision(precision: Any, training: bool) -> None:
    """Refuses a precision of the Trainer that the models or the stages cannot run in.

    Args:
        precision: as in ``trainer.precision``, or what ``Trainer.precision`` says of a plugin.
        training: whether gradients are wanted. In float16 they overflow, and a stage that takes its steps itself would
            clip them while they are scaled.

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
    """Refuses precision plugins, which would take the place of ``trainer.precision``.

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
    """A step of a module in which new tensors of floats are float32.

    With ``precision: bf16-true`` Lightning makes bfloat16 the default of all tensors that a step creates. Weights and
    activations bring their own type; rewards, advantages, log-probabilities and counts are created, and would keep
    three digits.

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
    """Share of the trained weights that a step of the learning rate would leave as they are.

    A step of AdamW is about as long as the learning rate, and a weight in bfloat16 has eight bits: what is less than a
    512th of it rounds away. A sample of each tensor is looked at.

    Args:
        optimizer: with the rates that the run is to have (``initial_lr``, or ``lr`` without a schedule).

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
    """Warns where most trained weights are too large, and too coarse, for the learning rate of AdamW or Adam."""
    share = lost_share(optimizer) if isinstance(optimizer, Adam | AdamW) else 0.0
    if share > 0.5:
        rank_zero_warn(
            f"{share:.0%} of the trained weights are in bfloat16 and too large for a step of the learning rate to "
            "change them; train float32 weights (backbone.dtype: float32 with trainer.precision: bf16-mixed), or "
            "adapters (backbone.lora)"
        )
