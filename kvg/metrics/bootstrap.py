"""How far a score could have moved by the luck of which cases were drawn."""

from __future__ import annotations

from collections.abc import Sequence

import torch

_CHUNK = 4_000_000  # resampled values held at once: 32 MB


def bootstrap_interval(values: Sequence[float], seed: int, num: int = 2000, level: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean.

    Args:
        values: one number a case: 0 or 1 for an accuracy, the difference of two models for a paired comparison.
        seed: the same seed gives the same interval.
        num: resamples.
        level: share of the resampled means inside the interval, in (0, 1).

    Returns:
        ``(low, high)`` in the unit of ``values``.

    Raises:
        ValueError: ``values`` is empty, ``num`` is below 1 or ``level`` is outside (0, 1).

    >>> bootstrap_interval([0.25] * 10, seed=0)
    (0.25, 0.25)
    """
    if not values or num < 1 or not 0 < level < 1:
        raise ValueError("needs at least one value, num >= 1 and a level in (0, 1)")
    cases = torch.tensor(values, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    step = max(1, _CHUNK // len(cases))
    means = []
    for start in range(0, num, step):
        picks = torch.randint(len(cases), (min(step, num - start), len(cases)), generator=generator)
        means.append(cases[picks].mean(dim=1))
    tail = (1 - level) / 2
    low, high = torch.quantile(torch.cat(means), torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return low, high
