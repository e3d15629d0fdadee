"""Linear layers in four bits below adapters (NF4 of bitsandbytes; QLoRA, arXiv 2305.14314)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from peft.utils.integrations import dequantize_module_weight
from torch import nn

from kvg.errors import ConfigError

FIELD = "backbone.lora.bits"


def keep_in_four_bits(model: Any, language: nn.Module) -> None:
    """Replaces the language model's linear layers, in place; embeddings, output layer and vision stay as they are.

    The loss of precision is part of the model from then on: it is what the adapters are trained on, what the reference
    is, and what an export merges them into.

    Args:
        model: the Hugging Face model.
        language: the part of it whose layers are replaced.

    Raises:
        ConfigError: bitsandbytes is not installed, or does not work on this machine.
    """
    bnb = _bitsandbytes()
    head = model.get_output_embeddings()
    for module in list(language.modules()):
        for name, layer in list(module.named_children()):
            if type(layer) is nn.Linear and layer is not head:
                setattr(module, name, _quantized(bnb, layer))
    model.is_loaded_in_4bit = True  # PEFT looks for it


def dequantized(model: nn.Module, state: Mapping[str, Any]) -> dict[str, Any]:
    """A model's weights with those in four bits written out, without their scales.

    Args:
        model: with or without such layers.
        state: its ``state_dict``; not changed.
    """
    layers = {f"{name}.weight": module for name, module in model.named_modules() if is_four_bit(module)}
    if not layers:
        return dict(state)
    kept = {name: value for name, value in state.items() if not any(name.startswith(f"{one}.") for one in layers)}
    for name, module in layers.items():
        kept[name] = dequantize_module_weight(module)  # type: ignore[no-untyped-call]
    return kept


def is_four_bit(module: nn.Module) -> bool:
    """Whether a layer's weight is kept in four bits."""
    own = dict(module.named_parameters(recurse=False))  # PEFT's layers show the weight below them as their own
    return getattr(own.get("weight"), "quant_state", None) is not None


def num_weights(parameter: nn.Parameter) -> int:
    """Number of weights that a parameter stands for: two to a byte in four bits."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else int(torch.Size(state.shape).numel())


def _bitsandbytes() -> Any:
    try:
        import bitsandbytes  # an optional package
    except ImportError as error:
        remedy = "4 needs bitsandbytes, which is not installed; `pip install bitsandbytes`, or set it to 16"
        raise ConfigError(FIELD, remedy) from error
    except Exception as error:  # its libraries for CUDA are loaded at once
        raise ConfigError(FIELD, f"4 needs bitsandbytes, which cannot be loaded ({error}); set it to 16") from error
    return bitsandbytes


def _quantized(bnb: Any, layer: nn.Linear) -> nn.Module:
    kind = {"quant_type": "nf4", "compress_statistics": True}
    new = bnb.nn.Linear4bit(
        layer.in_features, layer.out_features, layer.bias is not None, layer.weight.dtype, device="meta", **kind
    )
    new.support_avx512bf16_for_cpu = False  # its layout for CPUs can neither be trained on nor written out
    weight = bnb.nn.Params4bit(layer.weight.data, requires_grad=False, module=new, **kind)
    device = "cuda" if torch.cuda.is_available() else layer.weight.device
    try:
        new.weight = weight.to(device).to(layer.weight.device)  # the first move packs it
    except (RuntimeError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ConfigError(FIELD, f"4 does not work on this machine ({reason}); use a GPU, or set it to 16") from error
    new.bias = layer.bias
    quantized: nn.Module = new
    return quantized
