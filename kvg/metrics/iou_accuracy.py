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

from kvg.boxes import MISSING_BOX, iou
from kvg.types import Box


class IoUAccuracy(Metric):
    """Share of boxes that overlap their truth enough, and the mean overlap.

    Args:
        groups: which values each grouping can take, for example ``{"split": ("seen", "unseen")}``. Fixed beforehand, so
            that every process has states of the same shape whatever samples it met.
        threshold: smallest IoU that counts as right (``>=``).

    >>> metric = IoUAccuracy({"split": ("seen", "unseen")})
    >>> box = (0.0, 0.0, 2.0, 2.0)
    >>> metric.update([box, None], [box, box], [{"split": "seen"}, {"split": "unseen"}])
    >>> result = metric.compute()
    >>> result["acc"].item(), result["unparsed"].item(), result["acc/split=unseen"].item()
    (0.5, 0.5, 0.0)
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False

    hits: Tensor
    iou_sum: Tensor
    unparsed: Tensor
    count: Tensor

    def __init__(self, groups: Mapping[str, Sequence[str]] | None = None, threshold: float = 0.5) -> None:
        super().__init__()
        self.threshold = threshold
        names = [f"{group}={value}" for group, values in (groups or {}).items() for value in values]
        self._rows = {name: row for row, name in enumerate(names, start=1)}  # row 0 counts everything
        self._grouping_names = frozenset(groups or {})
        for state in ("hits", "iou_sum", "unparsed", "count"):
            self.add_state(state, default=torch.zeros(len(names) + 1), dist_reduce_fx="sum")

    def update(
        self,
        preds: Sequence[Box | None],
        target: Sequence[Box],
        groups: Sequence[Mapping[str, str]] | None = None,
    ) -> None:
        """Counts N cases.

        Args:
            preds: N boxes in pixels, None where no box could be read.
            target: N true boxes in pixels of the same images.
            groups: for each case its value by grouping; groupings that the metric does not know are ignored, and a
                value of '' belongs to no group.

        Raises:
            ValueError: the lists differ in length, or a value is missing from the vocabulary.
        """
        if len(preds) != len(target) or (groups is not None and len(groups) != len(preds)):
            raise ValueError("one target and one group mapping per prediction")
        if not preds:
            return
        overlap = iou(
            torch.tensor([MISSING_BOX if box is None else box for box in preds], dtype=torch.float64),
            torch.tensor(target, dtype=torch.float64),
        )
        absent = torch.tensor([box is None for box in preds])
        member = torch.zeros(len(preds), self.count.numel())  # [N, rows]
        member[:, 0] = 1
        for case, mapping in enumerate(groups or ()):
            member[case, self._rows_of(mapping)] = 1
        # Sums are made where the boxes are (the host), and only then moved to the device of the states.
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
