"""LoRA inside a model: put in, switched off for the reference, and merged into a copy of the weights for export."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from kvg.errors import ConfigError


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

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ConfigError: a setting cannot work.
        """
        if self.r < 1:
            raise ConfigError("backbone.lora.r", f"{self.r} must be at least 1; for no adapters set lora to null")
        if not 0 <= self.dropout < 1:
            raise ConfigError("backbone.lora.dropout", f"{self.dropout} is not a share; give 0 to below 1")


def add_lora(model: nn.Module, settings: LoRASettings) -> None:
    """Puts adapters into the language model, in place, and freezes all else.

    Raises:
        ConfigError: no layer has such a name.
    """
    names = "|".join(settings.targets)
    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=rf".*language_model.*\.({names})",
    )
    try:
        inject_adapter_in_model(config, model)
    except ValueError as error:
        raise ConfigError("backbone.lora.targets", f"{settings.targets} name no layer ({error})") from error
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


def merged_state(state: Mapping[str, Tensor], settings: LoRASettings | None) -> dict[str, Tensor]:
    """Weights with the adapters worked in, under the names that the model has without them.

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
