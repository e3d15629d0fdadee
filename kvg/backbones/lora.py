"""LoRA inside a model: added, switched off for the reference, and merged into a copy of the weights for export.

rsLoRA divides the scale by the root of the rank instead of the rank (arXiv 2312.03732). DoRA learns the norm of each
row of a weight beside its direction (arXiv 2402.09353). All of them are PEFT's layers.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from peft.utils.integrations import dequantize_module_weight
from peft.utils.other import TrainableTokensWrapper
from torch import Tensor, nn

from kvg.backbones.stored_weights import placeholders, plain_name
from kvg.errors import ConfigError
from kvg.ranges import check_number, check_whole

USUAL: Final = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "gate_up_proj", "down_proj")
_ROWS: Final = "trainable_tokens_delta"  # PEFT's name of the trained rows of an embedding
_ORIGINAL: Final = "trainable_tokens_original"  # and of their copy from before, a buffer


@dataclass(frozen=True)
class LoRASettings:
    """Low-rank adapters on the language model.

    Attributes:
        r: rank.
        alpha: scale; the update is multiplied by alpha / r.
        dropout: on the adapter's input.
        targets: names of the linear layers that get one. Those of the default that a model does not have are left out:
            experts of a mixture, for example, are no linear layers.
        rslora: the update is multiplied by alpha / sqrt(r) instead, so that it does not shrink at high ranks.
        dora: the norm of each row of a weight is learnt, too; slower.
        tokens: ids of tokens whose embeddings are trained beside the adapters, and their rows of the output layer where
            it shares them (PEFT's ``trainable_token_indices``).
        bits: 4 keeps the language model's linear layers below the adapters in four bits (NF4, QLoRA, arXiv
            2305.14314); needs bitsandbytes. 16 leaves them as they are.
    """

    r: int = 16
    alpha: int = 32
    dropout: float = 0.0
    targets: tuple[str, ...] = USUAL
    rslora: bool = False
    dora: bool = False
    tokens: tuple[int, ...] = ()
    bits: int = 16

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
        if self.bits not in (4, 16):
            raise ConfigError("backbone.lora.bits", f"{self.bits!r} is not 4 or 16")
        for token in self.tokens:
            check_whole("backbone.lora.tokens", token, 0)
        if len(set(self.tokens)) < len(self.tokens):
            raise ConfigError("backbone.lora.tokens", "names a token twice; remove it")

    @property
    def scale(self) -> float:
        """What the product of the two factors is multiplied by."""
        return self.alpha / (self.r**0.5 if self.rslora else self.r)

    @property
    def servable(self) -> bool:
        """Whether vLLM takes the adapters beside their model; it knows neither DoRA nor single tokens."""
        return not self.dora and not self.tokens and self.bits == 16

    @property
    def needs_weights(self) -> bool:
        """Whether the adapters begin with numbers that come from weights of a whole model."""
        return bool(self.tokens) or self.bits == 4

    def config(self, pattern: str, **more: Any) -> LoraConfig:
        """The same as PEFT's settings.

        Args:
            pattern: see ``target_pattern``.
            more: further settings.
        """
        return LoraConfig(
            r=self.r,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=pattern,
            use_rslora=self.rslora,
            use_dora=self.dora,
            trainable_token_indices=list(self.tokens) or None,
            **more,
        )


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
    num_tokens = model.get_input_embeddings().num_embeddings  # type: ignore[operator]
    if beyond := [token for token in settings.tokens if token >= num_tokens]:
        raise ConfigError("backbone.lora.tokens", f"{beyond[0]} is no token; the model has {num_tokens}")
    with placeholders(model), warnings.catch_warnings():
        # Its advice on embeddings that share their weights: rows of ``tokens`` are shared here, and adapters merged so.
        warnings.simplefilter("ignore")
        inject_adapter_in_model(settings.config(target_pattern(model, language, settings)), model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_adapter(name))


def is_adapter(name: str) -> bool:
    """Whether a weight of this name belongs to the adapters.

    >>> is_adapter("q_proj.lora_A.default.weight"), is_adapter("q_proj.base_layer.weight")
    (True, False)
    """
    return "lora_" in name or _ROWS in name


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
    layers = [m for m in model.modules() if isinstance(m, LoraLayer | TrainableTokensWrapper)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def merged_weight(weight: Tensor, down: Tensor, up: Tensor, scale: float, magnitude: Tensor | None = None) -> Tensor:
    """A weight with its adapter merged.

    Args:
        weight: ``[N, K]``.
        down: ``[r, K]``, factor A.
        up: ``[N, r]``, factor B.
        scale: of their product.
        magnitude: ``[N]``, the norms that DoRA has learnt for the rows.

    >>> merged_weight(torch.eye(2), torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0], [0.0]]), 0.5).tolist()
    [[2.0, 0.0], [0.0, 1.0]]
    """
    merged = weight.float() + scale * up.float() @ down.float()
    if magnitude is not None:
        merged *= (magnitude.float() / torch.linalg.vector_norm(merged, dim=1))[:, None]
    return merged.to(weight.dtype)


def layer_weight(module: Any) -> Tensor:
    """A linear layer's weight ``[N, K]`` with its adapters merged, unless they are switched off."""
    if not isinstance(module, LoraLayer):
        weight: Tensor = module.weight
        return weight
    base: Tensor = dequantize_module_weight(module.get_base_layer())  # type: ignore[no-untyped-call]
    if module.disable_adapters:
        return base
    (name,) = module.active_adapters
    magnitude = module.lora_magnitude_vector[name].weight if name in module.lora_magnitude_vector else None
    return merged_weight(base, module.lora_A[name].weight, module.lora_B[name].weight, module.scaling[name], magnitude)


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
    for name, value in base_state(state, plain_names=False).items():
        stem = name.removesuffix(".base_layer.weight")
        if stem.endswith(".token_adapter"):
            rows = state[f"{stem}.{_ROWS}.default"].to(value.dtype)
            value = value.index_copy(0, torch.tensor(settings.tokens, device=value.device), rows)
        elif stem != name:
            down, up = (state[f"{stem}.lora_{half}.default.weight"] for half in "AB")
            magnitude = state[f"{stem}.lora_magnitude_vector.default.weight"] if settings.dora else None
            value = merged_weight(value, down, up, settings.scale, magnitude)
        merged[plain_name(name)] = value
    return merged


def base_state(state: Mapping[str, Tensor], plain_names: bool = True) -> dict[str, Tensor]:
    """Weights without the adapters.

    Args:
        state: of a model with adapters.
        plain_names: under the names that the model has without them.

    >>> base_state({"q.base_layer.weight": Tensor(), "q.lora_A.default.weight": Tensor()})
    {'q.weight': tensor([])}
    """
    own = {name: value for name, value in state.items() if not is_adapter(name) and _ORIGINAL not in name}
    return {plain_name(name): value for name, value in own.items()} if plain_names else own
