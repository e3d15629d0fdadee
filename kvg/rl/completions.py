"""Completions while they are sampled and afterwards, and what sampling needs of a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import torch
from torch import Tensor

from kvg.batches import Batch
from kvg.errors import TrainingError

Decoding: TypeAlias = Literal["speculative", "one_token", "fixed_shape"]
Watch = Callable[[int, Sequence[int]], None]  # row, and the tokens that it has just gained


@dataclass(frozen=True)
class Rollouts:
    """Completions of B prompts, G each, the rows of a group side by side; N = B * G, T = longest completion."""

    tokens: Tensor  # [N, T]
    completion_mask: Tensor  # [N, T] bool, True up to and including the end token
    logprobs: Tensor  # [N, T] of the sampling distribution, in nats
    truncated: Tensor  # [N] bool: stopped by length
    counts: SpeculationCounts | None = None  # None without speculation


@dataclass
class SpeculationCounts:
    """What speculation did to a batch.

    Attributes:
        passes: passes of a row through the model, all rows together, after the prompt's.
        drafted: tokens that were drafted.
        accepted: drafted tokens that were sampled.
    """

    passes: int = 0
    drafted: int = 0
    accepted: int = 0

    @property
    def tokens_per_pass(self) -> float:
        """Tokens that a row gains in a pass, on average; 1 without speculation."""
        return 1 + self.accepted / max(1, self.passes)

    @property
    def acceptance(self) -> float:
        """Share of the drafted tokens that were accepted; 0 where none was drafted."""
        return self.accepted / max(1, self.drafted)

    def figures(self) -> dict[str, float]:
        """Both, for logs."""
        return {"tokens_per_pass": self.tokens_per_pass, "draft_acceptance": self.acceptance}


class Policy(Protocol):
    """What sampling needs of a model.

    Attributes:
        decoding: how it samples; the tokens are the same. ``speculative``: passes take drafts where they pay, see
            ``kvg.rl.speculation``. ``one_token``: a token of each row a pass. ``fixed_shape``: the same with tensors
            that keep their shapes, see ``kvg.rl.fixed_shape``.
    """

    decoding: Decoding

    end_token_ids: tuple[int, ...]
    pad_token_id: int

    def prefill(self, batch: Batch, repeats: int, room: int | None = None) -> tuple[Tensor, Any]:
        """Logits ``[B * repeats, V]`` after the (left-padded) prompts, and the state to go on from.

        Args:
            batch: prompts and pictures.
            repeats: completions of each prompt.
            room: tokens of a completion at most, for a state whose tensors keep their shapes; None for one that grows.
        """

    def decode(self, tokens: Tensor, state: Any) -> Tensor:
        """Logits ``[N, V]`` after one more token per row ``[N]``; advances ``state`` in place."""

    def takes_drafts(self, state: Any) -> bool:
        """Whether ``verify`` works with this state."""

    def verify(self, tokens: Tensor, widths: Sequence[int], state: Any) -> Tensor:
        """Logits ``[M, V]`` after each of several tokens of each row, those of a row side by side.

        ``state`` holds them afterwards, and ``accept`` has to say how many of them count.

        Args:
            tokens: ``[M]``.
            widths: of each row, how many of the tokens are its own; 0 for rows that have ended.
            state: as ``prefill`` gave it.
        """

    def accept(self, counts: Tensor, state: Any) -> None:
        """Keeps the first ``counts`` ``[N]`` of the tokens that each row had in ``verify``."""

    def select(self, state: Any, rows: Tensor) -> None:
        """Keeps only these rows of the state, in this order."""

    def gathered(self) -> AbstractContextManager[None]:
        """Surrounds the passes of a batch; sharded models may gather their weights for it."""

    def any_rank_active(self, active: bool) -> bool:
        """Whether it holds in any process with which this one has to step: those that gather weights for each pass."""


class Completions:
    """The completions of a batch while they are sampled.

    Args:
        num: N.
        limit: tokens of a completion at most.
        policy: the model.
        device: of the logits.
        watch: is called with each token.

    Attributes:
        length: ``[N]``.
        ended: ``[N]`` bool, by an end token, or because the logits of some row are not finite.
    """

    def __init__(self, num: int, limit: int, policy: Policy, device: torch.device, watch: Watch | None = None) -> None:
        self.policy, self.limit, self.watch = policy, limit, watch
        self.tokens = torch.full((num, limit), policy.pad_token_id, device=device)
        self.logprobs = torch.zeros(num, limit, device=device)
        self.length = torch.zeros(num, dtype=torch.long, device=device)
        self.ended, self.unsound = (torch.zeros(num, dtype=torch.bool, device=device) for _ in range(2))
        self.ends = torch.tensor(policy.end_token_ids, device=device)

    def add(self, rows: Tensor, sampled: Tensor, scores: Tensor) -> None:
        """Adds a token to each of these rows, which have not ended.

        Args:
            rows: ``[R]``, each once.
            sampled: ``[R]``.
            scores: ``[R]`` log-probabilities.
        """
        self.tokens[rows, self.length[rows]], self.logprobs[rows, self.length[rows]] = sampled, scores
        self.length[rows] += 1
        self.unsound[rows] |= ~torch.isfinite(scores)
        self.ended[rows] |= torch.isin(sampled, self.ends)
        if self.watch is not None:
            for row, token in zip(rows.tolist(), sampled.tolist(), strict=True):
                self.watch(row, [token])

    def add_to_all(self, place: Tensor, sampled: Tensor, scores: Tensor) -> Tensor:
        """Adds a token to each row that goes on, without a word from the host.

        Args:
            place: ``[1]`` of the token in its completion, the same for all rows.
            sampled: ``[N]``.
            scores: ``[N]`` log-probabilities.

        Returns:
            ``[N]``, the tokens, with padding where a row has ended.
        """
        live = ~self.ended
        sampled = torch.where(live, sampled, self.policy.pad_token_id)
        self.tokens.index_copy_(1, place, sampled[:, None])
        self.logprobs.index_copy_(1, place, torch.where(live, scores, 0.0)[:, None])
        self.length += live
        self.unsound |= live & ~torch.isfinite(scores)
        self.ended |= live & (sampled[:, None] == self.ends).any(1)
        return sampled

    @property
    def active(self) -> Tensor:
        """``[N]`` bool, which rows go on. One whose logits are not finite ends all."""
        return ~self.ended & (self.length < self.limit) & ~self.unsound.any()

    def rollouts(self) -> Rollouts:
        """The result.

        Raises:
            TrainingError: logits are NaN or infinite, in one of the processes where they share a sharded model.
        """
        if self.policy.any_rank_active(bool(self.unsound.any())):
            raise not_finite(self.policy, self.unsound, self.length)
        longest = int(self.length.max())
        mask = torch.arange(longest, device=self.length.device)[None] < self.length[:, None]
        return Rollouts(self.tokens[:, :longest], mask, self.logprobs[:, :longest], ~self.ended)


def not_finite(policy: Policy, unsound: Tensor, length: Tensor) -> TrainingError:
    """The error of logits that are NaN or infinite.

    Args:
        policy: the model.
        unsound: ``[N]`` bool, rows that had such logits.
        length: ``[N]``, tokens of each so far.
    """
    rows, name = unsound.nonzero()[:, 0], getattr(policy, "checkpoint", "the model")
    where = "in another process"
    if len(rows):
        where = f"at token {int(length[rows[0]])} of completion {int(rows[0]) + 1} of {len(unsound)}"
    remedy = "its weights hold NaN or infinity, or overflow in this precision; choose another checkpoint or precision"
    return TrainingError(f"sampling from {name}", f"logits are not finite {where}: {remedy}")
