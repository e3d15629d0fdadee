"""Qwen3-VL with experts: a router in each layer of the language model sends a token to a few of many small MLPs."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn
from transformers import PreTrainedTokenizerBase, Qwen3VLMoeConfig, Qwen3VLMoeForConditionalGeneration

from kvg.backbones.families.qwen3_vl import Qwen3VL


class Qwen3VLMoE(Qwen3VL):
    """Qwen3-VL-30B-A3B and 235B-A22B; all else is as in Qwen3-VL.

    All experts of a layer are one tensor, so adapters go to the attention. Layers are called and not written out. The
    loss has no term that balances the experts, as in transformers with the published ``output_router_logits: false``.
    """

    hf_class = Qwen3VLMoeForConditionalGeneration
    model_type = "qwen3_vl_moe"
    plain_layers: ClassVar[tuple[type[nn.Module], ...]] = ()

    def tiny_config(self, tokenizer: PreTrainedTokenizerBase) -> Any:
        """See ``Family.tiny_config``."""
        plain = super().tiny_config(tokenizer).to_dict()
        text, vision = ({k: v for k, v in plain[part].items() if k != "model_type"} for part in
                        ("text_config", "vision_config"))  # fmt: skip
        text |= {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": text["intermediate_size"]}
        ids = {name: value for name, value in plain.items() if name.endswith("_token_id")}
        return Qwen3VLMoeConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **ids)
