"""Sampling in which all tokens are the same work: nothing of the host between them, so a CUDA graph can replay it.

A GPU that works on few rows waits for the host, which launches hundreds of small kernels a token. A CUDA graph is
launched at once, but it repeats what was recorded: the same kernels on the same addresses. So rows that have ended
stay, no pass takes drafts, and the host looks whether all have ended only once in ``LOOK`` tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kvg.rl.completions import Completions, Policy
from kvg.rl.sampling import SamplingSettings, sample_tokens

LOOK = 16  # tokens from one look of the host to the next
WARM_UP = 3  # tokens before a CUDA graph is recorded; libraries choose kernels and take memory in the first


class FixedStep:
    """One token of each row: sampled, stored, and given to the model.

    Args:
        policy: the model.
        logits: ``[N, V]`` behind the prompts.
        state: of fixed shapes, see ``Policy.prefill``.
        settings: how tokens are sampled.
        uniforms: ``[N, max_new_tokens]``; None where greedy.
    """

    def __init__(
        self, policy: Policy, logits: Tensor, state: Any, settings: SamplingSettings, uniforms: Tensor | None
    ) -> None:
        self.policy, self.state, self.settings, self.uniforms = policy, state, settings, uniforms
        self.logits = logits.clone()
        self.made = Completions(len(logits), settings.max_new_tokens, policy, logits.device)
        self.place = torch.zeros(1, dtype=torch.long, device=logits.device)

    def __call__(self) -> None:
        """Goes on by a token; reads and writes the same tensors at each call."""
        chosen = None if self.uniforms is None else self.uniforms.index_select(1, self.place)[:, 0]
        sampled, scores = sample_tokens(self.logits, self.settings, chosen)
        sampled = self.made.add_to_all(self.place, sampled, scores)
        self.logits.copy_(self.policy.decode(sampled, self.state))
        self.place += 1


def sample_fixed(
    policy: Policy, logits: Tensor, state: Any, settings: SamplingSettings, uniforms: Tensor | None
) -> Completions:
    """Samples completions; see ``FixedStep``. On a CUDA device the step is recorded and replayed."""
    step = FixedStep(policy, logits, state, settings, uniforms)
    go_on: Callable[[], None] = step
    for number in range(settings.max_new_tokens):
        if number % LOOK == 0 and number and not policy.any_rank_active(bool(step.made.active.any())):
            break
        if number == WARM_UP and logits.device.type == "cuda":
            go_on = _recorded(step)
        go_on()
    return step.made


def _recorded(step: FixedStep) -> Callable[[], None]:
    """A step as a CUDA graph. Autocast's copies of weights are part of it, since they do not outlive their block."""
    graph = torch.cuda.CUDAGraph()
    cached = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        with torch.cuda.graph(graph):
            step()
    finally:
        torch.set_autocast_cache_enabled(cached)
    replay: Callable[[], None] = graph.replay
    return replay
