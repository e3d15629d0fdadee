"""SmolVLM2: rows and columns of tiles, each with its own mark, and a small Llama; boxes as JSON on a grid of 0-1000."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from transformers import (
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from kvg.backbones.family import Family
from kvg.backbones.picture_processor import PictureProcessor
from kvg.backbones.picture_settings import PictureSettings
from kvg.backbones.split_processor import SplitProcessor, SplitSettings, parse_split_settings
from kvg.batches import Picture, Pictures, VisualTokens
from kvg.text.box_codec import BoxCodec, RelativeCodec
from kvg.text.prompts import PromptFormat

_MARK, _WHOLE = "<fake_token_around_image>", "<global-img>"
_ROWS = 6  # as many rows and columns have tokens in the published tokenizers
_TILES = tuple(f"<row_{row}_col_{column}>" for row in range(1, _ROWS + 1) for column in range(1, _ROWS + 1))


class SmolVLM(Family):
    """SmolVLM2. It was published without a convention for boxes, so that one is taught: that of Qwen3-VL."""

    hf_class = SmolVLMForConditionalGeneration
    model_type = "smolvlm"
    image_token = "<image>"
    turn_end = "<end_of_utterance>"
    document_start = "<|endoftext|>"
    answer_start = " "
    prompt_format = PromptFormat()
    plain_layers = (LlamaDecoderLayer,)
    # That of the published template for text and images.
    chat_template = (
        "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
        "{% if message['content'] is string %}: {{ message['content'] }}"
        "{% else %}{{ ':' if message['content'][0]['type'] == 'image' else ': ' }}"
        "{% for part in message['content'] %}"
        "{% if part['type'] == 'text' %}{{ part['text'] }}"
        "{% elif part['type'] == 'image' %}<image>{% endif %}{% endfor %}{% endif %}<end_of_utterance>\n"
        "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
    )

    @property
    def codec(self) -> BoxCodec:
        """See ``Family.codec``."""
        return RelativeCodec(as_json=True)

    def special_tokens(self) -> tuple[str, ...]:
        """See ``Family.special_tokens``: also the marks of tiles."""
        return (*super().special_tokens(), _MARK, _WHOLE, *_TILES)

    def tower(self, model: Any) -> nn.Module:
        """See ``Family.tower``."""
        tower: nn.Module = model.model.vision_model
        return tower

    def projector(self, model: Any) -> list[nn.Module]:
        """See ``Family.projector``."""
        return [model.model.connector]

    def fsdp_units(self, model: Any) -> list[nn.Module]:
        """See ``Family.fsdp_units``: every layer of tower and language model."""
        return [*model.model.vision_model.encoder.layers, *self.language(model).layers]

    def picture_settings(self, content: Mapping[str, Any], config: Any) -> PictureSettings:
        """See ``Family.picture_settings``."""
        return parse_split_settings(content, _tile_tokens(config))

    def picture_processor(self, settings: PictureSettings) -> PictureProcessor:
        """See ``Family.picture_processor``."""
        assert isinstance(settings, SplitSettings)
        return SplitProcessor(settings)

    def check_pictures(self, settings: PictureSettings, config: Any) -> str | None:
        """See ``Family.check_pictures``."""
        assert isinstance(settings, SplitSettings)
        vision, side = config.vision_config, settings.tile_size
        if side != vision.image_size:
            return f"its tiles have {side} px a side, and image_size in its config.json is {vision.image_size}"
        patches = vision.image_size // vision.patch_size
        if patches % config.scale_factor:
            return f"{patches} patches a side cannot be merged by scale_factor {config.scale_factor} of its config.json"
        if settings.longest_edge > _ROWS * side:
            return f"pictures get more than {_ROWS} tiles a side, for which there are no tokens"
        return None

    def placeholders(self, picture: Picture) -> Sequence[tuple[str, int]]:
        """See ``Family.placeholders``: each tile after a mark with its row and column, each row in a line."""
        rows, columns = picture.tensors["grid"][0].tolist()
        num = picture.num_tokens // (rows * columns + 1)
        spans: list[tuple[str, int]] = []
        for row in range(1, rows + 1):
            for column in range(1, columns + 1):
                line = "\n" if row > 1 and column == 1 else ""
                spans += [(f"{line}{_MARK}<row_{row}_col_{column}>", 1), (self.image_token, num)]
        lines = "\n\n" if rows else ""
        return [*spans, (f"{lines}{_MARK}{_WHOLE}", 1), (self.image_token, num), (_MARK, 1)]

    def see(self, model: Any, pictures: Pictures, processor: PictureProcessor) -> VisualTokens:
        """See ``Family.see``; no tile is padded, so that all of each is seen."""
        assert isinstance(processor, SplitProcessor)
        tower = model.model.vision_model
        pixels = processor.pixel_values(pictures.tensors["tiles"]).to(tower.embeddings.patch_embedding.weight.dtype)
        tiles = model.model.connector(tower(pixel_values=pixels).last_hidden_state)
        return VisualTokens(tiles.flatten(0, 1), pictures.num_tokens)

    def processor_content(self, settings: PictureSettings) -> Mapping[str, Any]:
        """See ``Family.processor_content``: without it transformers would take another number of tokens a tile."""
        assert isinstance(settings, SplitSettings)
        return {"processor_class": "SmolVLMProcessor", "image_seq_len": settings.tile_tokens}

    def tiny_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        """See ``Family.tiny_tokenizer``."""
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer.backend_tokenizer,
            bos_token="<|im_start|>",
            eos_token=self.turn_end,
            pad_token="<|im_end|>",
            padding_side="left",
            clean_up_tokenization_spaces=False,
            extra_special_tokens=[self.image_token, _MARK, _WHOLE, *_TILES],
        )

    def tiny_config(self, tokenizer: PreTrainedTokenizerBase) -> Any:
        """See ``Family.tiny_config``: a Llama that reads tiles of 56 px, 4 tokens each."""
        ids = tokenizer.convert_tokens_to_ids
        text = {
            "model_type": "llama",
            "vocab_size": -(-len(tokenizer) // 64) * 64,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "initializer_range": 64**-0.5,
            "rope_parameters": {"rope_type": "default", "rope_theta": 3000.0},
            "bos_token_id": ids("<|im_start|>"),
            "eos_token_id": ids(self.turn_end),
            "pad_token_id": ids("<|im_end|>"),
            "tie_word_embeddings": True,
        }
        vision = {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "image_size": 56,
            "patch_size": 14,
            "initializer_range": 32**-0.5,
        }
        return SmolVLMConfig(
            text_config=text,
            vision_config=vision,
            scale_factor=2,
            image_token_id=ids(self.image_token),
            tie_word_embeddings=True,
        )

    def tiny_pictures(self) -> PictureSettings:
        """See ``Family.tiny_pictures``: at most 2 x 2 tiles, and one of the whole picture."""
        return SplitSettings(56**2, 112**2, tile_size=56, tile_tokens=4)


def _tile_tokens(config: Any) -> int:
    """Visual tokens of a tile."""
    vision = config.vision_config
    return int((vision.image_size // vision.patch_size // config.scale_factor) ** 2)
