"""Qwen2-VL: patches of 14 px merged 2 x 2, M-RoPE, boxes on a grid of 0-1000."""

from __future__ import annotations

from collections.abc import Mapping
from types import MethodType
from typing import Any, ClassVar

from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, Qwen2VLForConditionalGeneration
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLDecoderLayer

from kvg.backbones.builtin import TinySize, qwen2_vl_config
from kvg.backbones.family import Family
from kvg.backbones.picture_processor import PatchProcessor, PictureProcessor
from kvg.backbones.picture_settings import PatchSettings, PictureSettings, parse_patch_settings
from kvg.batches import Pictures, VisualTokens
from kvg.linear import linear
from kvg.text.box_codec import BoxCodec, RelativeCodec

TINY = TinySize(hidden=64, layers=2, mlp=128, vision_dim=32, vision_layers=1, vision_heads=2)


class Qwen2VL(Family):
    """Qwen2-VL. Its projector is the tower's ``merger``."""

    hf_class = Qwen2VLForConditionalGeneration
    model_type = "qwen2_vl"
    image_token = "<|image_pad|>"
    turn_end = "<|im_end|>"
    document_start = "<|endoftext|>"
    position_axes = 3
    plain_layers: ClassVar[tuple[type[nn.Module], ...]] = (Qwen2VLDecoderLayer,)
    # That of the published template for text and images.
    chat_template = (
        "{% for message in messages %}"
        "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\n"
        "You are a helpful assistant.<|im_end|>\n"
        "{% endif %}<|im_start|>{{ message['role'] }}\n"
        "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n"
        "{% else %}{% for part in message['content'] %}"
        "{% if part['type'] == 'image' or 'image' in part %}<|vision_start|><|image_pad|><|vision_end|>"
        "{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )

    @property
    def codec(self) -> BoxCodec:
        """See ``Family.codec``."""
        return RelativeCodec()

    def tower(self, model: Any) -> nn.Module:
        """See ``Family.tower``."""
        tower: nn.Module = model.model.visual
        return tower

    def projector(self, model: Any) -> list[nn.Module]:
        """See ``Family.projector``."""
        return [model.model.visual.merger]

    def fsdp_units(self, model: Any) -> list[nn.Module]:
        """See ``Family.fsdp_units``: every layer of tower and language model."""
        return [*model.model.visual.blocks, *self.language(model).layers]

    def prepare(self, model: Any) -> None:
        """Lets the tower take its patches through a matrix product.

        Transformers has a convolution there whose stride is its size, which is a product of the flat patches and the
        flat weight; kernels for convolutions take several times as long for it. Weights and their names stay.
        """
        model.model.visual.patch_embed.forward = MethodType(_embed_patches, model.model.visual.patch_embed)

    def picture_settings(self, content: Mapping[str, Any], config: Any) -> PictureSettings:
        """See ``Family.picture_settings``."""
        return parse_patch_settings(content)

    def picture_processor(self, settings: PictureSettings) -> PictureProcessor:
        """See ``Family.picture_processor``."""
        assert isinstance(settings, PatchSettings)
        return PatchProcessor(settings)

    def check_pictures(self, settings: PictureSettings, config: Any) -> str | None:
        """See ``Family.check_pictures``."""
        vision = config.vision_config
        for name, key in (("patch_size",) * 2, ("merge_size", "spatial_merge_size"), ("temporal_patch_size",) * 2):
            if getattr(settings, name) != getattr(vision, key, None):
                return f"{name} is {getattr(settings, name)}, and {key} in its config.json {getattr(vision, key, None)}"
        return None

    def see(self, model: Any, pictures: Pictures, processor: PictureProcessor) -> VisualTokens:
        """See ``Family.see``."""
        return VisualTokens(self.run_tower(model, pictures, processor).pooler_output, pictures.num_tokens)

    def token_grids(self, pictures: Pictures, processor: PictureProcessor) -> list[tuple[int, int]] | None:
        """See ``Family.token_grids``."""
        assert isinstance(processor, PatchProcessor)
        side = processor.settings.merge_size
        return [(rows // side, columns // side) for _, rows, columns in pictures.tensors["grid"].tolist()]

    def run_tower(self, model: Any, pictures: Pictures, processor: PictureProcessor) -> Any:
        """The tower's output, projected."""
        assert isinstance(processor, PatchProcessor)
        visual = model.model.visual
        pixels = processor.pixel_values(pictures.tensors["patches"]).to(visual.dtype)
        return visual(pixels, grid_thw=pictures.tensors["grid"])

    def positions(self, model: Any, input_ids: Tensor, mask: Tensor, pictures: Pictures | None) -> Tensor:
        """M-RoPE positions ``[3, B, L]``; rows without a picture count plainly."""
        plain = super().positions(model, input_ids, mask, pictures).expand(3, -1, -1)
        is_image = input_ids == model.config.image_token_id
        pictured = is_image.any(-1)
        if pictures is None or not bool(pictured.any()):
            return plain
        # Given explicitly: what the model remembers between calls belongs to the last call, perhaps of another batch.
        multimodal, _ = model.model.get_rope_index(
            input_ids[pictured],
            is_image[pictured].int(),
            image_grid_thw=pictures.tensors["grid"],
            attention_mask=mask[pictured],
        )
        out = plain.clone()
        out[:, pictured] = multimodal.to(out.dtype)
        return out

    def tiny_config(self, tokenizer: PreTrainedTokenizerBase) -> Any:
        """See ``Family.tiny_config``."""
        return qwen2_vl_config(tokenizer, TINY)

    def tiny_pictures(self) -> PictureSettings:
        """See ``Family.tiny_pictures``; also those of the lab's base."""
        return PatchSettings(min_pixels=28 * 28, max_pixels=140 * 140)


def _embed_patches(module: Any, patches: Tensor) -> Tensor:
    """``[P, D]`` to ``[P, width]``."""
    weight: Tensor = module.proj.weight
    return linear(patches.to(weight.dtype), weight.flatten(1), module.proj.bias)
