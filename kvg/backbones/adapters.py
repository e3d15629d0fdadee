"""LoRA adapters as PEFT saves them: a folder of their own, worked into the weights of the model they belong to."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any, Final

from kvg.errors import ConfigError

SETTINGS: Final = "adapter_config.json"
_WEIGHTS: Final = "adapter_model.safetensors"
# What parts of the model were called before transformers 4.52, in whose time many adapters were trained.
_RENAMED: Final = (
    ("base_model.model.model.layers.", "base_model.model.model.language_model.layers."),
    ("base_model.model.visual.", "base_model.model.model.visual."),
)


def adapter_base(checkpoint: str) -> str | None:
    """The model that a folder's adapters belong to; None where the folder holds a model itself, or is none.

    Raises:
        ConfigError: it does not tell, or its adapters are no LoRA.
    """
    path = Path(checkpoint) / SETTINGS
    if not path.is_file():
        return None
    try:
        told = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise _fault(checkpoint, f"{SETTINGS} cannot be read ({error})") from error
    if not isinstance(told, dict) or told.get("peft_type") != "LORA":
        raise _fault(checkpoint, f"{SETTINGS} is not that of a LoRA; merge the adapters where they were trained")
    base = told.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise _fault(checkpoint, f"{SETTINGS} names no model; write base_model_name_or_path")
    return base


def with_adapter(model: Any, checkpoint: str) -> Any:
    """A model with adapters worked into its weights; from then on there is nothing left of them.

    Args:
        model: that ``adapter_base`` names.
        checkpoint: folder of the adapters.

    Raises:
        ConfigError: the weights are missing, damaged, no safetensors, or of another model.
    """
    from peft import LoraConfig, PeftModel, set_peft_model_state_dict
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(checkpoint)
    if not (folder / _WEIGHTS).is_file():
        raise _fault(checkpoint, f"has no {_WEIGHTS}; save the adapters as safetensors")
    try:
        weights = {_name(name): value for name, value in load_file(folder / _WEIGHTS).items()}
        adapted = PeftModel(model, LoraConfig.from_pretrained(folder))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what does not fit is told below, with what to do
            told = set_peft_model_state_dict(adapted, weights)
    except (OSError, SafetensorError, ValueError, TypeError, RuntimeError) as error:
        first = " ".join(str(error).split())[:300]
        raise _fault(checkpoint, f"cannot be put on its model ({first}); give both as they were trained") from error
    missing = [name for name in told.missing_keys if "lora_" in name]
    unused = list(told.unexpected_keys)
    if missing or unused:
        remedy = f"{len(missing)} weights are missing and {len(unused)} fit no layer ({(missing + unused)[0]}, ...)"
        raise _fault(checkpoint, f"{remedy}; give the model that the adapters were trained on")
    return adapted.merge_and_unload()


def _name(name: str) -> str:
    for old, new in _RENAMED:
        if name.startswith(old):
            return new + name[len(old) :]
    return name


def _fault(checkpoint: str, remedy: str) -> ConfigError:
    return ConfigError("backbone.checkpoint", f"'{checkpoint}' {remedy}")
