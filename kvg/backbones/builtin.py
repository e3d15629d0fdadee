"""Models that are no folder of the user's: the lab's base, which ships with this package, and random toys."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase, Qwen2VLConfig

from kvg.backbones.family import Family
from kvg.errors import ConfigError
from kvg.lab.corpus import corpus
from kvg.lab.tokenizer import train_tokenizer

LAB: Final = "lab"  # the base model that ships with this project
RANDOM: Final = (
    "tiny",
    "lab-random",
)  # for tests; of the lab's size, to be pretrained
FAMILY: Final = "qwen2_vl"  # of all of them, unless a config names another one for ``tiny``


def checkpoint_folder(checkpoint: str) -> str:
    """Where a checkpoint lies: the folder of ``lab``, or what it says itself.

    Raises:
        ConfigError: the lab's base has not been built.
    """
    if checkpoint != LAB:
        return checkpoint
    if not (lab_folder() / "model.safetensors").is_file():
        raise ConfigError("backbone.checkpoint", "the lab's base is not in this package; build it: `make base`")
    return str(lab_folder())


def lab_folder() -> Path:
    """Where the lab's base model lies in this package."""
    return Path(str(resources.files("kvg.lab") / "base"))


@lru_cache(maxsize=1)
def lab_tokenizer() -> PreTrainedTokenizerBase:
    """The tokenizer that ships with the lab's base; trained anew where that folder has not been made yet."""
    if (lab_folder() / "tokenizer.json").is_file():
        return AutoTokenizer.from_pretrained(lab_folder())
    return train_tokenizer(corpus(0))


def random_tokenizer(checkpoint: str, family: Family) -> PreTrainedTokenizerBase:
    """The tokenizer of a random model: the lab's, or for ``tiny`` that of its family.

    Args:
        checkpoint: one of ``RANDOM``.
        family: of the model.
    """
    if checkpoint != "tiny":
        return lab_tokenizer()
    tokenizer = family.tiny_tokenizer(copy.deepcopy(lab_tokenizer()))
    tokenizer.chat_template = family.chat_template
    return tokenizer


@dataclass(frozen=True)
class TinySize:
    """Widths and depths of a toy model.

    ``rope_theta`` is far below the published 1e6: Qwen2-VL gives the horizontal axis the lowest rotary frequencies,
    and with a small head a large theta makes the columns of a small picture nearly alike. It must not be too small
    either: attention by content alone, wherever the words stand, needs pairs that hardly turn over a whole prompt. At
    theta 10 this model learnt where things are and never which one was meant. For the same reason the horizontal axis
    gets most of the pairs here: from fast enough for columns to slow enough for content.
    """

    hidden: int = 192
    layers: int = 5
    heads: int = 4
    kv_heads: int = 2
    mlp: int = 384
    vision_dim: int = 128
    vision_layers: int = 3
    vision_heads: int = 4
    rope_theta: float = 3000.0

    def text(self, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
        """Settings of a language model that fits a tokenizer, by the names that all families share."""
        return {
            "vocab_size": -(-len(tokenizer) // 64) * 64,
            "hidden_size": self.hidden,
            "intermediate_size": self.mlp,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "max_position_embeddings": 4096,
            "initializer_range": self.hidden**-0.5,
        }

    def tower(self) -> dict[str, Any]:
        """Settings of a vision tower whose own width is called ``hidden_size``."""
        return {
            "depth": self.vision_layers,
            "hidden_size": self.vision_dim,
            "intermediate_size": 2 * self.vision_dim,
            "num_heads": self.vision_heads,
            "out_hidden_size": self.hidden,
        }


def qwen2_vl_config(tokenizer: PreTrainedTokenizerBase, size: TinySize) -> Qwen2VLConfig:
    """Settings of a Qwen2-VL that fits a tokenizer.

    The initial scale is 1/sqrt(hidden): transformers' 0.02 is made for wide models.
    """
    ids = tokenizer.convert_tokens_to_ids
    half = size.hidden // size.heads // 2
    temporal, vertical = max(1, half // 24), max(1, half // 8)
    section = [temporal, vertical, half - temporal - vertical]
    return Qwen2VLConfig(
        text_config={
            **size.text(tokenizer),
            "rope_parameters": {"rope_type": "default", "rope_theta": size.rope_theta, "mrope_section": section},
            "bos_token_id": ids("<|endoftext|>"),
            "eos_token_id": ids("<|im_end|>"),
            "pad_token_id": ids("<|endoftext|>"),
        },
        vision_config={
            "depth": size.vision_layers,
            "embed_dim": size.vision_dim,
            "num_heads": size.vision_heads,
            "hidden_size": size.hidden,
            "mlp_ratio": 4,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "initializer_range": size.vision_dim**-0.5,
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=True,
    )


def build_model(hf_class: type[Any], config: Any, dtype: str = "auto", attn: str = "sdpa", seed: int = 0) -> Any:
    """A randomly initialised model.

    Args:
        hf_class: of transformers.
        config: of the model.
        dtype: ``auto`` or ``float32``; ``bfloat16`` casts the weights, and leaves the buffers as they are: rotary
            frequencies need their precision.
        attn: attention implementation of transformers.
        seed: of the weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = hf_class(config)
    text = config.text_config
    model.generation_config = GenerationConfig(  # type: ignore[assignment]
        bos_token_id=text.bos_token_id,
        eos_token_id=[text.eos_token_id, text.pad_token_id],
        pad_token_id=text.pad_token_id,
    )
    model.set_attn_implementation(attn)  # type: ignore[operator]
    if dtype == "bfloat16":
        for parameter in model.parameters():
            parameter.data = parameter.data.to(torch.bfloat16)
    return model


def build_builtin(checkpoint: str, family: Family, dtype: str, attn: str) -> Any:
    """A random model: ``tiny`` of a family, or ``lab-random``.

    Args:
        checkpoint: one of ``RANDOM``.
        family: of the model.
        dtype: see ``build_model``.
        attn: see ``build_model``.
    """
    tokenizer = random_tokenizer(checkpoint, family)
    config = family.tiny_config(tokenizer) if checkpoint == "tiny" else qwen2_vl_config(tokenizer, TinySize())
    return build_model(family.hf_class, config, dtype, attn)
