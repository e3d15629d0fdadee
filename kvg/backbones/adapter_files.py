"""Checks a folder of LoRA adapters, as PEFT saves it, before anything heavy is imported or loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from kvg.backbones.checkpoint_files import fault, read_object
from kvg.backbones.weight_files import Shapes, current_name, tensor_shapes
from kvg.errors import ConfigError
from kvg.ranges import check_number, check_whole
from kvg.records import excerpt

SETTINGS: Final = "adapter_config.json"
WEIGHTS: Final = "adapter_model.safetensors"
PREFIX: Final = "base_model.model."  # of all names in a file of adapters
# The part of an adapter, and which of its axes is which axis of the layer's weight.
_AXES: Final = {"A.weight": (1, 1), "B.weight": (0, 0), "embedding_A": (1, 0), "embedding_B": (0, 1)}
_PART: Final = re.compile(r"(.+)\.lora_(A\.weight|B\.weight|embedding_A|embedding_B)")
# Settings of adapters that cannot be merged into the weights, or that import code by its name.
_UNSUPPORTED: Final = (
    "alora_invocation_tokens", "arrow_config", "kasa_config", "layer_replication", "megatron_config",
    "monteclora_config", "target_parameters", "use_bdlora", "use_qalora",
)  # fmt: skip


def adapter_base(checkpoint: str) -> str | None:
    """The model that a folder's adapters belong to; None where the folder holds a model itself, or is none.

    Raises:
        ConfigError: its settings name no model, or its adapters are no LoRA.
    """
    if not (Path(checkpoint) / SETTINGS).is_file():
        return None
    settings = read_object(checkpoint, SETTINGS)
    if settings.get("peft_type") != "LORA":
        raise fault(checkpoint, f"its {SETTINGS} is not that of a LoRA; merge the adapters where they were trained")
    base = settings.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise fault(checkpoint, f"its {SETTINGS} names no model; write base_model_name_or_path")
    if (Path(base) / SETTINGS).is_file():
        raise fault(checkpoint, f"belongs to '{base}', which holds adapters, too; merge those first")
    revision = settings.get("revision")
    if revision not in (None, "", "main") and not Path(base).is_dir():
        reason = f"its {SETTINGS} names revision {excerpt(revision)} of '{base}', and only its newest is loaded here"
        fetch = f"`hf download {base} --revision {excerpt(revision)} --local-dir FOLDER`"
        raise fault(checkpoint, f"{reason}; fetch it ({fetch}), write FOLDER into base_model_name_or_path")
    _check(checkpoint, settings)
    return base


def check_base(checkpoint: str, stored: Shapes, base: str) -> None:
    """Refuses adapters of another model, by the heads of both files.

    Args:
        checkpoint: folder of the adapters.
        stored: shapes of the weights of the model that they are put on.
        base: folder of that model.

    Raises:
        ConfigError: a layer is missing there, or has another shape.
    """
    remedy = "give the model that the adapters were trained on, in base_model_name_or_path"
    for name, shape in tensor_shapes(checkpoint, WEIGHTS).items():
        match = _PART.fullmatch(name.removeprefix(PREFIX))
        layer = "" if match is None else current_name(f"{match[1]}.")[:-1]
        weight = stored.get(f"{layer}.weight")
        if match is None or (weight is None and layer == "lm_head"):  # shares the tensor of the embeddings
            continue
        if weight is None:
            raise fault(checkpoint, f"belongs to another model than '{base}', which has no layer {match[1]}; {remedy}")
        axis, own = _AXES[match[2]]
        if len(shape) == len(weight) == 2 and shape[axis] != weight[own]:
            sizes = f"its {name} is made for {shape[axis]} and meets {weight[own]}"
            raise fault(checkpoint, f"belongs to another model than '{base}' ({sizes}); {remedy}")


def _check(checkpoint: str, settings: Mapping[str, Any]) -> None:
    """Refuses settings that cannot work, and heads of weights that cannot be read, before the model is loaded."""
    if unsupported := [name for name in _UNSUPPORTED if settings.get(name)]:
        remedy = f"sets {unsupported[0]}, which cannot be merged here; merge it where it was trained"
        raise fault(checkpoint, f"its {SETTINGS} {remedy}")
    try:
        check_whole("r", settings.get("r", 8), 1)
        check_number("lora_alpha", settings.get("lora_alpha", 8))
        for name in ("rank_pattern", "alpha_pattern"):
            pattern = settings.get(name) or {}
            if not isinstance(pattern, Mapping):
                raise ConfigError(name, f"{excerpt(pattern)} is no mapping of layers")
            for key, value in pattern.items():
                check_number(f"{name}: {key}", value)
    except ConfigError as error:
        raise fault(checkpoint, f"its {SETTINGS}: {error.field}: {error.remedy}; correct it") from error
    if not (Path(checkpoint) / WEIGHTS).is_file():
        raise fault(checkpoint, f"has no {WEIGHTS}; save the adapters as safetensors")
    tensor_shapes(checkpoint, WEIGHTS)
