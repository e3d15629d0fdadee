"""The language model of a backbone, called in one way whatever its family."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from kvg.backbones.family import Family
from kvg.backbones.inputs import LanguageInputs
from kvg.backbones.shared_prefix import unmasked


@dataclass(frozen=True)
class LanguageModel:
    """Embeddings, text model and head of a Hugging Face model.

    Attributes:
        family: of the model.
        model: with vision tower and head.
        shares_prefix: whether its text model went through ``kvg.backbones.shared_prefix.install``.
        sharded: whether processes have to call it equally often.
    """

    family: Family
    model: Any
    shares_prefix: bool
    sharded: bool

    @property
    def text_model(self) -> Any:
        """Layers and norm."""
        return self.family.language(self.model)

    @property
    def head(self) -> nn.Module:
        """The output projection."""
        head: nn.Module = self.model.get_output_embeddings()
        return head

    def embed(self, tokens: Tensor) -> Tensor:
        """Embeddings of tokens, ``[..., hidden]``."""
        embeds: Tensor = self.model.get_input_embeddings()(tokens)
        return embeds

    def on_all_axes(self, positions: Tensor) -> Tensor:
        """Positions of text, ``[...]``, as the family takes them: ``[A, ...]``."""
        return positions.expand(self.family.position_axes, *positions.shape)

    def run(self, inputs: LanguageInputs, **options: Any) -> Any:
        """One pass through the layers.

        Args:
            inputs: what goes in; without a mask, what a token sees follows from ``rows`` or ``state``.
            options: of the text model, and those of ``kvg.backbones.shared_prefix.install``.

        Returns:
            The text model's output, with ``last_hidden_state`` ``[B, L, hidden]``.
        """
        positions = inputs.positions if len(inputs.positions) > 1 else inputs.positions[0]
        given = {"attention_mask": inputs.mask, "use_cache": False, **self.family.extra_inputs(inputs), **options}
        with unmasked() if "rows" in options or "state" in options else nullcontext():
            return self.text_model(inputs_embeds=inputs.embeds, position_ids=positions, **given)
