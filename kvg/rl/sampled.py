"""A batch of rollouts with the policy that sampled it, which may be an earlier one than the policy that learns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from kvg.batches import Batch, VisualTokens
from kvg.rl.completions import Rollouts, SpeculationCounts
from kvg.rl.mismatch import MismatchCorrection
from kvg.rl.sampling import SamplingSettings


@dataclass(frozen=True)
class SampledBatch:
    """Completions of a batch of prompts.

    Attributes:
        prompts: ``[B, L]``, their ids, by which the batch is known again.
        rollouts: G completions of each.
        step: optimizer steps of the policy that sampled them.
        logprobs: ``[N, T]`` of that policy without top-p and top-k, in nats; None where ``rollouts`` has them, or where
            the policy that learns is the same one.
        visual: tokens of the pictures where they do not change; not stored.
    """

    prompts: Tensor
    rollouts: Rollouts
    step: int
    logprobs: Tensor | None = None
    visual: VisualTokens | None = None

    def belongs_to(self, batch: Batch, group_size: int) -> bool:
        """Whether these are ``group_size`` completions of each prompt of a batch."""
        rows = len(self.rollouts.tokens)
        return rows == group_size * len(batch) and torch.equal(self.prompts.to(batch.input_ids), batch.input_ids)

    def to(self, device: torch.device | str) -> SampledBatch:
        """The same on a device."""
        tensors: dict[str, Any] = {
            name: value.to(device) for name, value in vars(self.rollouts).items() if isinstance(value, Tensor)
        }
        return SampledBatch(
            self.prompts.to(device),
            replace(self.rollouts, **tensors),
            self.step,
            None if self.logprobs is None else self.logprobs.to(device),
            None if self.visual is None else self.visual.to(device),
        )

    def state(self) -> dict[str, Any]:
        """Everything but visual tokens as plain values and tensors on the CPU, for checkpoints."""
        whole = self.to("cpu")
        counts = whole.rollouts.counts
        rollouts = {one.name: getattr(whole.rollouts, one.name) for one in fields(Rollouts)}
        rollouts["counts"] = None if counts is None else asdict(counts)
        return {"prompts": whole.prompts, "rollouts": rollouts, "step": self.step, "logprobs": whole.logprobs}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> SampledBatch:
        """The batch that ``state`` was taken of."""
        counts = state["rollouts"]["counts"]
        counts = None if counts is None else SpeculationCounts(**counts)
        return cls(**{**state, "rollouts": Rollouts(**{**state["rollouts"], "counts": counts})})


@dataclass(frozen=True)
class OldPolicy:
    """What the loss takes of the policy that the ratio refers to.

    Attributes:
        logprobs: ``[N, T]``, in nats; None where it is the policy that learns.
        weights: ``[N, T]`` of the surrogate, see ``kvg.rl.mismatch``; None where nothing is corrected.
        figures: of the gap of an external engine.
    """

    logprobs: Tensor | None = None
    weights: Tensor | None = None
    figures: Mapping[str, Tensor] = field(default_factory=dict)


def old_policy(
    sampled: SampledBatch,
    settings: SamplingSettings,
    unchanged: bool,
    score: Callable[[], tuple[Tensor, Tensor]],
    mismatch: MismatchCorrection | None,
) -> OldPolicy:
    """The old policy of a batch: the one that sampled it.

    For an external engine it is the policy before its updates, and weights correct the ratio from there to the engine,
    whichever weights that had sampled with: the decoupled objective of AReaL (arXiv 2505.24298).

    Args:
        sampled: the batch.
        settings: that it was sampled with.
        unchanged: whether a single update follows, before anything else changes the weights.
        score: log-probabilities ``[N, T]`` of the policy before its updates, and entropies.
        mismatch: correction of an external engine; None for the policy's own rollouts.
    """
    out = sampled.rollouts
    if mismatch is None:
        if unchanged:
            return OldPolicy()
        if not settings.truncates:
            return OldPolicy(out.logprobs)
        # With top-p or top-k the sampler's log-probabilities are of the truncated distribution.
        return OldPolicy(score()[0] if sampled.logprobs is None else sampled.logprobs)
    scored = score()[0]
    figures = mismatch.figures(scored, out.logprobs, out.completion_mask)
    weights = mismatch.weights(scored, out.logprobs, out.completion_mask)
    return OldPolicy(None if unchanged else scored, weights, figures)
