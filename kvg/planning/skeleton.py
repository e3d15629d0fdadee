"""A backbone whose weights have shapes and no memory."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from transformers import GenerationConfig

from kvg.backbones.backbone import Backbone
from kvg.backbones.checkpoints import Description
from kvg.backbones.family import Family
from kvg.backbones.picture_settings import PictureSettings

_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


@dataclass(frozen=True)
class Size:
    """A model as far as its memory depends on it.

    Attributes:
        name: for people.
        family: of the model.
        config: of transformers; None for the family's toy model.
        pictures: how pictures are cut; None as the toy model.
        dtype: of the stored weights.
    """

    name: str
    family: Family
    config: Any = None
    pictures: PictureSettings | None = None
    dtype: torch.dtype = torch.bfloat16


class Skeleton(Backbone):
    """The project's own wrapper on weights without memory, so that a plan runs what a training runs.

    Args:
        size: of the model.
        fakes: the mode of its tensors.
        precision: as in ``trainer.precision``.
        settings: further arguments of ``Backbone``.

    Raises:
        ConfigError: see ``Backbone``.
    """

    def __init__(self, size: Size, fakes: FakeTensorMode, precision: str, **settings: Any) -> None:
        self._size, self.fakes = size, fakes
        super().__init__("tiny", family=size.family, **settings)
        stored = {"float32": torch.float32, "bfloat16": torch.bfloat16}.get(str(settings.get("dtype")), size.dtype)
        _make_fake(self.model, fakes, torch.bfloat16 if precision == "bf16-true" else stored)

    def describe(self, checkpoint: str, adapter: str | None) -> Description:
        """See ``Backbone.describe``: the toy's tokenizer, whose texts are of about the same length."""
        toy = super().describe(checkpoint, adapter)
        return Description(toy.tokenizer, self._size.pictures or toy.picture)

    def load(self, checkpoint: str, description: Description, dtype: str, attn: str, whole: bool = True) -> Any:
        """See ``Backbone.load``: no weight is read or made."""
        tokenizer, family = description.tokenizer, self._size.family
        toy = family.tiny_config(tokenizer)
        config = toy if self._size.config is None else copy.deepcopy(self._size.config)
        for name, value in vars(toy).items():
            if name.endswith("_token_id"):
                setattr(config, name, value)
        text, own = config.get_text_config(), toy.get_text_config()
        for name in _IDS:
            setattr(text, name, getattr(own, name))
        with torch.device("meta"):
            model = family.hf_class(config)
        model.generation_config = GenerationConfig(eos_token_id=own.eos_token_id, pad_token_id=own.pad_token_id)
        model.set_attn_implementation(attn)
        return model


def fake_tensor(fakes: FakeTensorMode, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor of the same shape without memory."""
    meta = torch.empty(like.shape, dtype=dtype or like.dtype, device="meta")
    return FakeTensor(fakes, meta, torch.device("cpu"))


def _make_fake(model: nn.Module, fakes: FakeTensorMode, dtype: torch.dtype) -> None:
    made: dict[int, nn.Parameter] = {}  # weights that are shared stay so
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in made:
                fake = fake_tensor(fakes, parameter, dtype)
                made[id(parameter)] = nn.Parameter(fake, requires_grad=parameter.requires_grad)
            module._parameters[name] = made[id(parameter)]
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_floating_point():
                module._buffers[name] = fake_tensor(fakes, buffer)
