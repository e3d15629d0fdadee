"""Qwen3-VL: patches of 16 px, interleaved M-RoPE, and visual tokens of deeper layers for the language model's first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn
from transformers import PreTrainedTokenizerBase, Qwen3VLConfig, Qwen3VLForConditionalGeneration
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextDecoderLayer

from kvg.backbones.families.qwen2_vl import TINY, Qwen2VL
from kvg.backbones.inputs import LanguageInputs
from kvg.backbones.picture_processor import PictureProcessor
from kvg.backbones.picture_settings import PatchSettings, PictureSettings
from kvg.batches import Pictures, VisualTokens

_OTHERS = ("model_type", "layer_types")  # of the text model of Qwen2-VL


class Qwen3VL(Qwen2VL):
    """Qwen3-VL. Boxes, special tokens and the walk of positions are those of Qwen2-VL."""

    hf_class = Qwen3VLForConditionalGeneration
    model_type = "qwen3_vl"
    plain_layers: ClassVar[tuple[type[nn.Module], ...]] = (Qwen3VLTextDecoderLayer,)
    # That of the published template for text and images: it adds no system turn.
    chat_template = (
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
        "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n"
        "{% else %}{% for part in message['content'] %}"
        "{% if part['type'] == 'image' or 'image' in part %}<|vision_start|><|image_pad|><|vision_end|>"
        "{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )

    def projector(self, model: Any) -> list[nn.Module]:
        """See ``Family.projector``: also what projects the tokens of deeper layers."""
        return [model.model.visual.merger, *model.model.visual.deepstack_merger_list]

    def see(self, model: Any, pictures: Pictures, processor: PictureProcessor) -> VisualTokens:
        """See ``Family.see``."""
        out = self.run_tower(model, pictures, processor)
        return VisualTokens(out.pooler_output, pictures.num_tokens, tuple(out.deepstack_features))

    def extra_inputs(self, inputs: LanguageInputs) -> Mapping[str, Any]:
        """See ``Family.extra_inputs``: the tokens that are added after layers 0, 1, ... (DeepStack)."""
        if inputs.visual is None:
            return {}
        places = inputs.visual >= 0
        rows = inputs.visual[places]
        return {"visual_pos_masks": places, "deepstack_visual_embeds": [layer[rows] for layer in inputs.deep]}

    def tiny_config(self, tokenizer: PreTrainedTokenizerBase) -> Any:
        """See ``Family.tiny_config``."""
        plain = super().tiny_config(tokenizer).to_dict()
        pairs = TINY.hidden // TINY.heads // 2
        rope = {"rope_type": "default", "rope_theta": TINY.rope_theta, "mrope_interleaved": True,
                "mrope_section": [pairs - 2 * (pairs // 4), pairs // 4, pairs // 4]}  # fmt: skip
        text = {
            name: value for name, value in plain["text_config"].items() if name not in ("model_type", "layer_types")
        }
        vision = {
            **TINY.tower(),
            "depth": 3,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0, 1],
            "initializer_range": TINY.vision_dim**-0.5,
        }
        ids = {name: value for name, value in plain.items() if name.endswith("_token_id")}
        # Tokens that are added after the last layer reach no text, so there is one layer more than those that get some.
        text |= {"rope_parameters": rope, "head_dim": TINY.hidden // TINY.heads, "num_hidden_layers": 3}
        return Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **ids)

    def tiny_pictures(self) -> PictureSettings:
        """See ``Family.tiny_pictures``."""
        half = (0.5, 0.5, 0.5)
        return PatchSettings(32 * 32, 160 * 160, patch_size=16, image_mean=half, image_std=half)
