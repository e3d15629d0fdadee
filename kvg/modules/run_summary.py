"""The last lines of a run: what was learnt from its first steps to its last ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

EDGE = 10  # batches that the first and the last figures are means of
ORDER = ("total", "iou", "format")  # of the parts of the reward; others follow


class RunHistory:
    """Numbers of a run, batch by batch: the first, the last, and the sum of all.

    Nothing crosses from a GPU before the end.

    Args:
        edge: number of batches at either end.
    """

    def __init__(self, edge: int = EDGE) -> None:
        self.num_batches = 0
        self._edge = edge
        self._names: tuple[str, ...] = ()
        self._first: list[Tensor] = []
        self._last: deque[Tensor] = deque(maxlen=edge)
        self._sum: Tensor | None = None

    def add(self, values: Mapping[str, Tensor | float]) -> None:
        """Takes the next batch's numbers; the same names each time."""
        self._names = self._names or tuple(values)
        device = next((v.device for v in values.values() if isinstance(v, Tensor) and v.is_cuda), torch.device("cpu"))
        row = torch.stack([torch.as_tensor(values[n], dtype=torch.float32).detach().to(device) for n in self._names])
        if len(self._first) < self._edge:
            self._first.append(row)
        self._last.append(row)
        self._sum = row if self._sum is None else self._sum + row
        self.num_batches += 1

    def means(self, reduce: Callable[[Tensor], Tensor]) -> dict[str, dict[str, float]]:
        """Means ``first``, ``last`` and ``all`` by name; empty where there was no batch.

        Args:
            reduce: mean over processes; each of them has to come here with as many batches.
        """
        if self._sum is None:
            return {}
        ends = self._first[: self.edge], [*self._last][-self.edge :]
        first, last = (torch.stack(rows).mean(0) for rows in ends)
        reduced = reduce(torch.stack([first, last, self._sum / self.num_batches])).tolist()
        spans = zip(("first", "last", "all"), reduced, strict=True)
        return {span: dict(zip(self._names, row, strict=True)) for span, row in spans}

    @property
    def edge(self) -> int:
        """Batches that the first and the last means are taken over; half of a short run."""
        return min(self._edge, max(1, self.num_batches // 2))


def change(means: Mapping[str, Mapping[str, float]], name: str, form: str = ".2f") -> str:
    """A number in the first and in the last steps.

    >>> change({"first": {"loss": 2.0}, "last": {"loss": 0.5}}, "loss")
    '2.00 -> 0.50'
    """
    return f"{means['first'][name]:{form}} -> {means['last'][name]:{form}}"


def reward_lines(
    means: Mapping[str, Mapping[str, float]], edge: int, num_tokens: float, num_steps: int
) -> Sequence[str]:
    """Sums up stage 2.

    Args:
        means: of ``RunHistory.means``.
        edge: batches at either end.
        num_tokens: sampled in all processes.
        num_steps: of the optimizer.
    """
    parts = [name.removeprefix("reward/") for name in means["all"] if name.startswith("reward/")]
    parts.sort(key=lambda part: ORDER.index(part) if part in ORDER else len(ORDER))
    rewards = ", ".join(f"{part} {change(means, f'reward/{part}')}" for part in parts)
    labels = {"equal_groups": "groups with equal rewards", "unparsed": "no box", "truncated": "cut off"}
    shares = ", ".join(f"{label} {change(means, name, '.0%')}" for name, label in labels.items())
    equal = means["all"]["equal_groups"]
    return (
        f"Stage 2: {num_steps} steps, {num_tokens:,.0f} tokens sampled, {equal:.0%} of all groups had equal rewards.",
        f"Mean reward in the first -> last {edge} batches: {rewards}.",
        f"Shares in the first -> last {edge} batches: {shares}.",
    )
