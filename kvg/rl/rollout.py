"""Rollouts: G completions of every prompt, the prompt computed once for its group."""

from __future__ import annotations

import torch

from kvg.batches import Batch
from kvg.rl.completions import Completions, Policy, Rollouts, Watch
from kvg.rl.drafter import NGramDrafter
from kvg.rl.fixed_shape import sample_fixed
from kvg.rl.sampling import SamplingSettings, sample_tokens
from kvg.rl.speculation import Drafted, speculate


@torch.no_grad()
def rollout(
    policy: Policy,
    batch: Batch,
    settings: SamplingSettings,
    group_size: int = 1,
    generator: torch.Generator | None = None,
    drafter: NGramDrafter | None = None,
    watch: Watch | None = None,
) -> Rollouts:
    """Samples ``group_size`` completions of each prompt.

    Each token is decided by a uniform number of its row and its place, so it depends neither on the other rows nor on
    speculation. Rows that have ended are dropped from the batch once they are a third of it, so a long straggler costs
    little. A row whose logits are not finite ends all rows; the log-probability of the sampled token shows it, so that
    neither the vocabulary is read nor a GPU waited for once more.

    Args:
        policy: the model.
        batch: left-padded prompts with their pictures, see ``kvg.batches.Processor.collate``.
        settings: how tokens are sampled.
        group_size: G.
        generator: source of randomness; needed unless greedy.
        drafter: of speculation; None for one that knows this batch alone.
        watch: is called with the tokens that a row gains, as they come, or all at the end where
            ``decoding`` is ``fixed_shape``.

    Raises:
        TrainingError: logits are NaN or infinite, in one of the processes where they share a sharded model.
    """
    drafter = NGramDrafter() if drafter is None else drafter
    with policy.gathered():
        made = _completions(policy, batch, settings, group_size, generator, drafter, watch)
    out = made.rollouts()
    if watch is not None and policy.decoding == "fixed_shape":
        for row, mask in enumerate(out.completion_mask):
            watch(row, out.tokens[row][mask].tolist())
    return out


def _completions(
    policy: Policy,
    batch: Batch,
    settings: SamplingSettings,
    group_size: int,
    generator: torch.Generator | None,
    drafter: NGramDrafter,
    watch: Watch | None,
) -> Completions | Drafted:
    fixed = policy.decoding == "fixed_shape"
    logits, state = policy.prefill(batch, group_size, settings.max_new_tokens if fixed else None)
    uniforms = None
    if settings.temperature:
        where = generator.device if generator else None
        shape = (len(logits), settings.max_new_tokens)
        uniforms = torch.rand(shape, generator=generator, device=where, dtype=torch.float64).to(logits.device)
    if fixed:
        return sample_fixed(policy, logits, state, settings, uniforms)
    if policy.decoding == "speculative" and drafter.max_draft and policy.takes_drafts(state):
        return speculate(policy, logits, state, settings, uniforms, drafter, watch)
    made = Completions(len(logits), settings.max_new_tokens, policy, logits.device, watch)
    rows = torch.arange(len(logits), device=logits.device)  # which row of the result each row of the state writes to
    for step in range(settings.max_new_tokens):
        sampled, scores = sample_tokens(logits, settings, None if uniforms is None else uniforms[rows, step])
        live = ~made.ended[rows]
        made.add(rows[live], sampled[live], scores[live])
        active = made.active[rows]
        if not policy.any_rank_active(bool(active.any())):
            break
        if active.any() and int(active.sum()) <= 2 * len(rows) // 3:
            kept = active.nonzero()[:, 0]
            policy.select(state, kept)
            rows, sampled = rows[kept], sampled[kept]
        logits = policy.decode(sampled, state)
    return made
