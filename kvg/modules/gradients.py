"""Gradients of one optimizer step: their limit."""

from __future__ import annotations

from collections.abc import Iterable

import lightning as L
import torch
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from kvg.errors import ConfigError

NORM, VALUE = "norm", "value"


def clip_gradients(parameters: Iterable[nn.Parameter], limit: float | None, algorithm: str | None = NORM) -> Tensor:
    """Scales gradients down to a limit, in place.

    Args:
        parameters: whole, or sharded by FSDP2; those without a gradient are left out.
        limit: of the norm of all gradients together, or of each value's size; None or 0 for none.
        algorithm: ``norm`` or ``value``; None means ``norm``.

    Returns:
        The norm before clipping, a scalar; of the whole model where that is sharded by FSDP2. Every process has to call
        this then.
    """
    learnt = [parameter for parameter in parameters if parameter.grad is not None]
    norm = torch.nn.utils.clip_grad_norm_(learnt, limit if limit and algorithm != VALUE else torch.inf)
    if limit and algorithm == VALUE:
        torch.nn.utils.clip_grad_value_(learnt, limit)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def check_limit(trainer: L.Trainer) -> None:
    """Refuses a limit of gradients that cannot be kept, before anything is trained.

    Raises:
        ConfigError: it is negative, or one of the norm under FSDP1.
    """
    if (trainer.gradient_clip_val or 0) < 0:
        remedy = f"{trainer.gradient_clip_val} must not be negative; null is no limit"
        raise ConfigError("trainer.gradient_clip_val", remedy)
    by_norm = trainer.gradient_clip_val and (trainer.gradient_clip_algorithm or NORM) != VALUE
    if by_norm and isinstance(trainer.strategy, FSDPStrategy):
        remedy = "FSDP1 cannot clip by norm; set it to null, or use configs/strategy/fsdp2.yaml"
        raise ConfigError("trainer.gradient_clip_val", remedy)
