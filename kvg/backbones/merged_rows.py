"""Adapters of a folder merged as rows of the weights are read, so that no process ever holds the whole model.

A row of a merged weight needs that row of the weight, that row of factor B, and factor A, which is small.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from peft import LoraConfig
from safetensors.torch import load_file
from torch import Tensor

from kvg.backbones.adapter_files import PREFIX, SETTINGS, WEIGHTS
from kvg.backbones.checkpoint_files import read_object
from kvg.backbones.lora import merged_weight
from kvg.backbones.stored_weights import StoredTensor, StoredWeights
from kvg.backbones.weight_files import current_name, tensor_shapes

_PARTS: Final = ("lora_A.weight", "lora_B.weight", "lora_magnitude_vector")
# Settings of PEFT that change more than linear layers of the model, or change them in another way.
_OTHERS: Final = ("fan_in_fan_out", "layer_replication", "lora_bias", "modules_to_save", "trainable_token_indices")
_STARTS: Final = (None, True, False, "gaussian", "orthogonal", "eva")  # that leave the weights below as they were
_NO_LAYER: Final = re.compile(r"embed|lm_head")


@dataclass(frozen=True)
class MergedTensor(StoredTensor):
    """A stored weight that has its adapter merged when it is read.

    Attributes:
        down: ``[r, K]``, factor A.
        up: ``[N, r]``, factor B.
        scale: of their product.
        magnitude: ``[N]``, the norms that DoRA has learnt for the rows.
    """

    down: Tensor
    up: Tensor
    scale: float
    magnitude: Tensor | None = None

    def read_into(self, place: Tensor, first: int = 0) -> None:
        """See ``StoredTensor.read_into``."""
        super().read_into(place, first)
        own = slice(first, first + len(place))
        norms = None if self.magnitude is None else self.magnitude[own].to(place.device)
        factors = self.down.to(place.device), self.up[own].to(place.device)
        place.copy_(merged_weight(place, *factors, self.scale, norms))


def merges_by_rows(checkpoint: str) -> bool:
    """Whether a folder of adapters changes linear layers alone, row by row, and holds all that is needed for it."""
    settings = read_object(checkpoint, SETTINGS)
    if any(settings.get(name) for name in _OTHERS) or settings.get("bias", "none") != "none":
        return False
    start = settings.get("init_lora_weights")
    if not any(start is one or (isinstance(start, str) and start == one) for one in _STARTS):
        return False
    layers = _by_layer(dict.fromkeys(tensor_shapes(checkpoint, WEIGHTS)))
    parts = set(_PARTS if settings.get("use_dora") else _PARTS[:2])
    return bool(layers) and all(set(own) == parts and not _NO_LAYER.search(name) for name, own in layers.items())


def merged_rows(checkpoint: str, config: LoraConfig, stored: StoredWeights) -> StoredWeights:
    """A model's stored weights with the adapters of a folder merged.

    Args:
        checkpoint: folder of the adapters, for which ``merges_by_rows`` is true.
        config: of the adapters, each layer with its rank and scale.
        stored: of the model below.
    """
    tensors = dict(stored.tensors)
    for layer, parts in _by_layer(load_file(Path(checkpoint) / WEIGHTS)).items():
        below, down, up = tensors[f"{layer}.weight"], *(parts[name] for name in _PARTS[:2])
        rank = len(down)
        alpha = config.alpha_pattern.get(re.escape(layer), config.lora_alpha)
        scale = alpha / (rank**0.5 if config.use_rslora else rank)
        place = {field: getattr(below, field) for field in StoredTensor.__dataclass_fields__}
        tensors[f"{layer}.weight"] = MergedTensor(
            **place, down=down, up=up, scale=scale, magnitude=parts.get(_PARTS[2])
        )
    return replace(stored, tensors=tensors)


def _by_layer(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Parts of the adapters by their layer's name of today; a name of no such part stands for a layer of its own."""
    layers: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        plain = current_name(name.removeprefix(PREFIX)).replace("magnitude_vector.weight", "magnitude_vector")
        part = next((part for part in _PARTS if plain.endswith(f".{part}")), "")
        layers.setdefault(plain.removesuffix(f".{part}") if part else plain, {})[part] = value
    return layers
