"""Weights of a training's checkpoint, one file or a folder with a part of every process, read one at a time."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load

from kvg.backbones.stored_weights import StoredWeights, plain_name
from kvg.errors import ConfigError

PREFIX: Final = "backbone.model."  # of a model's names in the module of a stage
_STATE: Final = "state_dict"
_INDEX: Final = ".metadata"
_PLAIN: Final = ("torch.distributed.checkpoint.", "torch.serialization")  # modules of what an index may hold
_OTHERS: Final = (("torch", "Size"), ("pathlib", "PosixPath"), ("collections", "OrderedDict"))


@dataclass(frozen=True)
class LazyTensor:
    """A tensor that is read when it is needed.

    Attributes:
        shape: of the tensor.
        dtype: of the tensor.
        read: reads it.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]


Weight = Tensor | LazyTensor


def read_saved_weights(path: Path) -> dict[str, Weight]:
    """Weights of the model in a training's checkpoint, by the names that the model has for them.

    A file is mapped into memory, so that of it, too, only what is used is read.

    Args:
        path: a file, or the folder of a sharded checkpoint.

    Raises:
        ConfigError: it is damaged, or holds no model.
    """
    try:
        state = _sharded(path) if path.is_dir() else _single(path)
    except (OSError, RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError, AttributeError) as error:
        raise ConfigError("checkpoint", f"'{path}' is damaged or not a checkpoint of this project: {error}") from error
    weights = {name.removeprefix(PREFIX): value for name, value in state.items() if name.startswith(PREFIX)}
    if not weights:
        raise ConfigError("checkpoint", f"'{path}' holds no weights of a backbone; give a checkpoint of a training")
    return weights


def lazy_state(model: Any, stored: StoredWeights | None, saved: Mapping[str, Weight]) -> dict[str, Weight]:
    """All tensors of a model: what a training has saved, and the rest as it was before.

    Args:
        model: with or without memory.
        stored: files of the model before the training; None where it has its weights.
        saved: see ``read_saved_weights``.
    """
    state: dict[str, Weight] = {}
    for name, value in model.state_dict().items():
        plain = plain_name(name)
        if name in saved:
            state[name] = saved[name]
        elif not value.is_meta:
            state[name] = value
        elif stored is not None and plain in stored.tensors:
            tensor = stored.tensors[plain]
            state[name] = LazyTensor(tensor.shape, value.dtype, partial(tensor.read, value.dtype))
    return state


def _single(path: Path) -> Mapping[str, Tensor]:
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    state: Mapping[str, Tensor] = content[_STATE]
    return state


def _sharded(path: Path) -> dict[str, Weight]:
    with (path / _INDEX).open("rb") as stream:
        index: Metadata = _PlainUnpickler(stream).load()
    tensors = {
        key.removeprefix(f"{_STATE}."): entry
        for key, entry in index.state_dict_metadata.items()
        if key.startswith(f"{_STATE}.") and isinstance(entry, TensorStorageMetadata)
    }
    return {
        name: LazyTensor(tuple(t.size), t.properties.dtype, partial(_read_sharded, path, name, t))
        for name, t in tensors.items()
    }


def _read_sharded(path: Path, name: str, entry: TensorStorageMetadata) -> Tensor:
    value = torch.empty(entry.size, dtype=entry.properties.dtype)
    load({_STATE: {name: value}}, checkpoint_id=path, no_dist=True)
    return value


class _PlainUnpickler(pickle.Unpickler):
    """Reads the index of a sharded checkpoint, and refuses what could run code."""

    def find_class(self, module: str, name: str) -> Any:
        """A class that the index may hold."""
        dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if not dtype and not module.startswith(_PLAIN) and (module, name) not in _OTHERS:
            raise pickle.UnpicklingError(f"its {_INDEX} names {module}.{name}, which no index needs")
        return super().find_class(module, name)
