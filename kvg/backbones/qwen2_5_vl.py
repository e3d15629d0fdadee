"""Qwen2.5-VL: boxes in absolute pixels of the *resized* picture, as JSON. Swapping the backbone swaps the codec."""

from __future__ import annotations

from typing import Any

import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from kvg.backbones.base import Backbone
from kvg.backbones.checkpoints import Description
from kvg.backbones.qwen2_vl import LAB_PICTURE, RANDOM, lab_tokenizer
from kvg.backbones.tiny import build_model, cast
from kvg.text.box_codec import AbsoluteCodec, BoxCodec


class Qwen25VLBackbone(Backbone):
    """Qwen2.5-VL. ``checkpoint`` may also be ``tiny``: random, of the true architecture, for tests."""

    hf_class = Qwen2_5_VLForConditionalGeneration
    model_type = "qwen2_5_vl"

    def make_codec(self) -> BoxCodec:
        """See ``Backbone.make_codec``."""
        return AbsoluteCodec()

    def describe(self, checkpoint: str, adapter: str | None = None) -> Description:
        """See ``Backbone.describe``."""
        if checkpoint == "tiny":
            return Description(lab_tokenizer(), LAB_PICTURE)
        return super().describe(checkpoint, adapter)

    def load(self, checkpoint: str, description: Description, dtype: str, attn: str) -> Any:
        """See ``Backbone.load``."""
        if checkpoint != "tiny":
            return super().load(checkpoint, description, dtype, attn)
        tokenizer, size = lab_tokenizer(), RANDOM["tiny"]
        plain = build_model(tokenizer, size)
        config = plain.config.to_dict()
        vision = {
            "depth": size.vision_layers,
            "hidden_size": size.vision_dim,
            "intermediate_size": 2 * size.vision_dim,
            "num_heads": size.vision_heads,
            "out_hidden_size": size.hidden,
            "patch_size": 14,
            "fullatt_block_indexes": [0],
            "window_size": 112,
        }
        text = {k: v for k, v in config["text_config"].items() if k != "model_type"}
        ids = {
            k: config[k] for k in ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = Qwen2_5_VLForConditionalGeneration(
                Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **ids)
            )
        model.generation_config = plain.generation_config
        model.set_attn_implementation(attn)
        cast(model, dtype)
        return model
