"""Gradients of one optimizer step: weighting of batches by tokens, and clipping."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext

import lightning as L
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from kvg.errors import ConfigError

NORM, VALUE = "norm", "value"


class TokenWeights:
    """Weights the batches of one optimizer step, of all processes, by their number of labelled tokens.

    Frameworks average over processes and over accumulated batches. This mean of means gives tokens of short batches a
    larger weight. Here each batch's mean loss is weighted by its number of tokens, relative to the mean of the step's
    first batches, and the gradient is divided by the sum of weights at the end. A single batch in a single process has
    the weight 1.

    Args:
        reduce: sums or averages a tensor over all processes: ``Strategy.reduce`` with ``reduce_op``.
    """

    def __init__(self, reduce: Callable[..., Tensor]) -> None:
        self._reduce = reduce
        self._unit: Tensor | None = None
        self._sums: Tensor | None = None  # of weighted losses, weights and tokens, over processes and batches so far

    def add(self, loss: Tensor, num_tokens: Tensor) -> Tensor:
        """Adds a batch; every process must call this method.

        Args:
            loss: mean over the batch's labelled tokens, scalar.
            num_tokens: number of these tokens, scalar.

        Returns:
            The weighted loss for the backward pass.
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
        """Mean over all labelled tokens so far, of all processes; not finite if the loss of any batch is not."""
        loss, weight, _ = self._totals()
        return loss / weight

    @property
    def total_tokens(self) -> Tensor:
        """Labelled tokens so far, of all processes."""
        return self._totals()[2]

    def finish(self, parameters: Iterable[nn.Parameter], accumulated: int, world_size: int) -> None:
        """Divides gradients by the sum of weights, in place, and resets for the next step.

        Args:
            parameters: with gradients averaged over ``accumulated`` batches and ``world_size`` processes; the last
                step of an epoch may have fewer batches.
            accumulated: the number by which each batch's loss was divided.
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
    """Clips gradients in place.

    Args:
        parameters: complete, or sharded by FSDP2; those without a gradient are skipped.
        limit: of the total norm, or of each absolute value; None or 0 for none.
        algorithm: ``norm`` or ``value``; None means ``norm``.

    Returns:
        The total norm before clipping, a scalar. With FSDP2 it is the norm of the whole model, and every process must
        call this function.
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
    """Checks the Trainer's gradient clipping before training.

    Raises:
        ConfigError: the limit is negative.
    """
    if (trainer.gradient_clip_val or 0) < 0:
        remedy = f"{trainer.gradient_clip_val} must not be negative; null is no limit"
        raise ConfigError("trainer.gradient_clip_val", remedy)


def without_sync(model: object, wanted: bool) -> AbstractContextManager[None]:
    """Within it, gradients of DDP stay in each process: the last part of an update sends them all.

    Args:
        model: of the strategy, wrapped or not.
        wanted: False where this is the last part.
    """
    return model.no_sync() if wanted and isinstance(model, DistributedDataParallel) else nullcontext()
