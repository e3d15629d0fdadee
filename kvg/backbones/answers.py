"""From generated tokens to texts, and from texts to boxes: the same in evaluation, in rewards and in the filter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

from kvg.backbones.backbone import Backbone
from kvg.rl.completions import Rollouts
from kvg.text.answer import Answer, read_answer
from kvg.types import Completion, Sample


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


def completions(backbone: Backbone, out: Rollouts, max_tokens: int | None = None) -> list[Completion]:
    """What was sampled, a record a row.

    Args:
        backbone: that sampled it.
        out: N rows.
        max_tokens: the longest completion that could be sampled.
    """
    texts = completion_texts(backbone, out.tokens, out.completion_mask)
    lengths, cut = out.completion_mask.sum(1).tolist(), out.truncated.tolist()
    reasons = ["length" if c else "stop" for c in cut]
    return [Completion(*row, max_tokens) for row in zip(texts, lengths, reasons, strict=True)]


def plain_texts(backbone: Backbone, out: Rollouts) -> list[str]:
    """What was sampled without any special token, so that it can be put into a conversation.

    Control tokens that were spelt out by plain ones go, too: put into a conversation, they would be recognised.
    """
    rows = [row[keep].tolist() for row, keep in zip(out.tokens.cpu(), out.completion_mask.cpu(), strict=True)]
    texts = backbone.processor.tokenizer.batch_decode(rows, skip_special_tokens=True)
    return [backbone.processor.control_tokens.removed(text).strip() for text in texts]


def read_answers(backbone: Backbone, generated: Sequence[Completion], samples: Iterable[Sample]) -> list[Answer]:
    """Completions with their parts and boxes, in pixels of the stored images.

    Args:
        backbone: whose box convention they use.
        generated: N completions.
        samples: the N samples that they answer.
    """
    sizes = [backbone.processor.image_size(sample.width, sample.height) for sample in samples]
    return [read_answer(one, backbone.codec, size) for one, size in zip(generated, sizes, strict=True)]
