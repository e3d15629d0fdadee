"""A backbone in shards: FSDP2, gathered at the entry points that run the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

# Entry points that run the model.
RUN_METHODS: Final = ("prefill", "decode", "completion_logprobs", "label_loss", "with_visual_tokens")


def shard(backbone: nn.Module, units: Sequence[nn.Module], mesh: Any) -> None:
    """FSDP2: each unit is sharded for itself, the rest is the root, gathered at each entry point.

    Args:
        backbone: the root.
        units: see ``kvg.backbones.family.Family.fsdp_units``.
        mesh: of devices.
    """
    for unit in units:
        fully_shard(unit, mesh=mesh)
    fully_shard(backbone, mesh=mesh)
    for name in RUN_METHODS:
        register_fsdp_forward_method(backbone, name)


def any_rank(flag: bool, device: torch.device) -> bool:
    """Whether any process calls this with True; all of them have to call it."""
    shared = torch.tensor(int(flag), device=device)
    dist.all_reduce(shared, dist.ReduceOp.MAX)
    return bool(shared.item())
