"""Writes the LoRA adapters of a model that is being trained as a folder of their own, in PEFT's format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from kvg.backbones.adapter_files import WEIGHTS
from kvg.backbones.backbone import Backbone
from kvg.backbones.builtin import checkpoint_folder
from kvg.backbones.lora import is_adapter, target_pattern
from kvg.backbones.soundness import check_weights


def goes_alone(backbone: Backbone) -> bool:
    """Whether vLLM can take the adapters beside their model, instead of the model with its adapters merged."""
    return backbone.keeps_base and backbone.lora is not None and backbone.lora.servable


def export_adapter(backbone: Backbone, folder: Path) -> None:
    """Writes ``adapter_config.json`` and ``adapter_model.safetensors``; transformers, PEFT and vLLM read them.

    All processes must call it if the model is sharded; the first one writes.

    Args:
        backbone: with adapters, and all else frozen: ``backbone.keeps_base``.
        folder: created if missing.

    Raises:
        ValueError: other weights than the adapters are trained.
        TrainingError: weights are not finite.
    """
    if not backbone.keeps_base:
        raise ValueError("only adapters on a model that is frozen otherwise can be exported alone")
    check_weights(backbone, "export of the adapters", f"nothing was written to {folder}")
    state = adapter_state(backbone)
    if dist.is_available() and dist.is_initialized() and dist.get_rank() != 0:
        return
    write_adapter(backbone, state, folder)


def write_adapter(backbone: Backbone, state: Mapping[str, Tensor], folder: Path) -> None:
    """Writes ``adapter_config.json`` and ``adapter_model.safetensors``.

    Args:
        backbone: with adapters.
        state: see ``adapter_state``.
        folder: created if missing.
    """
    settings = backbone.lora
    if settings is None:
        raise ValueError("a model without adapters has none to write")
    folder.mkdir(parents=True, exist_ok=True)
    pattern = target_pattern(backbone.model, backbone.family.language(backbone.model), settings)
    base = str(checkpoint_folder(backbone.checkpoint))
    config = settings.config(pattern, base_model_name_or_path=base, task_type="CAUSAL_LM", inference_mode=True)
    config.save_pretrained(str(folder))
    save_file(dict(state), folder / WEIGHTS, metadata={"format": "pt"})


def adapter_state(backbone: Backbone) -> dict[str, Tensor]:
    """Weights of the adapters under PEFT's names, on the CPU; all processes must call it if the model is sharded."""
    if backbone.sharded:
        options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
        state = cast(dict[str, Tensor], get_model_state_dict(backbone.model, options=options))
    else:
        state = backbone.model.state_dict()
    return {saved: state[name].detach().cpu().contiguous() for name, saved in adapter_names(backbone.model).items()}


def adapter_names(model: nn.Module) -> dict[str, str]:
    """Names under which PEFT saves the weights of adapters, by their names in the model."""
    own = [name for name, _ in model.named_parameters() if is_adapter(name)]  # shared ones once
    return {name: f"base_model.model.{_peft_name(name)}" for name in own}


def _peft_name(name: str) -> str:
    """The name under which PEFT saves a weight of an adapter.

    >>> _peft_name("q.lora_A.default.weight"), _peft_name("q.lora_magnitude_vector.default.weight")
    ('q.lora_A.weight', 'q.lora_magnitude_vector')
    >>> _peft_name("e.token_adapter.trainable_tokens_delta.default")
    'e.token_adapter.trainable_tokens_delta'
    """
    name = name.replace(".default", "")
    return name.removesuffix(".weight") if "lora_magnitude_vector" in name else name
