"""GLM-4.1V: patches as in Qwen2-VL, areas counted in frames, norms around each block, boxes as a list on 0-1000."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from torch import nn
from transformers import (
    Glm4vConfig,
    Glm4vForConditionalGeneration,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.models.glm4v.image_processing_pil_glm4v import smart_resize

from kvg.backbones.families.qwen2_vl import TINY, Qwen2VL
from kvg.backbones.picture_processor import PatchProcessor, PictureProcessor
from kvg.backbones.picture_settings import PatchSettings, PictureSettings, check_areas, parse_patch_settings
from kvg.text.box_codec import BoxCodec, ListCodec
from kvg.text.prompts import PromptFormat

_SIZE = {"shortest_edge": 112 * 112, "longest_edge": 28 * 28 * 15_000}  # of transformers, where a file names none
_IMAGE = ("<|begin_of_image|>", "<|end_of_image|>")
_BOX = ("<|begin_of_box|>", "<|end_of_box|>")
_START = ("[gMASK]", "<sop>")
_ROLES = ("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")


class FramesProcessor(PatchProcessor):
    """Patches whose areas are published for all frames together: a still picture counts as ``temporal_patch_size``.

    ``settings`` hold areas of one picture, as in all families; the file holds those of its frames.
    """

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """See ``PatchProcessor.resized``."""
        s = self.settings
        frames = s.temporal_patch_size
        areas = (frames * s.min_pixels, frames * s.max_pixels)
        rows, columns = smart_resize(frames, height, width, frames, s.cell, *areas)
        return columns, rows

    def file_content(self) -> dict[str, Any]:
        """See ``PictureProcessor.file_content``."""
        s = self.settings
        frames = s.temporal_patch_size
        size = {"shortest_edge": frames * s.min_pixels, "longest_edge": frames * s.max_pixels}
        return {**super().file_content(), "image_processor_type": "Glm4vImageProcessor", "size": size}


class Glm4V(Qwen2VL):
    """GLM-4.1V-9B. Tower and walk of positions are those of Qwen2-VL.

    A turn ends where the next one begins, so completions end with the user's token, as published. Layers have a norm
    behind each block, too, and RoPE on half of a head, so they are called and not written out.
    """

    hf_class = Glm4vForConditionalGeneration
    model_type = "glm4v"
    image_token = "<|image|>"
    turn_end = "<|user|>"
    document_start = "<sop>"
    prompt_format = PromptFormat()
    plain_layers: ClassVar[tuple[type[nn.Module], ...]] = ()
    # That of the published template for text and images.
    chat_template = (
        "[gMASK]<sop>{% for message in messages %}<|{{ message['role'] }}|>\n"
        "{% if message['content'] is string %}{{ message['content'] }}"
        "{% else %}{% for part in message['content'] %}"
        "{% if part['type'] == 'image' or 'image' in part %}<|begin_of_image|><|image|><|end_of_image|>"
        "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
    )

    @property
    def codec(self) -> BoxCodec:
        """See ``Family.codec``."""
        return ListCodec(_BOX, nested=False)

    def special_tokens(self) -> tuple[str, ...]:
        """See ``Family.special_tokens``: also the marks of turns and pictures."""
        return tuple(dict.fromkeys((*super().special_tokens(), *_START, *_ROLES, *_IMAGE)))

    def projector(self, model: Any) -> list[nn.Module]:
        """See ``Family.projector``: the merger, and the convolution before it that makes one token of 2 x 2."""
        return [model.model.visual.downsample, model.model.visual.merger]

    def picture_settings(self, content: Mapping[str, Any], config: Any) -> PictureSettings:
        """See ``Family.picture_settings``; areas of one frame, of what the file says of all."""
        size = content.get("size") or {}
        size = {**_SIZE, **size} if isinstance(size, Mapping) else size
        plain = {name: value for name, value in content.items() if name not in ("min_pixels", "max_pixels")}
        stored = parse_patch_settings({**plain, "size": size})
        frames = stored.temporal_patch_size
        # A sum of whole cells is at most an odd area if it is at most the even one below it.
        settings = replace(stored, min_pixels=-(-stored.min_pixels // frames), max_pixels=stored.max_pixels // frames)
        check_areas(settings, {"min_pixels": "shortest_edge / frames", "max_pixels": "longest_edge / frames"})
        return settings

    def picture_processor(self, settings: PictureSettings) -> PictureProcessor:
        """See ``Family.picture_processor``."""
        assert isinstance(settings, PatchSettings)
        return FramesProcessor(settings)

    def tiny_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        """See ``Family.tiny_tokenizer``."""
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer.backend_tokenizer,
            eos_token="<|endoftext|>",
            pad_token="<|endoftext|>",
            padding_side="left",
            clean_up_tokenization_spaces=False,
            extra_special_tokens=[*_START, *_ROLES, *_IMAGE, self.image_token, "<|begin_of_video|>", "<|end_of_video|>",
                                  "<|video|>", *_BOX],
        )  # fmt: skip

    def tiny_config(self, tokenizer: PreTrainedTokenizerBase) -> Any:
        """See ``Family.tiny_config``."""
        ids = tokenizer.convert_tokens_to_ids
        pairs = TINY.hidden // TINY.heads // 4  # that turn: half of a head
        section = [pairs // 4, pairs // 4, pairs - 2 * (pairs // 4)]
        text = {
            **TINY.text(tokenizer),
            "rope_parameters": {"rope_type": "default", "rope_theta": TINY.rope_theta, "partial_rotary_factor": 0.5,
                                "mrope_section": section},
            "bos_token_id": ids("<|endoftext|>"),
            "eos_token_id": ids(self.turn_end),
            "pad_token_id": ids("<|endoftext|>"),
        }  # fmt: skip
        vision = {
            **TINY.tower(),
            "image_size": 56,
            "initializer_range": TINY.vision_dim**-0.5,
        }
        return Glm4vConfig(
            text_config=text,
            vision_config=vision,
            image_token_id=ids(self.image_token),
            video_token_id=ids("<|video|>"),
            image_start_token_id=ids(_IMAGE[0]),
            image_end_token_id=ids(_IMAGE[1]),
            video_start_token_id=ids("<|begin_of_video|>"),
            video_end_token_id=ids("<|end_of_video|>"),
        )
