"""LoRA inside a model: added, switched off for the reference, and merged into a copy of the weights for export."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from kvg.backbones.stored_weights import placeholders
from kvg.errors import ConfigError
from kvg.ranges import check_number, check_whole

USUAL: Final = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class LoRASettings:
    """Low-rank adapters on the language model.

    Attributes:
        r: rank.
        alpha: scale; the update is multiplied by alpha / r.
        dropout: on the adapter's input.
        targets: names of the linear layers that get one. Those of the default that a model does not have are left out:
            experts of a mixture, for example, are no linear layers.
    """

    r: int = 16
    alpha: int = 32
    dropout: float = 0.0
    targets: tuple[str, ...] = USUAL

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ConfigError: a setting cannot work.
        """
        check_whole("backbone.lora.r", self.r, 1)
        check_number("backbone.lora.alpha", self.alpha, 0, above=True)
        check_number("backbone.lora.dropout", self.dropout, 0, 1, below=True)
        names = self.targets
        if isinstance(names, str) or not names or not all(isinstance(name, str) and name for name in names):
            raise ConfigError("backbone.lora.targets", f"{names!r} names no layers; for no adapters set lora to null")


def add_lora(model: nn.Module, language: nn.Module, settings: LoRASettings) -> None:
    """Puts adapters into the language model, in place, and freezes all else.

    Args:
        model: the Hugging Face model.
        language: the part of it that gets them.
        settings: of the adapters.

    Raises:
        ConfigError: no layer has one of the names, or it is not linear.
    """
    layers = {name: module for name, module in language.named_modules() if name}
    for target in settings.targets:
        matches = [module for name, module in layers.items() if f".{name}".endswith(f".{target}")]
        if settings.targets == USUAL and target != USUAL[0] and not matches:
            continue
        if not all(isinstance(module, nn.Linear) for module in matches) or not matches:
            linear = {name.rpartition(".")[2] for name, module in layers.items() if isinstance(module, nn.Linear)}
            remedy = f"'{target}' names no linear layer of the language model; choose from {', '.join(sorted(linear))}"
            raise ConfigError("backbone.lora.targets", remedy)
    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=target_pattern(model, language, settings),
    )
    with placeholders(model):
        inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)


def target_pattern(model: nn.Module, language: nn.Module, settings: LoRASettings) -> str:
    """Regular expression of the names of the layers that get an adapter.

    Args:
        model: the Hugging Face model.
        language: the part of it that gets the adapters.
        settings: of the adapters.
    """
    prefix = next(name for name, module in model.named_modules() if module is language)
    names = "|".join(re.escape(name) for name in settings.targets)
    return rf"{re.escape(prefix)}\.(?:.*\.)?({names})"


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


def merged_state(state: Mapping[str, Tensor], settings: LoRASettings | None) -> dict[str, Tensor]:
    """Weights with the adapters merged, under the names that the model has without them.

    Works on a copy of the weights: merging inside the model and back again would leave rounding errors in it.

    Args:
        state: of a model with adapters, whole tensors.
        settings: of the adapters; None where there are none.
    """
    if settings is None:
        return dict(state)
    merged = {}
    for name, value in state.items():
        if "lora_" in name:
            continue
        stem = name.removesuffix(".base_layer.weight")
        if stem != name:
            down, up = (state[f"{stem}.lora_{half}.default.weight"].float() for half in "AB")
            value = (value.float() + settings.alpha / settings.r * up @ down).to(value.dtype)
        merged[name.replace(".base_layer", "")] = value
    return merged


def base_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights without the adapters, under the names that the model has without them.

    >>> base_state({"q.base_layer.weight": Tensor(), "q.lora_A.default.weight": Tensor()})
    {'q.weight': tensor([])}
    """
    return {name.replace(".base_layer", ""): value for name, value in state.items() if "lora_" not in name}
