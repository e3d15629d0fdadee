"""LoRA inside a model: put in, switched off for the reference, and merged into a copy of the weights for export."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn


@dataclass(frozen=True)
class LoRASettings:
    """Low-rank adapters on the language model.

    Attributes:
        r: rank.
        alpha: scale; the update is multiplied by alpha / r.
        dropout: on the adapter's input.
        targets: names of the linear layers that get one.
    """

    r: int = 16
    alpha: int = 32
    dropout: float = 0.0
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def add_lora(model: nn.Module, settings: LoRASettings) -> None:
    """Puts adapters into the language model, in place, and freezes all else."""
    names = "|".join(settings.targets)
    inject_adapter_in_model(
        LoraConfig(
            r=settings.r,
            lora_alpha=settings.alpha,
            lora_dropout=settings.dropout,
            target_modules=rf".*language_model.*\.({names})",
        ),
        model,
    )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)


@contextmanager
def lora_disabled(model: nn.Module) -> Iterator[None]:
    """Within this block the model is the one that the adapters were put on."""
    layers = [m for m in model.modules() if isinstance(m, LoraLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def merged_state(model: nn.Module) -> dict[str, Tensor]:
    """Weights with the adapters worked in, under the names that the model has without them."""
    layers = [m for m in model.modules() if isinstance(m, LoraLayer)]
    with torch.no_grad():
        for layer in layers:
            layer.merge()  # type: ignore[operator]
        state = {
            name.replace(".base_layer", ""): value.detach().clone()
            for name, value in model.state_dict().items()
            if "lora_" not in name
        }
        for layer in layers:
            layer.unmerge()  # type: ignore[operator]
    return state
