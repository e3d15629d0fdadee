"""Gradients of one optimizer step: how its batches are weighted, and their limit."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import lightning as L
import torch
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from kvg.errors import ConfigError

NORM, VALUE = "norm", "value"


class TokenWeights:
    """Weighs the batches of one optimizer step, of all processes, by their labelled tokens.

    Frameworks average: over processes, and over accumulated batches. A mean of means gives a token of a short batch
    more weight than one of a long batch. Here each batch's mean is weighted by its number of tokens, in units of the
    step's first batches, and the sum of weights is divided out when all are known. One batch of one process has the
    weight 1, so that its gradient is what it is without all this.

    Args:
        reduce: adds up, or averages, a tensor over all processes: ``Strategy.reduce`` with ``reduce_op``.
    """

    def __init__(self, reduce: Callable[..., Tensor]) -> None:
        self._reduce = reduce
        self._unit: Tensor | None = None
        self._sums: Tensor | None = None  # of weighted losses, weights and tokens, over processes and batches so far

    def add(self, loss: Tensor, num_tokens: Tensor) -> Tensor:
        """Takes the next batch; every process has to call it.

        Args:
            loss: mean over the batch's labelled tokens, scalar.
            num_tokens: their number, scalar.

        Returns:
            The loss that its gradient is taken of.
        """
        tokens = num_tokens.float()
        if self._unit is None:
            self._unit = self._reduce(tokens.clone(), reduce_op="mean").clamp(min=1)
        weighted = loss * (tokens / self._unit)
        sums = self._reduce(torch.stack([weighted.detach().float(), tokens / self._unit, tokens]), reduce_op="sum")
        self._sums = sums if self._sums is None else self._sums + sums
        return weighted

    @property
    def loss(self) -> Tensor:
        """Mean over all labelled tokens so far, of all processes; not finite where that of any batch is not."""
        loss, weight, _ = self._totals()
        return loss / weight

    @property
    def total_tokens(self) -> Tensor:
        """Labelled tokens so far, of all processes."""
        return self._totals()[2]

    def finish(self, parameters: Iterable[nn.Parameter], accumulated: int, world_size: int) -> None:
        """Divides gradients by the sum of weights, in place, and begins the next step.

        Args:
            parameters: whose gradients are averages over ``accumulated`` batches and ``world_size`` processes; the last
                step of an epoch may have had fewer batches.
            accumulated: by which each batch's loss was divided.
            world_size: number of processes.
        """
        factor = accumulated * world_size / self._totals()[1]
        if accumulated > 1:  # otherwise the unit is the mean weight, and the factor 1
            for parameter in parameters:
                if parameter.grad is not None:
                    _local(parameter.grad).mul_(factor)
        self._unit = self._sums = None

    def _totals(self) -> tuple[Tensor, Tensor, Tensor]:
        assert self._sums is not None, "add comes first"
        loss, weight, tokens = self._sums
        return loss, weight.clamp(min=torch.finfo(weight.dtype).tiny), tokens


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


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
    if limit and algorithm != VALUE:
        norm = torch.nn.utils.clip_grad_norm_(learnt, limit)
    else:
        norm = torch.nn.utils.get_total_norm([p.grad for p in learnt if p.grad is not None])
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
