"""Qwen2.5-VL: boxes in absolute pixels of the *resized* picture, as JSON; a tower with attention in windows."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedTokenizerBase, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLDecoderLayer

from kvg.backbones.families.qwen2_vl import TINY, Qwen2VL
from kvg.text.box_codec import AbsoluteCodec, BoxCodec


class Qwen25VL(Qwen2VL):
    """Qwen2.5-VL; all else is as in Qwen2-VL."""

    hf_class = Qwen2_5_VLForConditionalGeneration
    model_type = "qwen2_5_vl"
    plain_layers = (Qwen2_5_VLDecoderLayer,)

    @property
    def codec(self) -> BoxCodec:
        """See ``Family.codec``."""
        return AbsoluteCodec()

    def tiny_config(self, tokenizer: PreTrainedTokenizerBase) -> Any:
        """See ``Family.tiny_config``."""
        plain = super().tiny_config(tokenizer).to_dict()
        vision = {
            **TINY.tower(),
            "patch_size": 14,
            "fullatt_block_indexes": [0],
            "window_size": 112,
        }
        text = {name: value for name, value in plain["text_config"].items() if name != "model_type"}
        ids = {name: value for name, value in plain.items() if name.endswith("_token_id")}
        return Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **ids)
