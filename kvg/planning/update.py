"""The optimizer's step on shares of weights without memory."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import nn

from kvg.errors import ConfigError
from kvg.planning.parts import Part
from kvg.planning.sharing import Sharing, size_of
from kvg.planning.skeleton import fake_tensor
from kvg.planning.tracer import Tracer
from kvg.planning.training import class_of

# Bytes of state for each trained weight, for optimizers that cannot run without their devices or packages.
BY_FORMULA: Final[Mapping[str, float]] = {
    "bitsandbytes.optim.AdamW8bit": 2 * (1 + 4 / 256),  # two moments, and a scale for each block of 256
    "bitsandbytes.optim.PagedAdamW8bit": 0.0,  # in the memory of the host
    "bitsandbytes.optim.PagedAdamW": 0.0,
}


def optimizer_memory(
    tracer: Tracer, optimizer: Mapping[str, Any], trained: Sequence[nn.Parameter], sharing: Sharing, device: str
) -> tuple[int, int]:
    """Bytes of an optimizer's state, and of what its step needs besides.

    Args:
        tracer: whose mode is used.
        optimizer: ``{class_path, init_args}``.
        trained: parameters, whole.
        sharing: of them.
        device: ``cuda`` or ``cpu``: where nothing is chosen, a GPU takes all weights in one step.

    Raises:
        ConfigError: its class cannot be built.
    """
    path = str(optimizer["class_path"])
    if path in BY_FORMULA:
        return round(BY_FORMULA[path] * sum(p.numel() for p in trained) / sharing.processes), 0
    fakes = tracer.fakes
    shares = [
        nn.Parameter(fake_tensor(fakes, torch.empty(sharing.shape(p), dtype=p.dtype, device="meta"))) for p in trained
    ]
    for share in shares:
        share.grad = fake_tensor(fakes, share)
    kind, arguments = class_of(path), dict(optimizer.get("init_args") or {})
    chosen = arguments.get("fused") or arguments.get("foreach") is not None
    if device == "cuda" and not chosen and "foreach" in inspect.signature(kind).parameters:
        arguments["foreach"] = True
    try:
        built = kind(shares, **arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError("model.optimizer", f"{error}; correct its init_args") from error
    tracer.know([*shares, *(share.grad for share in shares if share.grad is not None)])
    before = sum(tracer.live.values())
    tracer.phase()
    with tracer, torch.no_grad():
        built.step()
    state = sum(tracer.live.values()) - before
    extra = sum(tracer.peak.values()) - before - state
    tensors = [v for values in built.state.values() for v in values.values() if isinstance(v, torch.Tensor)]
    tracer.assign(tensors, Part.OPTIMIZER)
    return max(state, size_of(tensors)), max(0, extra)
