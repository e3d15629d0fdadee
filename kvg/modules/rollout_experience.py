"""What stage 2 learns from a batch of rollouts: masks, the old policy, the reference, and the weights of tokens."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kvg.backbones.backbone import Backbone
from kvg.batches import Batch
from kvg.modules.reference import reference_logprobs
from kvg.rl.experience import Experience
from kvg.rl.sampled import OldPolicy, SampledBatch, old_policy

if TYPE_CHECKING:
    from kvg.modules.grpo import GRPOModule


def experience_of(
    module: GRPOModule, copies: Sequence[Backbone], batch: Batch, sampled: SampledBatch, advantages: Tensor
) -> Experience:
    """Scores a batch of rollouts by all policies that its loss needs, and logs the gaps between them.

    Args:
        module: stage 2, before the updates of this batch.
        copies: the frozen copy of its start as the reference, or nothing.
        batch: B prompts, with their visual tokens.
        sampled: their completions.
        advantages: ``[N]``.
    """
    out, temperature = sampled.rollouts, module.rollout_sampling.temperature
    mask = out.completion_mask if module.learn_truncated else out.completion_mask & ~out.truncated[:, None]
    advantages = advantages.to(mask.device)
    old, reference = _old_policy(module, batch, sampled), None
    weights = _with_teacher(module, batch, sampled, advantages, old)
    if module.loss.beta:
        reference = reference_logprobs(module.backbone, copies, batch, out, temperature)
    return Experience(batch, out.tokens, mask, advantages, old.logprobs, reference, weights)


@torch.no_grad()
def _old_policy(module: GRPOModule, batch: Batch, sampled: SampledBatch) -> OldPolicy:
    single = module.updates_per_batch() == 1 and not module.max_resample_batches
    unchanged = single and (module.engine.external or sampled.step == module.global_step)
    settings, out = module.rollout_sampling, sampled.rollouts
    score = functools.partial(
        module.backbone.completion_logprobs, batch, out.tokens, out.completion_mask, settings.temperature
    )
    mismatch = module.mismatch if module.engine.external else None
    old = old_policy(sampled, settings, unchanged, score, mismatch)
    for name, value in old.figures.items():
        module.log(f"train/mismatch/{name}", value, batch_size=len(batch.samples))
    return old


@torch.no_grad()
def _with_teacher(
    module: GRPOModule, batch: Batch, sampled: SampledBatch, advantages: Tensor, old: OldPolicy
) -> Tensor | None:
    """Weights of the surrogate: those of an external engine, times those of the teacher."""
    teacher, out, settings = module.teacher, sampled.rollouts, module.rollout_sampling
    if teacher is None:
        return old.weights
    mask = out.completion_mask
    score = functools.partial(
        module.backbone.completion_logprobs, tokens=out.tokens, completion_mask=mask, temperature=settings.temperature
    )
    as_sampled = not module.engine.external and not settings.truncates and sampled.step == module.global_step
    policy = out.logprobs if as_sampled else score(batch)[0]
    informed = score(teacher.prompts(module.backbone, batch, module.mode or "think"))[0]
    for name, value in teacher.figures(informed, policy, mask).items():
        module.log(f"train/teacher/{name}", value, batch_size=len(batch.samples))
    weights = teacher.weights(informed, policy, advantages, mask)
    return weights if old.weights is None else weights * old.weights
