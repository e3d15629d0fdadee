"""What a training moves and what it keeps in memory, by part of the model; printed before the first step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim import Adam, Optimizer

from kvg.backbones.backbone import Backbone
from kvg.backbones.four_bit import num_weights
from kvg.backbones.freezing import part_of

PARTS: Final = ("vision", "merger", "language", "embeddings", "adapters")
_WIDTHS: Final = (10, 16, 16, 13, 13, 13)


def parameter_table(backbone: Backbone, optimizers: Sequence[Optimizer]) -> list[str]:
    """Lines of a table: parameters of the whole model, and memory in one process.

    Gradients have the size of what is trained. Moments are those of Adam and AdamW, or of their kinds with 8 bits; of
    other optimizers they are not known before the first step. Activations are not part of it.

    Args:
        backbone: to be trained, sharded or not.
        optimizers: of the training.
    """
    where = part_of(backbone.family, backbone.model)
    named = dict(backbone.model.named_parameters())
    moments = {
        id(p): _moment_bytes(one, p) for one in optimizers for group in one.param_groups for p in group["params"]
    }
    rows = [("part", "parameters", "trained", "weights", "gradients", "moments")]
    for part in (*PARTS, "all"):
        own = [p for name, p in named.items() if part in (where[name], "all")]
        if not own:
            continue
        trained = [p for p in own if p.requires_grad]
        state = [moments.get(id(p)) for p in trained]
        known = sum(num for num in state if num is not None)
        rows.append(
            (
                part,
                f"{sum(num_weights(p) for p in own):,}",
                f"{sum(num_weights(p) for p in trained):,}",
                _mib(sum(_bytes(p) for p in own)),
                _mib(sum(_bytes(p) for p in trained)),
                "?" if None in state else _mib(known),
            )
        )
    return ["".join(cell.rjust(width) for cell, width in zip(row, _WIDTHS, strict=True)) for row in rows]


def _mib(size: float) -> str:
    return f"{size / 2**20:,.1f} MiB"


def _bytes(parameter: nn.Parameter) -> int:
    """Of this process' share."""
    local = parameter.to_local() if isinstance(parameter, DTensor) else parameter
    return local.numel() * local.element_size()


def _moment_bytes(optimizer: Optimizer, parameter: nn.Parameter) -> int | None:
    """Of the two moments; None for an optimizer that is not known."""
    size = _bytes(parameter)
    if "8bit" in type(optimizer).__name__:
        return 2 * size // parameter.element_size()
    return 2 * size if isinstance(optimizer, Adam) or type(optimizer).__name__.startswith("Adam") else None
