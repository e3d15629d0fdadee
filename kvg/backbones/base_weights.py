"""Tells models of equal shapes apart by their weights, so that adapters are not merged into another than their own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from huggingface_hub import snapshot_download

from kvg.backbones.adapter_files import SETTINGS
from kvg.backbones.builtin import RANDOM, checkpoint_folder
from kvg.backbones.checkpoint_files import ABOUT, fault, read_object, reading
from kvg.backbones.stored_weights import StoredTensor, stored_tensors
from kvg.records import excerpt

BASE: Final = "base"  # key in the kvg.json of adapters: the model that they were trained on
_STRETCHES, _LENGTH = 4, 128  # of a tensor that are read, and their numbers


def weights_identity(tensors: Mapping[str, StoredTensor]) -> str:
    """A short text that models share whose names, shapes and weights are the same, as far as samples tell.

    Neither the number of files counts nor whether bfloat16 is stored as float32. A folder of 15 GB takes a second.

    Args:
        tensors: of a model, by the names of today.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {list(tensor.shape)}".encode())
        size = torch.Size(tensor.shape).numel()
        flat = StoredTensor(tensor.file, tensor.name, tensor.dtype, (size,), tensor.start)
        for part in range(_STRETCHES):
            first = part * size // _STRETCHES
            numbers = torch.empty(min(_LENGTH, size - first), dtype=torch.float32)
            flat.read_into(numbers, first)
            digest.update(numbers.numpy().tobytes())
    return digest.hexdigest()[:32]


def about_base(checkpoint: str) -> dict[str, Any]:
    """What a folder of adapters says about the model below them: its name, and its identity where it has files.

    Args:
        checkpoint: of that model: a folder, a hub name, or one that ships with this project.
    """
    known = {} if checkpoint in RANDOM else {"weights": weights_identity(_tensors(checkpoint))}
    return {BASE: {"name": checkpoint, **known}}


def check_base_weights(adapter: str, base: str) -> None:
    """Refuses adapters whose ``kvg.json`` says that they were trained on other weights.

    Args:
        adapter: their folder.
        base: the model that they are to be put on.

    Raises:
        ConfigError: the weights are others, or the file is damaged.
    """
    if not (Path(adapter) / ABOUT).is_file() or base in RANDOM:
        return
    known = read_object(adapter, ABOUT).get(BASE, {})
    wanted = known.get("weights", "") if isinstance(known, Mapping) else None
    if wanted == "":
        return
    if not isinstance(wanted, str):
        raise fault(adapter, f"its {ABOUT}: {BASE} is {excerpt(known)}; copy it anew")
    if wanted != weights_identity(_tensors(base)):
        reason = f"was trained on {excerpt(known.get('name'))}, and the weights of '{base}' are others"
        remedy = f"write the folder of that model into base_model_name_or_path of its {SETTINGS}"
        raise fault(adapter, f"{reason}, though of the same shapes; {remedy}")


def _tensors(checkpoint: str) -> dict[str, StoredTensor]:
    folder = checkpoint_folder(checkpoint)
    if not Path(folder).is_dir():
        with reading(checkpoint, "its files cannot be fetched"):
            folder = snapshot_download(checkpoint, allow_patterns=["*.safetensors", "*.json"])
    return stored_tensors(folder)
