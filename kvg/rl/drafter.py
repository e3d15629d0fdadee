"""Drafts for speculative sampling: what followed the last few tokens in completions so far. No weights, no model.

Completions of this task repeat each other: boxes are quoted again, and the completions of a group and earlier ones
share phrases. The idea is that of DAS (arXiv 2511.13841), which drafts from rollouts of earlier epochs. A draft never
decides what is sampled, see ``kvg.rl.speculation``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from kvg.ranges import check_whole

START = -1  # in the place of tokens before a completion
_MOST = 15.0  # counts of one context; where they are more, all of them are halved, so that later rollouts count more
_LEAST = 0.4  # a count below this is forgotten
_DOUBT = 2.0  # accepted tokens by which a batch is taken to be as predictable as its counts say, until it shows


class _Following:
    """What followed a context. Totals and the likeliest token are kept, since they are asked for at each token.

    Args:
        counts: by token.
    """

    __slots__ = ("best", "counts", "total")

    def __init__(self, counts: dict[int, float]) -> None:
        self.counts = counts
        self._sum()

    def _sum(self) -> None:
        self.total = sum(self.counts.values())
        self.best = min(self.counts, key=self._rank, default=0)

    def _rank(self, token: int) -> tuple[float, int]:
        return -self.counts[token], token  # the smaller token of two: it must not depend on their order

    def copy(self) -> _Following:
        return _Following(dict(self.counts))

    def add(self, token: int) -> None:
        counts = self.counts
        counts[token] = num = counts.get(token, 0.0) + 1.0
        self.total += 1.0
        if self.total > _MOST:
            self.counts = {other: count / 2 for other, count in counts.items() if count / 2 >= _LEAST}
            self._sum()
        elif token != self.best:
            most = counts.get(self.best, 0.0)
            if num > most or (num == most and token < self.best):
                self.best = token


class NGramDrafter:
    """Counts of the tokens that followed each n-gram.

    Completions of the batch that is being sampled count at once, for this process alone. ``learn`` ends the batch: then
    only what it is given counts, so that processes that learn the same completions draft alike afterwards.

    Args:
        order: tokens of a context.
        max_draft: tokens of a draft at most.
        pass_cost: what a pass costs beside its tokens, in tokens. A token is drafted while the chance that it is
            accepted, with those before it, is at least R / (R + ``pass_cost``), R the rows of the batch: with few rows
            a pass is cheap to widen, with many each token costs arithmetic. The chances follow what the batch has
            accepted so far, so that one that cannot be predicted soon gets no drafts.
        max_contexts: contexts that are kept; the oldest tenth is forgotten where they are more.

    Raises:
        ConfigError: a setting cannot work.
    """

    def __init__(self, order: int = 4, max_draft: int = 4, pass_cost: int = 64, max_contexts: int = 200_000) -> None:
        for name, value, low in (
            ("order", order, 1), ("max_draft", max_draft, 0), ("pass_cost", pass_cost, 0),
            ("max_contexts", max_contexts, 10),
        ):  # fmt: skip
            check_whole(f"drafter.{name}", value, low)
        self.order, self.max_draft, self.pass_cost, self.max_contexts = order, max_draft, pass_cost, max_contexts
        self._learnt: dict[tuple[int, ...], _Following] = {}
        self._current: dict[tuple[int, ...], _Following] = {}  # of this batch, with what was learnt before
        self._expected = self._accepted = 0.0  # drafted tokens of this batch: by their chances, and in fact

    def draft(self, completion: Sequence[int], num_rows: int, room: int) -> list[int]:
        """The tokens that are likely to follow.

        Args:
            completion: its tokens so far.
            num_rows: R, rows of the batch.
            room: tokens at most.
        """
        least, chance, drafted = num_rows / (num_rows + self.pass_cost), 1.0, list[int]()
        least *= (self._expected + _DOUBT) / (self._accepted + _DOUBT)
        context = self._context(completion, len(completion))
        while len(drafted) < min(room, self.max_draft):
            following = self._current.get(context) or self._learnt.get(context)
            if following is None:
                break
            token = following.best
            chance *= following.counts[token] / (following.total + 1)  # a context that was seen once is no certainty
            if chance < least:
                break
            self._expected += chance
            drafted.append(token)
            context = (*context[1:], token)
        return drafted

    def observe(self, completion: Sequence[int], num_new: int) -> None:
        """Counts the last tokens of a completion of the batch that is being sampled.

        Args:
            completion: its tokens so far.
            num_new: how many of them are new; all but the last one were drafted.
        """
        self._accepted += num_new - 1
        for place in range(len(completion) - num_new, len(completion)):
            context = self._context(completion, place)
            following = self._current.get(context)
            if following is None:
                learnt = self._learnt.get(context)
                following = self._current[context] = _Following({}) if learnt is None else learnt.copy()
            following.add(completion[place])

    def learn(self, completions: Sequence[Sequence[int]]) -> None:
        """Ends a batch: forgets what was counted of it so far, and counts these completions for later batches."""
        self._forget_batch()
        for completion in completions:
            for place, token in enumerate(completion):
                context = self._context(completion, place)
                following = self._learnt.get(context)
                if following is None:
                    following = self._learnt[context] = _Following({})
                following.add(token)
        if len(self._learnt) > self.max_contexts:
            for context in list(self._learnt)[: len(self._learnt) - self.max_contexts * 9 // 10]:
                del self._learnt[context]

    def _forget_batch(self) -> None:
        self._current.clear()
        self._expected = self._accepted = 0.0

    def _context(self, completion: Sequence[int], place: int) -> tuple[int, ...]:
        missing = self.order - place
        return tuple(
            completion[place - self.order : place] if missing <= 0 else [START] * missing + list(completion[:place])
        )

    def state_dict(self) -> dict[str, Tensor]:
        """What was learnt, for a checkpoint: contexts ``[C, order]``, their counts one behind the other."""
        entries = [following.counts for following in self._learnt.values()]
        return {
            "contexts": torch.tensor(list(self._learnt), dtype=torch.int32).view(-1, self.order),
            "sizes": torch.tensor([len(counts) for counts in entries], dtype=torch.int32),
            "tokens": torch.tensor([token for counts in entries for token in counts], dtype=torch.int32),
            "counts": torch.tensor([count for counts in entries for count in counts.values()], dtype=torch.float64),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what ``state_dict`` gave."""
        pairs = zip(state["tokens"].tolist(), state["counts"].tolist(), strict=True)
        sizes, contexts = state["sizes"].tolist(), state["contexts"].tolist()
        self._forget_batch()
        self._learnt = {
            tuple(context): _Following(dict(next(pairs) for _ in range(size)))
            for context, size in zip(contexts, sizes, strict=True)
        }
