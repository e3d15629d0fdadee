"""Speculative sampling: several tokens a pass, and the same tokens as one a pass.

A pass takes the last token of a row and its draft, and gives logits behind each of them. The uniform number of each
place decides the token there, as it does without a draft. Where that token is the draft's, the logits behind it are
valid, too; the first token that differs is the last of the pass. Leviathan et al. (arXiv 2211.17192) accept drafts by
chance, since theirs are random; a draft that is certain, and uniform numbers that belong to places, make that
unnecessary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from kvg.rl.completions import Policy, Rollouts, SpeculationCounts, Watch, not_finite
from kvg.rl.drafter import NGramDrafter
from kvg.rl.sampling import SamplingSettings, sample_tokens

IDLE = 32  # passes in a row without a draft after which the rest of the batch does without


class Drafted:
    """The rows of a batch while they are sampled with drafts, on the host.

    Args:
        num: N.
        limit: tokens of a completion at most.
        policy: the model.
        device: of the logits.
        drafter: proposes tokens and counts them.
        watch: is called with the tokens that a row gains.
    """

    def __init__(
        self,
        num: int,
        limit: int,
        policy: Policy,
        device: torch.device,
        drafter: NGramDrafter,
        watch: Watch | None = None,
    ) -> None:
        self.limit, self.policy, self.device, self.drafter, self.watch = limit, policy, device, drafter, watch
        self.ends = frozenset(policy.end_token_ids)
        self.tokens: list[list[int]] = [[] for _ in range(num)]
        self.logprobs: list[list[float]] = [[] for _ in range(num)]
        self.ended, self.unsound = [False] * num, [False] * num
        self.rows = list(range(num))  # of the result, for each row of the state
        self.drafts: list[list[int]] = [[] for _ in range(num)]
        self.counts = SpeculationCounts()
        self.idle = 0  # passes in a row without a draft

    def active(self, row: int) -> bool:
        """Whether a row of the result goes on."""
        return not self.ended[row] and len(self.tokens[row]) < self.limit

    def draft(self) -> list[int]:
        """Drafts for the rows that go on; returns how many tokens each row of the state gives to the next pass.

        Where nothing is drafted each row gives one, also one that has ended: the pass is then as without speculation.
        """
        if self.idle >= IDLE:
            self.drafts = [[] for _ in self.rows]
            return [1] * len(self.rows)
        num = sum(map(self.active, self.rows))
        self.drafts = [
            self.drafter.draft(self.tokens[row], num, self.limit - len(self.tokens[row]) - 1)
            if self.active(row)
            else []
            for row in self.rows
        ]
        if not any(self.drafts):
            self.idle += 1
            return [1] * len(self.rows)
        self.idle = 0
        return [self.active(row) * (1 + len(draft)) for row, draft in zip(self.rows, self.drafts, strict=True)]

    def inputs(self, widths: Sequence[int]) -> list[int]:
        """The tokens of the next pass, those of a row side by side."""
        shares = zip(self.rows, self.drafts, widths, strict=True)
        return [token for row, draft, width in shares if width for token in (self.tokens[row][-1], *draft)]

    def take(self, sampled: Sequence[int], logprobs: Sequence[float], widths: Sequence[int]) -> list[int]:
        """Adds what a pass has given; returns how many tokens each row of the state has gained."""
        gained, start = [], 0
        for row, draft, width in zip(self.rows, self.drafts, widths, strict=True):
            num = 0
            if self.active(row):
                num = self._valid(sampled[start : start + width], draft)
                self.tokens[row] += sampled[start : start + num]
                self.logprobs[row] += logprobs[start : start + num]
                self.ended[row] = sampled[start + num - 1] in self.ends
                self.unsound[row] = not all(map(math.isfinite, logprobs[start : start + num]))
                if self.idle < IDLE:
                    self.drafter.observe(self.tokens[row], num)
                if self.watch is not None:
                    self.watch(row, self.tokens[row][-num:])
                self.counts.passes += 1
                self.counts.drafted += len(draft)
                self.counts.accepted += num - 1
            gained.append(num)
            start += width
        return gained

    def _valid(self, sampled: Sequence[int], draft: Sequence[int]) -> int:
        """How many tokens of a row's share of a pass are part of its completion."""
        for number, token in enumerate(draft):
            if sampled[number] != token or token in self.ends:
                return number + 1
        return len(draft) + 1

    def select(self, numbers: Sequence[int]) -> None:
        """Keeps these rows of the state."""
        self.rows = [self.rows[number] for number in numbers]

    def rollouts(self) -> Rollouts:
        """The result.

        Raises:
            TrainingError: logits are NaN or infinite, in one of the processes where they share a sharded model.
        """
        policy, device = self.policy, self.device
        length = torch.tensor(list(map(len, self.tokens)), device=device)
        unsound = torch.tensor(self.unsound, device=device)
        if policy.any_rank_active(any(self.unsound)):
            raise not_finite(policy, unsound, length)
        mask = torch.arange(int(length.max()), device=device)[None] < length[:, None]
        tokens = torch.full(mask.shape, policy.pad_token_id, device=device)
        tokens[mask] = torch.tensor(list(chain.from_iterable(self.tokens)), device=device)
        logprobs = torch.zeros(mask.shape, device=device)
        logprobs[mask] = torch.tensor(list(chain.from_iterable(self.logprobs)), device=device)
        return Rollouts(tokens, mask, logprobs, ~torch.tensor(self.ended, device=device), self.counts)


def speculate(
    policy: Policy,
    logits: Tensor,
    state: Any,
    settings: SamplingSettings,
    uniforms: Tensor | None,
    drafter: NGramDrafter,
    watch: Watch | None = None,
) -> Drafted:
    """Samples completions with drafts.

    Args:
        policy: the model.
        logits: ``[N, V]`` behind the prompts.
        state: to go on from, see ``Policy.prefill``.
        settings: how tokens are sampled.
        uniforms: ``[N, max_new_tokens]``, see ``kvg.rl.sampling.sample_tokens``; None where greedy.
        drafter: proposes tokens.
        watch: see ``kvg.rl.rollout.rollout``.
    """
    device, num = logits.device, len(logits)
    made = Drafted(num, settings.max_new_tokens, policy, device, drafter, watch)
    widths = [1] * num
    while True:
        chosen = None if uniforms is None else uniforms[_places(made, widths, device)]
        sampled, logprobs = sample_tokens(logits, settings, chosen)
        gained = made.take(sampled.tolist(), logprobs.tolist(), widths)
        unsound = any(made.unsound)
        active = [made.active(row) and not unsound for row in made.rows]
        if not policy.any_rank_active(any(active)):
            return made
        if any(made.drafts):
            policy.accept(torch.tensor(gained, device=device), state)
        if any(active) and sum(active) <= 2 * len(active) // 3:
            kept = [number for number, goes_on in enumerate(active) if goes_on]
            policy.select(state, torch.tensor(kept, device=device))
            made.select(kept)
        widths = made.draft()
        tokens = torch.tensor(made.inputs(widths), device=device)
        logits = policy.verify(tokens, widths, state) if any(made.drafts) else policy.decode(tokens, state)


def _places(made: Drafted, widths: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Row of the result and place in its completion of each token that is sampled."""
    rows, places = list[int](), list[int]()
    for row, width in zip(made.rows, widths, strict=True):
        start = len(made.tokens[row])
        rows += [row] * width
        places += range(start, start + width)
    # A row that has ended stays at the last place; its tokens do not count.
    return torch.tensor(rows, device=device), torch.tensor(places, device=device).clamp_(max=made.limit - 1)
