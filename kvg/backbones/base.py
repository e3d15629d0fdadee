"""What every backbone offers to the stages: a processor, features, hidden states, log-probabilities and sampling."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from kvg.backbones.processor import QwenVLProcessor
from kvg.text.box_codec import BoxCodec


class Backbone(nn.Module, ABC):
    """A vision-language model with its processor and its box convention.

    Attributes:
        model: the Hugging Face model.
        processor: the weightless half, for data modules.
        codec: the box convention; the same object as ``processor.codec``.
    """

    model: Any
    processor: QwenVLProcessor
    codec: BoxCodec

    @property
    @abstractmethod
    def hidden_size(self) -> int:
        """Width of the language model."""

    @abstractmethod
    def image_features(self, pixel_values: Tensor, image_grid_thw: Tensor) -> Tensor:
        """Projected visual tokens of all pictures, ``[tokens, hidden]``, in the order of the placeholders."""

    @abstractmethod
    def embed(self, input_ids: Tensor, features: Tensor | None) -> Tensor:
        """Token embeddings ``[B, L, hidden]`` with the visual tokens put in place of their placeholders."""
