"""A backbone in shards: FSDP2, gathered at the entry points that run the model."""

from __future__ import annotations

from typing import Any, Final

from torch import nn

# Entry points that run the model.
RUN_METHODS: Final = ("prefill", "decode", "completion_logprobs", "label_loss", "with_features")


def shard(backbone: nn.Module, model: Any, mesh: Any) -> None:
    """FSDP2: every layer of both towers is a unit, the rest is the root, gathered at each entry point.

    Args:
        backbone: the root.
        model: its Hugging Face model.
        mesh: of devices.
    """
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    for block in [*model.model.visual.blocks, *model.model.language_model.layers]:
        fully_shard(block, mesh=mesh)
    fully_shard(backbone, mesh=mesh)
    for name in RUN_METHODS:
        register_fsdp_forward_method(backbone, name)
