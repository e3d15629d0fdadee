"""Acc@0.5 and mean IoU, overall and by group, with states that are summed across processes.

The benchmark's accuracy is the share of cases with IoU >= 0.5 (section 5.1). Its averages over categories are weighted
by the number of cases, which equals the mean over all cases. An unparsed answer counts as wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torchmetrics import Metric

from kvg.metrics.functional import check_threshold, overlap_and_unparsed


class _BoxCounts(Metric):
    """Sums over cases, one row per group; row 0 counts all cases."""

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
        """Adds N cases to the rows where ``member`` ``[N, rows]`` float32 is 1."""
        overlap, unparsed = overlap_and_unparsed(preds, target)
        member = member.to(overlap.device)
        # The sums are computed on the device of the boxes (often the CPU) and then moved to the device of the states.
        self.hits = self.hits + ((overlap >= self.threshold).to(member) @ member).to(self.hits)
        self.iou_sum = self.iou_sum + (overlap.to(member) @ member).to(self.iou_sum)
        self.unparsed = self.unparsed + (unparsed.to(member) @ member).to(self.unparsed)
        self.count = self.count + member.sum(dim=0).to(self.count)

    def _apply(self, fn: Any, exclude_state: Sequence[str] = "") -> Any:
        """Moves the states and keeps them in float32 when a module is cast: bfloat16 cannot count beyond 256."""
        moved = super()._apply(fn, exclude_state)  # type: ignore[no-untyped-call]
        for name, default in self._defaults.items():
            setattr(self, name, getattr(self, name).float())
            self._defaults[name] = cast(Tensor, default).float()
        return moved


class IoUAccuracy(_BoxCounts):
    """Share of boxes whose IoU with their target reaches a threshold; the metric of KVG-Bench.

    Args:
        threshold: smallest IoU that counts as correct (``>=``).
        kwargs: arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: the threshold is outside (0, 1].

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
        """Adds N cases.

        Args:
            preds: ``[N, 4]`` xyxy; a row with NaN is an unparsed answer.
            target: ``[N, 4]`` true boxes in the same unit.

        Raises:
            ValueError: the shapes differ or are not ``[N, 4]``.
        """
        self._add(preds, target, torch.ones(len(preds), 1))

    def compute(self) -> Tensor:
        """The accuracy, a scalar in 0-1; NaN if there is no case."""
        return self.hits[0] / self.count[0]

    def plot(self, val: Tensor | Sequence[Tensor] | None = None, ax: Any = None) -> Any:
        """Plots one value or a sequence of values, like other torchmetrics metrics; needs matplotlib.

        Args:
            val: results of ``compute`` or ``forward``; None for the current value.
            ax: matplotlib axes to draw into.

        Returns:
            Figure and axes.
        """
        return self._plot(val, ax)


class GroupedIoUAccuracy(_BoxCounts):
    """``IoUAccuracy`` of all cases and of each group, with mean IoU, share of unparsed answers and number of cases.

    Args:
        groups: possible values of each grouping, for example ``{"split": ("seen", "unseen")}``. They are fixed in
            advance, so that the states of all processes have the same shape.
        threshold: smallest IoU that counts as correct (``>=``).
        kwargs: arguments of ``torchmetrics.Metric``.

    Raises:
        ValueError: the threshold is outside (0, 1].

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
        """Adds N cases.

        Args:
            preds: ``[N, 4]`` xyxy; a row with NaN is an unparsed answer.
            target: ``[N, 4]`` true boxes in the same unit.
            groups: one mapping of grouping to value per case. Unknown groupings are ignored; a value of '' belongs to
                no group.

        Raises:
            ValueError: the lengths differ, the shapes are not ``[N, 4]``, or a value is not one of the constructor's.
        """
        if len(groups) != len(preds):
            raise ValueError(f"expected one group mapping per prediction, got {len(groups)} for {len(preds)}")
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
                raise ValueError(f"'{value}' is not a value of '{group}' in this metric; add it in the constructor")
            rows.append(self._rows[name])
        return rows

    def compute(self) -> dict[str, Tensor]:
        """Scalars ``acc``, ``mean_iou``, ``unparsed`` (all 0-1) and ``n``, then the same by group: ``acc/split=seen``.

        Groups without cases are omitted. If there is no case at all, the shares are NaN.
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
