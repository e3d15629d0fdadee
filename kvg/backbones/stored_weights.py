"""A model without weights, and the files from which each process then reads the rows that it holds, and no others."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Shard
from transformers import GenerationConfig

from kvg.backbones.checkpoint_files import fault, reading
from kvg.backbones.weight_files import current_name, file_names

log = logging.getLogger(__name__)
DTYPES: Final = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
_NORMS: Final = ".lora_magnitude_vector.default.weight"  # of DoRA, which begin as the norms of the rows of a weight
_DEFERRED: ContextVar[bool] = ContextVar("deferred", default=False)


@contextmanager
def deferred_weights() -> Iterator[None]:
    """Within this block a backbone is built without weights; ``Backbone.shard`` has each process read its own."""
    token = _DEFERRED.set(True)
    try:
        yield
    finally:
        _DEFERRED.reset(token)


def weights_deferred() -> bool:
    """Whether this is called within ``deferred_weights``."""
    return _DEFERRED.get()


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies in a file of safetensors, row by row.

    Attributes:
        file: that holds it.
        name: that it has there.
        dtype: that it has there.
        shape: of the whole.
        start: of its first byte, from the start of the file.
    """

    file: Path
    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int

    def read(self, dtype: torch.dtype) -> Tensor:
        """The whole tensor, cast to a type."""
        place = torch.empty(self.shape, dtype=dtype)
        self.read_into(place)
        return place

    def read_into(self, place: Tensor, first: int = 0) -> None:
        """Fills a tensor with rows of this one, cast to its type; reads their bytes alone.

        Args:
            place: ``[R, ...]``, on any device.
            first: number of the first row.

        Raises:
            ConfigError: the file is cut off.
        """
        if not place.numel():
            return
        plain = place.dtype == self.dtype and place.device.type == "cpu" and place.is_contiguous()
        rows = place if plain else torch.empty(place.shape, dtype=self.dtype)
        row_bytes = place[0].numel() * self.dtype.itemsize if place.ndim else self.dtype.itemsize
        flat = memoryview(rows.detach().reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
        with self.file.open("rb", buffering=0) as stream:
            stream.seek(self.start + first * row_bytes)
            done = 0
            while done < len(flat):  # a single call reads at most 2 GiB
                num = stream.readinto(flat[done:])
                if not num:
                    raise fault(str(self.file.parent), f"its {self.file.name} is cut off; copy it anew")
                done += num
        if not plain:
            place.copy_(rows)


@dataclass(frozen=True)
class StoredWeights:
    """The files of a model that was built without weights.

    Attributes:
        tensors: by the names that the model has for them.
    """

    tensors: Mapping[str, StoredTensor]

    def __deepcopy__(self, memo: Any) -> StoredWeights:
        """Shares what is never changed."""
        return self

    def fill(self, module: nn.Module, model: nn.Module, device: torch.device) -> None:
        """Gives memory to all tensors that have none, and reads them; of a sharded one this process' rows alone.

        Args:
            module: that holds the model, sharded or not.
            model: the Hugging Face model, whose names are those of the files.
            device: that the weights go to.
        """
        empty = {name for name, value in model.named_parameters() if value.is_meta}
        apply: Any = module._apply
        apply(lambda value: torch.empty_like(value, device=device) if value.is_meta else value.to(device))
        cast(Any, model).tie_weights()  # plain parameters have become others, each for itself
        parameters = dict(model.named_parameters())
        stored = {name: self.tensors[plain_name(name)] for name in empty}
        with torch.no_grad():
            for name, tensor in sorted(stored.items(), key=lambda item: (str(item[1].file), item[1].start)):
                tensor.read_into(*_own_rows(name, parameters[name]))
            for name, value in parameters.items():
                if name.endswith(_NORMS):
                    layer = name.removesuffix(_NORMS)
                    weight = parameters[f"{layer}.base_layer.weight"]
                    norms, first = _own_rows(name, value)
                    rows = torch.empty((len(norms), *weight.shape[1:]), dtype=weight.dtype)
                    self.tensors[f"{layer}.weight"].read_into(rows, first)
                    norms.copy_(torch.linalg.norm(rows, dim=1))


def _own_rows(name: str, value: Tensor) -> tuple[Tensor, int]:
    """This process' rows of a tensor, and the number of the first one."""
    if not isinstance(value, DTensor):
        return value, 0
    (place,) = value.placements
    assert isinstance(place, Shard)
    assert place.dim == 0, f"{name} is not sharded by its rows"
    mesh = value.device_mesh
    each = -(-value.shape[0] // mesh.size())
    return value.to_local(), min(each * mesh.get_local_rank(), value.shape[0])


def plain_name(name: str) -> str:
    """The name of a weight in a model without adapters.

    >>> plain_name("embed_tokens.token_adapter.base_layer.weight")
    'embed_tokens.weight'
    """
    return name.replace(".token_adapter", "").replace(".base_layer", "")


def stored_tensors(checkpoint: str) -> dict[str, StoredTensor]:
    """Where each weight of a folder lies, by its name of today.

    Raises:
        ConfigError: see ``kvg.backbones.weight_files.file_names``.
    """
    out = {}
    for name in file_names(checkpoint):
        path = Path(checkpoint) / name
        with path.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            head = json.loads(stream.read(size))
        for key, entry in head.items():
            if key != "__metadata__" and entry["dtype"] in DTYPES:
                start = 8 + size + entry["data_offsets"][0]
                here = (DTYPES[entry["dtype"]], tuple(entry["shape"]), start)
                out[current_name(key)] = StoredTensor(path, key, *here)
    return out


def build_deferred(
    hf_class: type[Any], checkpoint: str, config: Any, dtype: Any, attn: str
) -> tuple[Any, StoredWeights] | None:
    """A model without weights, and where they are; its buffers are made as they always are.

    Args:
        hf_class: of transformers.
        checkpoint: its folder, whose heads of files have been checked.
        config: of the model.
        dtype: ``auto``, ``float32`` or ``bfloat16``.
        attn: attention implementation of transformers.

    Returns:
        None where files and model differ in their names, so that transformers has to convert one into the other.
    """
    tensors = stored_tensors(checkpoint)
    own = config.dtype or next((t.dtype for t in tensors.values() if t.dtype.is_floating_point), torch.float32)
    dtype = own if dtype == "auto" else getattr(torch, dtype)
    config = copy.deepcopy(config)
    for part in (config, *(getattr(config, name) for name in config.sub_configs)):
        part.dtype = dtype
    with _parameters_without_memory(dtype), reading(checkpoint, "its config.json describes no model"):
        model = hf_class(config)
    own_names = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    missing = [name for name, _ in model.named_parameters() if name not in tensors]
    missing += [name for name in model.state_dict() if name not in own_names]  # buffers, which are not sharded
    missing += [name for name, p in model.named_parameters() if name in tensors and tensors[name].shape != p.shape]
    missing += [name for name in model.all_tied_weights_keys if name in tensors]  # and may be another one than its twin
    if missing:
        log.info("%s is loaded whole in each process: its files have another %s", checkpoint, missing[0])
        return None
    model.set_attn_implementation(attn)
    model.config.name_or_path = checkpoint
    if (Path(checkpoint) / "generation_config.json").is_file():
        with reading(checkpoint, "its generation_config.json cannot be read"):
            model.generation_config = GenerationConfig.from_pretrained(checkpoint)
    return model.eval(), StoredWeights(tensors)


@contextmanager
def placeholders(model: nn.Module) -> Iterator[None]:
    """Within this block parameters without memory seem to lie on the CPU.

    PEFT moves new adapters to the device of their layer, and on the meta device their initial values would be lost.
    The values are NaN, so that what is computed from them is refused when training starts.
    """
    empty = [
        (module, name, value)
        for module in model.modules()
        for name, value in module.named_parameters(recurse=False)
        if value.is_meta
    ]
    for module, name, value in empty:
        module._parameters[name] = nn.Parameter(torch.full((), torch.nan, dtype=value.dtype).expand(value.shape), False)
    try:
        yield
    finally:
        for module, name, value in empty:
            module._parameters[name] = value


@contextmanager
def _parameters_without_memory(dtype: torch.dtype) -> Iterator[None]:
    """Within this block parameters of new modules are on the meta device, and buffers where they always are."""
    register, before = nn.Module.register_parameter, torch.get_default_dtype()

    def register_meta(module: nn.Module, name: str, param: nn.Parameter | None) -> None:
        if param is not None and not param.is_meta:
            param = nn.Parameter(param.to("meta"), param.requires_grad)
        register(module, name, param)

    nn.Module.register_parameter = register_meta  # type: ignore[assignment, method-assign]
    torch.set_default_dtype(dtype)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]
        torch.set_default_dtype(before)
