"""Acc@0.5 and mean IoU, overall and by group, with states that sum across processes.

The benchmark's accuracy is the share of cases with IoU >= 0.5 (section 5.1), and its averages over categories are
weighted by instance count, which is what a plain mean over cases gives. An answer that cannot be read is wrong, not
absent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torchmetrics import Metric

from kvg.metrics.functional import check_threshold, overlap_and_unparsed


class _BoxCounts(Metric):
    """Sums over cases, a row for each group; row 0 counts every case."""

    full_state_update = False
    higher_is_better = True
    is_differentiable = False

    hits: Tensor
    iou_sum: Tensor
    unparsed: Tensor
    count: Tensor

    def __init__(self, num_groups: int, threshold: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_threshold(threshold)
        self.threshold = threshold
        for state in ("hits", "iou_sum", "unparsed", "count"):
            self.add_state(state, default=torch.zeros(num_groups + 1), dist_reduce_fx="sum")

    def _add(self, preds: Tensor, target: Tensor, member: Tensor) -> None:
        """Counts N cases in the rows of which ``member`` ``[N, rows]`` float32 is 1."""
        overlap, absent = overlap_and_unparsed(preds, target)
        member = member.to(overlap.device)
        # Sums are made where the boxes are (often the host), and only then moved to the device of the states.
        self.hits = self.hits + ((overlap >= self.threshold).to(member) @ member).to(self.hits)
        self.iou_sum = self.iou_sum + (overlap.to(member) @ member).to(self.iou_sum)
        self.unparsed = self.unparsed + (absent.to(member) @ member).to(self.unparsed)
        self.count = self.count + member.sum(dim=0).to(self.count)

    def _apply(self, fn: Any, exclude_state: Sequence[str] = "") -> Any:
        """Moves the states, and keeps them float32 where a module is cast: bfloat16 cannot count beyond 256."""
        moved = super()._apply(fn, exclude_state)  # type: ignore[no-untyped-call]
        for name, default in self._defaults.items():
            setattr(self, name, getattr(self, name).float())
            self._defaults[name] = cast(Tensor, default).float()
        return moved


class IoUAccuracy(_BoxCounts):
    """Share of boxes whose IoU with their target reaches a threshold; the metric of KVG-Bench.

    Args:
        threshold: smallest IoU that counts as right (``>=``).
        kwargs: of ``torchmetrics.Metric``.

    Raises:
        ValueError: the threshold is not within (0, 1].

    >>> metric = IoUAccuracy()
    >>> target = torch.tensor([[0.0, 0.0, 2.0, 2.0], [4.0, 4.0, 5.0, 5.0]])
    >>> metric.update(target.clamp(max=4.0), target)
    >>> metric.compute()
    tensor(0.5000)
    """

    plot_lower_bound: float = 0.0
    plot_upper_bound: float = 1.0

    def __init__(self, threshold: float = 0.5, **kwargs: Any) -> None:
        super().__init__(0, threshold, **kwargs)

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Counts N cases.

        Args:
            preds: ``[N, 4]`` xyxy; a row with NaN where no box could be read.
            target: ``[N, 4]`` true boxes in the same unit.

        Raises:
            ValueError: the shapes differ or are not ``[N, 4]``.
        """
        self._add(preds, target, torch.ones(len(preds), 1))

    def compute(self) -> Tensor:
        """The share, a scalar in 0-1; NaN without a case."""
        return self.hits[0] / self.count[0]

    def plot(self, val: Tensor | Sequence[Tensor] | None = None, ax: Any = None) -> Any:
        """Draws one value or several over time, as metrics of torchmetrics do; needs matplotlib.

        Args:
            val: what ``compute`` or ``forward`` returned; None for the value now.
            ax: axes of matplotlib to draw into.

        Returns:
            Figure and axes.
        """
        return self._plot(val, ax)


class GroupedIoUAccuracy(_BoxCounts):
    """``IoUAccuracy`` of all cases and of each group, with mean IoU, share of unparsed answers and number of cases.

    Args:
        groups: which values each grouping can take, for example ``{"split": ("seen", "unseen")}``. Fixed beforehand, so
            that every process has states of the same shape whatever samples it met.
        threshold: smallest IoU that counts as right (``>=``).
        kwargs: of ``torchmetrics.Metric``.

    Raises:
        ValueError: the threshold is not within (0, 1].

    >>> metric = GroupedIoUAccuracy({"split": ("seen", "unseen")})
    >>> boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]])
    >>> metric.update(boxes.where(torch.tensor([[True], [False]]), float("nan")), boxes, [{"split": "seen"}, {}])
    >>> result = metric.compute()
    >>> result["acc"].item(), result["unparsed"].item(), result["acc/split=seen"].item()
    (0.5, 0.5, 1.0)
    """

    def __init__(self, groups: Mapping[str, Sequence[str]], threshold: float = 0.5, **kwargs: Any) -> None:
        names = [f"{group}={value}" for group, values in groups.items() for value in values]
        super().__init__(len(names), threshold, **kwargs)
        self._rows = {name: row for row, name in enumerate(names, start=1)}
        self._grouping_names = frozenset(groups)

    def update(self, preds: Tensor, target: Tensor, groups: Sequence[Mapping[str, str]]) -> None:
        """Counts N cases.

        Args:
            preds: ``[N, 4]`` xyxy; a row with NaN where no box could be read.
            target: ``[N, 4]`` true boxes in the same unit.
            groups: for each case its value by grouping; groupings that the metric does not know are ignored, and a
                value of '' belongs to no group.

        Raises:
            ValueError: the lengths differ, the shapes are not ``[N, 4]``, or a value is missing from the vocabulary.
        """
        if len(groups) != len(preds):
            raise ValueError(f"one group mapping per prediction, got {len(groups)} for {len(preds)}")
        member = torch.zeros(len(preds), self.count.numel())
        member[:, 0] = 1
        for case, mapping in enumerate(groups):
            member[case, self._rows_of(mapping)] = 1
        self._add(preds, target, member)

    def _rows_of(self, mapping: Mapping[str, str]) -> list[int]:
        rows = []
        for group, value in mapping.items():
            if group not in self._grouping_names or not value:
                continue
            name = f"{group}={value}"
            if name not in self._rows:
                raise ValueError(f"'{value}' is no value of '{group}' in this metric; name it in the constructor")
            rows.append(self._rows[name])
        return rows

    def compute(self) -> dict[str, Tensor]:
        """Scalars ``acc``, ``mean_iou``, ``unparsed`` (shares, 0-1) and ``n``, then the same as ``acc/split=seen``.

        Groups without a case are left out; without any case at all the shares are NaN.
        """
        result = {}
        for name, row in {"": 0, **self._rows}.items():
            if row and not self.count[row]:
                continue
            suffix = f"/{name}" if name else ""
            result[f"acc{suffix}"] = self.hits[row] / self.count[row]
            result[f"mean_iou{suffix}"] = self.iou_sum[row] / self.count[row]
            result[f"unparsed{suffix}"] = self.unparsed[row] / self.count[row]
            result[f"n{suffix}"] = self.count[row]
        return result
