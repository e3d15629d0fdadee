"""Sampling: G completions of every prompt, the prompt computed once and its cache repeated over the group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from kvg.batches import Batch
from kvg.errors import TrainingError

BLOCK = 256  # words whose probabilities are summed before one of them is looked for


@dataclass(frozen=True)
class SamplingSettings:
    """How tokens are sampled.

    Attributes:
        max_new_tokens: longest completion.
        temperature: 0 = greedy.
        top_p: smallest set of tokens whose probabilities reach this; 1 = all.
        top_k: only the k likeliest tokens; 0 = all.
    """

    max_new_tokens: int = 512
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0


@dataclass(frozen=True)
class Rollouts:
    """Completions of B prompts, G each, the rows of a group side by side; N = B * G, T = longest completion."""

    tokens: Tensor  # [N, T]
    completion_mask: Tensor  # [N, T] bool, True up to and including the end token
    logprobs: Tensor  # [N, T] of the sampling distribution, in nats
    truncated: Tensor  # [N] bool: stopped by length


class Policy(Protocol):
    """What sampling needs of a model."""

    end_token_ids: tuple[int, ...]
    pad_token_id: int

    def prefill(self, batch: Batch, repeats: int) -> tuple[Tensor, Any]:
        """Logits ``[B * repeats, V]`` after the (left-padded) prompts, and the state to go on from."""

    def decode(self, tokens: Tensor, state: Any) -> Tensor:
        """Logits ``[N, V]`` after one more token per row ``[N]``; advances ``state`` in place."""

    def select(self, state: Any, rows: Tensor) -> None:
        """Keeps only these rows of the state, in this order."""

    def any_rank_active(self, active: bool) -> bool:
        """Whether any process still samples: sharded models must step together."""


@torch.no_grad()
def rollout(
    policy: Policy,
    batch: Batch,
    settings: SamplingSettings,
    group_size: int = 1,
    generator: torch.Generator | None = None,
) -> Rollouts:
    """Samples ``group_size`` completions of each prompt.

    Rows that have ended are dropped from the batch once they are a third of it, so a long straggler costs little. A row
    whose logits are not finite ends all rows; the log-probability of the sampled token shows it, so that neither
    the vocabulary is read nor a GPU waited for once more.

    Args:
        policy: the model.
        batch: left-padded prompts with their pictures, see ``kvg.batches.Processor.collate``.
        settings: how tokens are sampled.
        group_size: G.
        generator: source of randomness; needed unless greedy.

    Raises:
        TrainingError: logits are NaN or infinite, in one of the processes where they share a sharded model.
    """
    logits, state = policy.prefill(batch, group_size)
    num, device = logits.shape[0], logits.device
    tokens = torch.full((num, settings.max_new_tokens), policy.pad_token_id, device=device)
    logprobs = torch.zeros(num, settings.max_new_tokens, device=device)
    length = torch.zeros(num, dtype=torch.long, device=device)
    ended, unsound = (torch.zeros(num, dtype=torch.bool, device=device) for _ in range(2))
    ends = torch.tensor(policy.end_token_ids, device=device)
    rows = torch.arange(num, device=device)  # which row of the result each row of the state writes to
    for step in range(settings.max_new_tokens):
        sampled, scores = sample_tokens(logits, settings, generator)
        live = ~ended[rows]
        tokens[rows[live], step], logprobs[rows[live], step] = sampled[live], scores[live]
        length[rows[live]] += 1
        unsound[rows] |= live & ~torch.isfinite(scores)
        ended[rows] |= torch.isin(sampled, ends) | unsound.any()
        active = ~ended[rows]
        if not policy.any_rank_active(bool(active.any())) or step + 1 == settings.max_new_tokens:
            break
        if active.any() and int(active.sum()) <= 2 * len(rows) // 3:
            kept = active.nonzero()[:, 0]
            policy.select(state, kept)
            rows, sampled = rows[kept], sampled[kept]
        logits = policy.decode(sampled, state)
    if policy.any_rank_active(bool(unsound.any())):
        raise _not_finite(policy, unsound, length)
    longest = int(length.max())
    mask = torch.arange(longest, device=device)[None] < length[:, None]
    return Rollouts(tokens[:, :longest], mask, logprobs[:, :longest], ~ended)


def _not_finite(policy: Policy, unsound: Tensor, length: Tensor) -> TrainingError:
    rows, name = unsound.nonzero()[:, 0], getattr(policy, "checkpoint", "the model")
    where = "in another process"
    if len(rows):
        where = f"at token {int(length[rows[0]])} of completion {int(rows[0]) + 1} of {len(unsound)}"
    remedy = "its weights hold NaN or infinity, or overflow in this precision; choose another checkpoint or precision"
    return TrainingError(f"sampling from {name}", f"logits are not finite {where}: {remedy}")


def sample_tokens(
    logits: Tensor, settings: SamplingSettings, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """One token per row and its log-probability under the distribution that it was sampled from.

    Where a row holds NaN or positive infinity the token is arbitrary, and its log-probability is not finite.

    >>> sample_tokens(torch.tensor([[0.0, 9.0, 1.0]]), SamplingSettings(temperature=0.0), None)[0]
    tensor([1])
    """
    logits = logits.float()
    if settings.temperature == 0:
        best = logits.argmax(-1)
        return best, logits.gather(-1, best[:, None])[:, 0] - logits.logsumexp(-1)
    if settings.temperature != 1:
        logits = logits / settings.temperature
    if settings.top_k and settings.top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(settings.top_k).values[:, -1:], -torch.inf)
    if settings.top_p < 1:
        ordered, index = logits.sort(-1, descending=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
        logits = logits.masked_fill((before >= settings.top_p).scatter(-1, index, before >= settings.top_p), -torch.inf)
    probs = logits.softmax(-1)
    where = generator.device if generator else None
    uniforms = torch.rand(len(logits), 1, generator=generator, device=where, dtype=torch.float64).to(logits.device)
    sampled = inverse_cdf(probs, uniforms).clamp(max=logits.shape[-1] - 1)
    return sampled[:, 0], probs.gather(-1, sampled)[:, 0].log()


def inverse_cdf(weights: Tensor, uniforms: Tensor) -> Tensor:
    """Where the running sum of each row of weights first exceeds a share of their whole.

    Blocks of words are summed first, and only the block that is hit is looked into: ``torch.multinomial``, or a running
    sum over a large vocabulary, costs more than many a layer. What weighs nothing is never hit.

    Args:
        weights: ``[N, V]``, not negative, some above 0.
        uniforms: ``[N, 1]`` shares in [0, 1), float64.

    Returns:
        ``[N, 1]`` indices.

    >>> inverse_cdf(torch.tensor([[0.0, 1.0, 3.0, 0.0]] * 2), torch.tensor([[0.24], [0.25]], dtype=torch.float64)).T
    tensor([[1, 2]])
    """
    blocks = F.pad(weights, (0, -weights.shape[-1] % BLOCK)).view(len(weights), -1, BLOCK)
    reached = blocks.sum(-1).double().cumsum(-1)
    target = uniforms * reached[:, -1:]
    block, target = _first_above(reached, target)
    before = reached.gather(-1, (block - 1).clamp(min=0)).where(block > 0, 0)
    inside = blocks[torch.arange(len(blocks), device=blocks.device), block[:, 0]].double().cumsum(-1)
    return block * BLOCK + _first_above(inside, target - before)[0]


def _first_above(reached: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Where running sums first exceed a target, which rounding must not lift to their end; and that target."""
    target = torch.minimum(target, torch.nextafter(reached[:, -1:], torch.zeros_like(target)))
    place = torch.searchsorted(reached, target, right=True)
    return place.clamp(max=reached.shape[-1] - 1), target  # NaN is above nothing
