"""Random Qwen2-VL models of the true architecture at toy sizes: for the lab's base model and for tests."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from transformers import GenerationConfig, PreTrainedTokenizerBase, Qwen2VLConfig, Qwen2VLForConditionalGeneration


@dataclass(frozen=True)
class TinySize:
    """Widths and depths of a toy Qwen2-VL.

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


def build_model(
    tokenizer: PreTrainedTokenizerBase, size: TinySize | None = None, seed: int = 0
) -> Qwen2VLForConditionalGeneration:
    """Builds a randomly initialised model that fits ``tokenizer``.

    The initial scale is 1/sqrt(hidden): transformers' 0.02 is made for wide models.
    """
    size = size or TinySize()
    ids = tokenizer.convert_tokens_to_ids
    half = size.hidden // size.heads // 2
    temporal, vertical = max(1, half // 24), max(1, half // 8)
    section = [temporal, vertical, half - temporal - vertical]
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": -(-len(tokenizer) // 64) * 64,
            "hidden_size": size.hidden,
            "intermediate_size": size.mlp,
            "num_hidden_layers": size.layers,
            "num_attention_heads": size.heads,
            "num_key_value_heads": size.kv_heads,
            "max_position_embeddings": 4096,
            "initializer_range": size.hidden**-0.5,
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
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2VLForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        bos_token_id=config.text_config.bos_token_id,
        eos_token_id=[config.text_config.eos_token_id, config.text_config.pad_token_id],
        pad_token_id=config.text_config.pad_token_id,
    )
    return model


def cast(model: nn.Module, dtype: str) -> None:
    """Casts weights in place; ``auto`` leaves them. Buffers stay: rotary frequencies need their precision."""
    if dtype == "bfloat16":
        for parameter in model.parameters():
            parameter.data = parameter.data.to(torch.bfloat16)
