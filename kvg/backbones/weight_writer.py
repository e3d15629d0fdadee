"""Writes a model's weights as safetensors, one tensor at a time, so that no process ever holds the whole model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers.core_model_loading import revert_weight_conversion

from kvg.backbones.four_bit import dequantized
from kvg.backbones.lora import LoRASettings, merged_state
from kvg.backbones.saved_weights import LazyTensor, Weight
from kvg.backbones.stored_weights import DTYPES
from kvg.backbones.weight_files import INDEX, WEIGHTS

SHARD_BYTES: Final = 5 * 10**9  # of a file, as on the hub
_NAMES: Final = {dtype: name for name, dtype in DTYPES.items()}
_OWNER: Final = re.compile(r"\.(?:base_layer|lora_\w+|original_module|token_adapter|modules_to_save)(?:\.|$)")
Check = Callable[[str, Tensor], None]


@dataclass(frozen=True)
class Part:
    """Tensors of a layer, with its adapters, that become tensors of the file.

    Attributes:
        state: of the model, by name; sharded, whole, or still to be read.
        written: what is made of them, on the meta device, by the names that the model has without adapters.
        lora: settings of the adapters.
    """

    state: Mapping[str, Weight]
    written: Mapping[str, Tensor]
    lora: LoRASettings | None

    def gathered(self, writes: bool) -> dict[str, Tensor]:
        """What is written, on the CPU; every process has to call it, and only where ``writes`` is set it is needed."""
        plain = {name: _whole(value) for name, value in self.state.items()}
        if not writes:
            return {}
        return merged_state({name: value.detach().cpu() for name, value in plain.items()}, self.lora)


def _whole(value: Weight) -> Tensor:
    if isinstance(value, LazyTensor):
        return value.read()
    return value.full_tensor() if isinstance(value, DTensor) else value


def _embeddings(layer: nn.Module) -> Any:
    """Weights of an embedding or output layer, below PEFT's single trained tokens."""
    adapter = getattr(layer, "token_adapter", None)
    return layer.weight if adapter is None else adapter.base_layer.weight


def exported_parts(model: Any, lora: LoRASettings | None, state: Mapping[str, Weight] | None = None) -> list[Part]:
    """A model's tensors without adapters, layer by layer; an output layer that shares the embeddings is left out.

    Args:
        model: the Hugging Face model.
        lora: settings of its adapters.
        state: in the place of its own.
    """
    own: Mapping[str, Weight] = dequantized(model, model.state_dict() if state is None else state)
    groups: dict[str, dict[str, Weight]] = {}
    for name, value in own.items():
        groups.setdefault(_OWNER.split(name, maxsplit=1)[0] if lora else name, {})[name] = value
    # The settings alone do not say it: where the files hold a head of its own, transformers leaves the two apart.
    one = _embeddings(model.get_output_embeddings()) is _embeddings(model.get_input_embeddings())
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings and one else set()
    parts = []
    for group in groups.values():
        empty = {name: torch.empty(v.shape, dtype=v.dtype, device="meta") for name, v in group.items()}
        written = {name: value for name, value in merged_state(empty, lora).items() if name not in tied}
        if written:
            parts.append(Part(group, written, lora))
    # Larger numbers first keep all of them aligned in a file of several types.
    return sorted(parts, key=lambda part: -next(iter(part.written.values())).dtype.itemsize)


def write_weights(
    folder: Path,
    model: Any,
    parts: list[Part],
    check: Check | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes ``model.safetensors``, or numbered files with an index where that would be larger than a shard.

    Every process has to call it where the model is sharded; the first one writes. It holds one layer at a time.

    Args:
        folder: made where it is missing.
        model: the Hugging Face model; decides about names in the file.
        parts: see ``exported_parts``.
        check: is called with each tensor before it is written, and raises where it is wrong.
        shard_bytes: largest size of a file; a single tensor may be larger.
    """
    writes = not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0
    names = _file_names(model, [name for part in parts for name in part.written])
    if names is None:
        _write_converted(folder, model, parts, writes, check)
        return
    files = _divided(parts, shard_bytes)
    index: dict[str, str] = {}
    for number, file_parts in enumerate(files, 1):
        file = WEIGHTS if len(files) == 1 else f"model-{number:05d}-of-{len(files):05d}.safetensors"
        index |= {names[name]: file for part in file_parts for name in part.written}
        if writes:
            folder.mkdir(parents=True, exist_ok=True)
        with (folder / file).open("wb") if writes else nullcontext() as stream:
            if stream is not None:
                stream.write(_head({names[name]: v for part in file_parts for name, v in part.written.items()}))
            for part in file_parts:
                _write_part(stream, part, check)
    if writes and len(files) > 1:
        size = sum(_size(value) for part in parts for value in part.written.values())
        content = {"metadata": {"total_size": size}, "weight_map": dict(sorted(index.items()))}
        (folder / INDEX).write_text(json.dumps(content, indent=2) + "\n")


def _write_part(stream: IO[bytes] | None, part: Part, check: Check | None) -> None:
    """Writes a layer; nothing of it is left when the next one is gathered, so that memory is used again."""
    tensors = part.gathered(writes=stream is not None)
    for name, spec in part.written.items() if stream is not None else ():
        value = tensors.pop(name)
        if check is not None:
            check(name, value)
        assert (value.shape, value.dtype) == (spec.shape, spec.dtype), name
        assert stream is not None
        stream.write(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)


def _divided(parts: list[Part], shard_bytes: int) -> list[list[Part]]:
    files: list[list[Part]] = [[]]
    size = 0
    for part in parts:
        own = sum(map(_size, part.written.values()))
        if files[-1] and size + own > shard_bytes:
            files.append([])
            size = 0
        files[-1].append(part)
        size += own
    return files


def _head(specs: Mapping[str, Tensor]) -> bytes:
    """Of a file of safetensors that holds tensors of these shapes and types in this order."""
    head: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, value in specs.items():
        start, end = end, end + _size(value)
        head[name] = {"dtype": _NAMES[value.dtype], "shape": list(value.shape), "data_offsets": [start, end]}
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _size(value: Tensor) -> int:
    return value.numel() * value.dtype.itemsize


def _file_names(model: Any, names: list[str]) -> dict[str, str] | None:
    """What transformers calls the tensors in its files; None where it makes others of them."""
    marks = {name: torch.tensor(number) for number, name in enumerate(names)}
    try:
        renamed = {int(mark): name for name, mark in revert_weight_conversion(model, marks).items()}
    except Exception:  # what a conversion makes of a number in the place of a matrix is no part of its interface
        return None
    return {name: renamed[number] for number, name in enumerate(names)} if len(renamed) == len(names) else None


def _write_converted(folder: Path, model: Any, parts: list[Part], writes: bool, check: Check | None) -> None:
    """Writes a model whose tensors have to be together to be converted, such as experts of a layer."""
    state: dict[str, Tensor] = {}
    for part in parts:
        state |= part.gathered(writes)
    if writes:
        written = {name: state[name] for part in parts for name in part.written}
        for name, value in written.items():
            if check is not None:
                check(name, value)
        model.save_pretrained(folder, state_dict=written)
