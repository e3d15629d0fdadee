"""From generated tokens to texts, and from texts to boxes: the same in evaluation, in rewards and in the filter."""

from __future__ import annotations

from torch import Tensor

from kvg.backbones.base import Backbone
from kvg.text.completion import parse_completion
from kvg.types import Box, Sample


def completion_texts(backbone: Backbone, tokens: Tensor, completion_mask: Tensor) -> list[str]:
    """Texts of completions; box tokens and the like stay, the end of the turn goes.

    Args:
        backbone: that sampled them.
        tokens: ``[N, T]``.
        completion_mask: ``[N, T]`` bool.
    """
    rows = [row[keep].tolist() for row, keep in zip(tokens.cpu(), completion_mask.cpu(), strict=True)]
    ends = set(backbone.end_token_ids)
    kept = [[token for token in row if token not in ends] for row in rows]
    return list(backbone.processor.tokenizer.batch_decode(kept))


def answered_box(backbone: Backbone, text: str, sample: Sample) -> Box | None:
    """The answered box in pixels of the stored picture; None where there is none."""
    size = backbone.processor.image_size(sample.width, sample.height)
    return backbone.codec.decode(parse_completion(text).answer, size)
