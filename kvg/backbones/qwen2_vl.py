"""Qwen2-VL: the lab's base, a random toy of the true architecture, or any local or hub checkpoint."""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase, Qwen2VLForConditionalGeneration

from kvg.backbones.base import Backbone
from kvg.backbones.checkpoints import Description
from kvg.backbones.picture_settings import PictureSettings
from kvg.backbones.tiny import TinySize, build_model, cast
from kvg.errors import ConfigError
from kvg.lab.corpus import corpus
from kvg.lab.tokenizer import train_tokenizer
from kvg.text.box_codec import BoxCodec, RelativeCodec

LAB_PICTURE = PictureSettings(min_pixels=28 * 28, max_pixels=140 * 140)
RANDOM = {
    "tiny": TinySize(hidden=64, layers=2, mlp=128, vision_dim=32, vision_layers=1, vision_heads=2),
    "lab-random": TinySize(),
}


def lab_folder() -> Path:
    """Where the lab's base model lies in this package."""
    return Path(str(resources.files("kvg.lab") / "base"))


@lru_cache(maxsize=1)
def lab_tokenizer() -> PreTrainedTokenizerBase:
    """The tokenizer that ships with the lab's base; trained anew where that folder has not been made yet."""
    if (lab_folder() / "tokenizer.json").is_file():
        return AutoTokenizer.from_pretrained(lab_folder())
    return train_tokenizer(corpus(0))


class Qwen2VLBackbone(Backbone):
    """Qwen2-VL with its 0-1000 relative boxes.

    ``checkpoint`` may also be ``lab`` (the base model shipped with this project), ``tiny`` (random, for tests) or
    ``lab-random`` (random, of the size of ``lab``: what pretraining starts from).
    """

    hf_class = Qwen2VLForConditionalGeneration
    model_type = "qwen2_vl"

    def make_codec(self) -> BoxCodec:
        """See ``Backbone.make_codec``."""
        return RelativeCodec()

    def describe(self, checkpoint: str, adapter: str | None = None) -> Description:
        """See ``Backbone.describe``."""
        if checkpoint in RANDOM:
            return Description(lab_tokenizer(), LAB_PICTURE)
        return super().describe(_folder(checkpoint), adapter)

    def load(self, checkpoint: str, description: Description, dtype: str, attn: str) -> Any:
        """See ``Backbone.load``."""
        if checkpoint not in RANDOM:
            return super().load(_folder(checkpoint), description, dtype, attn)
        model = build_model(lab_tokenizer(), RANDOM[checkpoint])
        model.set_attn_implementation(attn)
        cast(model, dtype)
        return model


def _folder(checkpoint: str) -> str:
    if checkpoint != "lab":
        return checkpoint
    if not (lab_folder() / "model.safetensors").is_file():
        raise ConfigError("backbone.checkpoint", "the lab's base is not in this package; build it: `make base`")
    return str(lab_folder())
