"""Checks that a model's weights are finite and of a usable size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from kvg.errors import TrainingError


class Weighted(Protocol):
    """What is needed of a backbone here."""

    model: nn.Module

    def any_rank_active(self, active: bool) -> bool:
        """Whether it holds in any of the processes that share a model."""


def unsound_weights(weights: Mapping[str, Tensor]) -> dict[str, int]:
    """Weights that hold NaN, infinity, or values whose squares are infinite in float32.

    Norms of layers square what they get, so a model with values above 1e19 answers NaN: its weights have been thrown
    away by a step that was far too long. One pass reads all weights, and a GPU is waited for once.

    Args:
        weights: by name; of a sharded one this process' share is looked at.

    Returns:
        Number of such values by name of the weight.

    >>> unsound_weights({"good": torch.ones(3), "bad": torch.tensor([0.0, torch.nan, 1e30])})
    {'bad': 2}
    """
    local = {
        name: weight.to_local() if isinstance(weight, DTensor) else weight
        for name, weight in weights.items()
        if weight.is_floating_point()
    }
    filled = {name: weight for name, weight in local.items() if weight.numel()}
    if not filled:
        return {}
    with torch.no_grad():
        # The ends of the range, and no norm, which would need a copy of each weight in float32.
        ends = [torch.stack(torch.aminmax(weight)).float() for weight in filled.values()]
        sound = torch.isfinite(torch.stack([end.to(ends[0].device) for end in ends]).square()).all(-1).tolist()
        return {
            name: int((~torch.isfinite(weight.float().square())).sum())
            for (name, weight), fine in zip(filled.items(), sound, strict=True)
            if not fine
        }


def describe_unsound(weights: Mapping[str, int]) -> str:
    """Sums up what ``unsound_weights`` returned.

    >>> describe_unsound({"a.weight": 2, "b.weight": 1})
    'weights hold NaN, infinity or values above 1e19 (2 in a.weight, 1 in 1 more)'
    """
    name, num = next(iter(weights.items()))
    more = f", {sum(weights.values()) - num} in {len(weights) - 1} more" if len(weights) > 1 else ""
    return f"weights hold NaN, infinity or values above 1e19 ({num} in {name}{more})"


def check_weights(backbone: Weighted, where: str, consequence: str) -> None:
    """Refuses a model whose weights are not usable; every process has to call it where the model is sharded.

    Args:
        backbone: the model.
        where: what is refused.
        consequence: what the user should know or do.

    Raises:
        TrainingError: weights are NaN, infinite or absurdly large.
    """
    weights = unsound_weights(dict(backbone.model.named_parameters()))
    if backbone.any_rank_active(bool(weights)):
        described = describe_unsound(weights) if weights else "weights of another process are not finite"
        raise TrainingError(where, f"{described}; {consequence}")
