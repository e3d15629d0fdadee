"""InternVL (the form of transformers, ``-hf``): tiles of 448 px with 256 tokens each, plain RoPE, boxes on 0-1000."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.models.llama.modeling_llama import LlamaDecoderLayer
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer

from kvg.backbones.family import Family
from kvg.backbones.picture_processor import PictureProcessor
from kvg.backbones.picture_settings import PictureSettings
from kvg.backbones.tile_processor import TileProcessor, TileSettings, parse_tile_settings
from kvg.batches import Picture, Pictures, VisualTokens
from kvg.text.box_codec import BoxCodec, ListCodec
from kvg.text.prompts import PromptFormat

_START, _END = "<img>", "</img>"


class InternVL(Family):
    """InternVL 2.5 to 3.5, whose language model is a Qwen2, a Qwen3 or a Llama."""

    hf_class = InternVLForConditionalGeneration
    model_type = "internvl"
    image_token = "<IMG_CONTEXT>"
    turn_end = "<|im_end|>"
    document_start = "<|endoftext|>"
    prompt_format = PromptFormat("<ref>", "</ref>")
    plain_layers = (Qwen2DecoderLayer, Qwen3DecoderLayer, LlamaDecoderLayer)
    # That of the published template for text and images.
    chat_template = (
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
        "{% if message['content'] is string %}{{ message['content'] }}"
        "{% else %}{% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}<IMG_CONTEXT>\n"
        "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )

    @property
    def codec(self) -> BoxCodec:
        """See ``Family.codec``."""
        return ListCodec()

    def tower(self, model: Any) -> nn.Module:
        """See ``Family.tower``."""
        tower: nn.Module = model.model.vision_tower
        return tower

    def projector(self, model: Any) -> list[nn.Module]:
        """See ``Family.projector``."""
        return [model.model.multi_modal_projector]

    def fsdp_units(self, model: Any) -> list[nn.Module]:
        """See ``Family.fsdp_units``: every layer of tower and language model."""
        return [*model.model.vision_tower.encoder.layer, *self.language(model).layers]

    def picture_settings(self, content: Mapping[str, Any], config: Any) -> PictureSettings:
        """See ``Family.picture_settings``."""
        return parse_tile_settings(content, config.image_seq_length)

    def picture_processor(self, settings: PictureSettings) -> PictureProcessor:
        """See ``Family.picture_processor``."""
        assert isinstance(settings, TileSettings)
        return TileProcessor(settings)

    def check_pictures(self, settings: PictureSettings, config: Any) -> str | None:
        """See ``Family.check_pictures``."""
        assert isinstance(settings, TileSettings)
        vision, side = config.vision_config, settings.tile_size
        if list(vision.image_size) != [side, side]:
            return f"its tiles have {side} px a side, and image_size in its config.json is {list(vision.image_size)}"
        tokens = round(side // vision.patch_size[0] * config.downsample_ratio) ** 2
        if tokens != settings.tile_tokens:
            return (
                f"a tile has {tokens} visual tokens, and image_seq_length in its config.json is {settings.tile_tokens}"
            )
        return None

    def placeholders(self, picture: Picture) -> Sequence[tuple[str, int]]:
        """See ``Family.placeholders``: all tiles of a picture in one pair of marks."""
        return [(_START, 1), (self.image_token, picture.num_tokens), (_END, 1)]

    def see(self, model: Any, pictures: Pictures, processor: PictureProcessor) -> VisualTokens:
        """See ``Family.see``."""
        assert isinstance(processor, TileProcessor)
        tiles = model.model.get_image_features(processor.pixel_values(pictures.tensors["tiles"])).pooler_output
        return VisualTokens(tiles.flatten(0, 1), pictures.num_tokens)

    def tiny_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        """See ``Family.tiny_tokenizer``; its names of tokens are those that ``InternVLProcessor`` asks for."""
        named = {"start_image_token": _START, "end_image_token": _END, "context_image_token": self.image_token,
                 "video_token": "<video>"}  # fmt: skip
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer.backend_tokenizer,
            eos_token=self.turn_end,
            pad_token=self.document_start,
            padding_side="left",
            extra_special_tokens=["<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>"],
            **named,
        )

    def tiny_config(self, tokenizer: PreTrainedTokenizerBase) -> Any:
        """See ``Family.tiny_config``: a Qwen2 that reads tiles of 56 px, 4 tokens each."""
        ids = tokenizer.convert_tokens_to_ids
        text = {
            "model_type": "qwen2",
            "vocab_size": -(-len(tokenizer) // 64) * 64,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "initializer_range": 64**-0.5,
            "rope_parameters": {"rope_type": "default", "rope_theta": 3000.0},
            "bos_token_id": ids(self.document_start),
            "eos_token_id": ids(self.turn_end),
            "pad_token_id": ids(self.document_start),
            "tie_word_embeddings": True,
        }
        vision = {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "image_size": [56, 56],
            "patch_size": [14, 14],
            "attention_bias": True,
            "initializer_range": 32**-0.5,
        }
        return InternVLConfig(
            text_config=text,
            vision_config=vision,
            image_token_id=ids(self.image_token),
            image_seq_length=4,
            tie_word_embeddings=True,
        )

    def tiny_pictures(self) -> PictureSettings:
        """See ``Family.tiny_pictures``."""
        return TileSettings(56 * 56, 6 * 56 * 56, tile_size=56, tile_tokens=4)
