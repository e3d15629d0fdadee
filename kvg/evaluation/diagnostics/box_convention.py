"""Which box convention the answers of a model follow: all of them are read, and compared with the objects.

A base model may box objects well and still not know which of them is the entity. So a reading is scored by its best
IoU with *any* object of the picture; the IoU with the target is reported beside it. A verdict needs two things:

- The boxes fit their own pictures better than those of other pictures. Answers are given to other pictures at random,
  and the best reading of each such assignment counts, so that trying many readings is paid for (max-T permutation
  test, Westfall and Young 1993). A model that finds nothing, or always answers the same box, does not pass.
- The best reading is better than the declared one on the same answers (paired bootstrap interval).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from kvg.boxes import box_rows, iou
from kvg.evaluation.figures.estimate import SHARE, Estimate
from kvg.stats.bootstrap import bootstrap_interval
from kvg.text.box_codec import AbsoluteCodec, ImageSize
from kvg.text.box_conventions import Convention, conventions
from kvg.types import Box

FEWEST: Final = 5  # boxes, below which no verdict is given
SURE: Final = 0.01  # largest p-value at which answers count as boxes of their pictures
LEVEL: Final = 0.99  # of the interval of a difference; the best reading was chosen among many
MARGIN: Final = 0.02  # smallest difference of mean IoU that matters
_PERMUTATIONS: Final = 2000
_RIGHT: Final = 0.5
_EQUAL: Final = 1e-4  # shares of the picture within which two readings are the same


@dataclass(frozen=True)
class BoxAnswer:
    """One answer, and the objects of its picture.

    Attributes:
        numbers: the four numbers of its box as written; None if there is no box in a known form.
        declared_px: the box as the declared codec reads it, in pixels of the stored picture; None if it reads none.
        objects_px: boxes of all objects of the picture, in pixels of the stored picture.
        target: index into ``objects_px``.
        sizes: sizes of the picture by rule of resizing; that of the run comes first.
    """

    numbers: Box | None
    declared_px: Box | None
    objects_px: Sequence[Box]
    target: int
    sizes: Mapping[str, ImageSize]


@dataclass(frozen=True)
class ReadingFit:
    """How well one reading of the answers fits the objects.

    Attributes:
        titles: conventions that read these answers alike.
        is_declared: whether the declared codec is one of them.
        any_iou: mean of the best IoU with any object of the picture.
        iou: mean IoU with the target.
        accuracy: share of answers whose IoU with the target is at least 0.5.
        loss: by how much ``any_iou`` is below that of the best reading, on the same answers.
        shares: box of each answer in shares of width and height, 0-1; None if it has none.
        overlaps: IoU of each answer with the target.
    """

    titles: Sequence[str]
    is_declared: bool
    any_iou: Estimate
    iou: Estimate
    accuracy: Estimate
    loss: Estimate
    shares: Sequence[Box | None]
    overlaps: Sequence[float]

    @property
    def title(self) -> str:
        """The first convention, and how many others read the same."""
        more = len(self.titles) - 1
        return self.titles[0] + (f" [= {more} other{'s' if more > 1 else ''} on these pictures]" if more else "")

    @property
    def is_as_good(self) -> bool:
        """Whether it cannot be told from the best reading, or hardly differs."""
        return self.loss["low"] <= 0 or self.loss["value"] < MARGIN

    def record(self) -> dict[str, Any]:
        """As JSON data, without the single boxes."""
        names = ("titles", "is_declared", "any_iou", "iou", "accuracy", "loss")
        return {**{name: getattr(self, name) for name in names}, "is_as_good": self.is_as_good}


@dataclass(frozen=True)
class ConventionFits:
    """All readings of some answers, the best first.

    Attributes:
        fits: the readings.
        num_answers: number of answers.
        num_boxes: answers with a box.
        shuffled: mean of ``any_iou`` of the best reading if answers belong to other pictures.
        p_value: chance of a reading as good as the best if answers do not belong to their pictures.
    """

    fits: Sequence[ReadingFit]
    num_answers: int
    num_boxes: int
    shuffled: float
    p_value: float

    @property
    def best(self) -> ReadingFit:
        """The reading with the highest mean IoU with any object."""
        return self.fits[0]

    @property
    def declared(self) -> ReadingFit:
        """The reading of the declared codec."""
        return next(fit for fit in self.fits if fit.is_declared)

    @property
    def is_known(self) -> bool:
        """Whether the answers show a convention at all."""
        return self.num_boxes >= FEWEST and self.p_value <= SURE

    @property
    def is_wrong(self) -> bool:
        """Whether another reading is clearly better than the declared one."""
        return self.is_known and not self.declared.is_as_good

    def text(self) -> str:
        """The verdict in words."""
        best, declared = self.best, self.declared
        if self.num_boxes < FEWEST:
            return f"cannot tell: only {self.num_boxes} of {self.num_answers} answers hold a box"
        if not self.is_known:
            reached = f"the best reading, {best.titles[0]}, has a mean IoU of {_spoken(best.any_iou)} with any object"
            others = f"answers to other pictures reach {self.shuffled:.2f} (p = {self.p_value:.2g})"
            return f"cannot tell: {reached}, and {others}"
        if self.is_wrong:
            return (
                f"the answers are boxes in {best.title}: mean IoU with any object {_spoken(best.any_iou)}, Acc@0.5 "
                f"{_percent(best.accuracy)}; as declared, {declared.titles[0]}, {_spoken(declared.any_iou)} and "
                f"{_percent(declared.accuracy)}"
            )
        number = f"mean IoU with any object {_spoken(declared.any_iou)}, Acc@0.5 {_percent(declared.accuracy)}"
        rivals = [fit.titles[0] for fit in self.fits if fit.is_as_good and not fit.is_declared]
        others = f"; {rivals[0]} fits as well on these pictures" if rivals else ""
        return f"the declared convention fits, {declared.title}: {number}{others}"

    def record(self) -> dict[str, Any]:
        """As JSON data."""
        verdict = "unknown" if not self.is_known else "wrong" if self.is_wrong else "fits"
        counts = {"num_answers": self.num_answers, "num_boxes": self.num_boxes}
        chance = {"shuffled": self.shuffled, "p_value": self.p_value}
        return {"verdict": verdict, **counts, **chance, "readings": [fit.record() for fit in self.fits]}


def convention_fits(answers: Sequence[BoxAnswer], declared: str, seed: int = 0) -> ConventionFits:
    """Reads answers under every convention.

    Args:
        answers: at least one, about different pictures.
        declared: name of the declared codec, for a convention that is none of ``kvg.text.box_conventions``.
        seed: of permutations and intervals.

    Raises:
        ValueError: there is no answer.
    """
    if not answers:
        raise ValueError("needs at least one answer")
    titles, shares = _readings(answers, declared)
    boxes = torch.stack([box_rows(row) for row in shares])  # [C, N, 4]
    most = max(len(answer.objects_px) for answer in answers)
    objects = torch.zeros(len(answers), most, 4, dtype=torch.float64)
    for row, answer in enumerate(answers):
        objects[row, : len(answer.objects_px)] = box_rows([_share_px(box, answer) for box in answer.objects_px])
    any_iou = _overlaps(boxes[:, :, None, None], objects[None, None]).amax(-1)  # [C, N, N]: answer i on picture j
    own = any_iou.diagonal(dim1=1, dim2=2)  # [C, N]
    targets = objects[torch.arange(len(answers)), torch.tensor([answer.target for answer in answers])]
    to_target = _overlaps(boxes, targets[None])  # [C, N]
    means = own.mean(1).tolist()
    order = sorted(range(len(titles)), key=lambda row: (-round(means[row], 9), row))
    best = order[0]
    fits = [
        ReadingFit(
            titles=titles[row],
            is_declared=row == 0,
            any_iou=_estimate(own[row].tolist(), seed),
            iou=_estimate(to_target[row].tolist(), seed),
            accuracy=_estimate((to_target[row] >= _RIGHT).double().tolist(), seed),
            loss=_difference((own[best] - own[row]).tolist(), seed),
            shares=shares[row],
            overlaps=to_target[row].tolist(),
        )
        for row in order
    ]
    shuffled, p_value = _permuted(any_iou, best, seed)
    num_boxes = sum(answer.numbers is not None or answer.declared_px is not None for answer in answers)
    return ConventionFits(fits, len(answers), num_boxes, shuffled, p_value)


def _readings(answers: Sequence[BoxAnswer], declared: str) -> tuple[list[list[str]], list[list[Box | None]]]:
    """Titles and boxes in shares of each distinct reading; the declared one is the first."""
    own = [None if a.declared_px is None else _share_px(a.declared_px, a) for a in answers]
    titles: list[list[str]] = [[]]
    shares: list[list[Box | None]] = [own]
    rules = list(answers[0].sizes)
    for convention in conventions(rules):
        rule = convention.rule or rules[0]
        row = [None if a.numbers is None else convention.share(a.numbers, a.sizes[rule]) for a in answers]
        same = next((n for n, other in enumerate(shares) if _alike(row, other)), None)
        if same is None:
            titles.append([])
            shares.append(row)
        titles[len(titles) - 1 if same is None else same].append(convention.title)
    meant = Convention("resized", rule=rules[0]).title if declared == AbsoluteCodec.name else ""
    titles[0].sort(key=lambda title: title != meant)  # the one that is meant comes first
    titles[0] = titles[0] or [f"the codec '{declared}'"]
    return titles, shares


def _alike(one: Sequence[Box | None], other: Sequence[Box | None]) -> bool:
    return all(
        a is b or (a is not None and b is not None and max(abs(x - y) for x, y in zip(a, b, strict=True)) < _EQUAL)
        for a, b in zip(one, other, strict=True)
    )


def _share_px(box: Box, answer: BoxAnswer) -> Box:
    size = next(iter(answer.sizes.values()))
    x1, y1, x2, y2 = box
    return x1 / size.width, y1 / size.height, x2 / size.width, y2 / size.height


def _overlaps(boxes: Tensor, objects: Tensor) -> Tensor:
    """IoU of boxes ``[..., 4]``, whose shapes are broadcast."""
    shape = torch.broadcast_shapes(boxes.shape, objects.shape)  # type: ignore[no-untyped-call]
    return iou(boxes.expand(shape).reshape(-1, 4), objects.expand(shape).reshape(-1, 4)).view(shape[:-1])


def _estimate(values: Sequence[float], seed: int) -> Estimate:
    low, high = bootstrap_interval(values, seed, bounds=SHARE)
    return Estimate(n=len(values), value=math.fsum(values) / len(values), low=low, high=high)


def _difference(values: Sequence[float], seed: int) -> Estimate:
    low, high = bootstrap_interval(values, seed, level=LEVEL)
    return Estimate(n=len(values), value=math.fsum(values) / len(values), low=low, high=high)


def _permuted(any_iou: Tensor, best: int, seed: int) -> tuple[float, float]:
    """Mean of the best reading over other pictures, and the p-value of the maximum over all readings."""
    num = any_iou.shape[1]
    if num < 2:
        return 0.0, 1.0
    scores = any_iou.numpy()
    others = (scores[best].sum() - np.trace(scores[best])) / (num * (num - 1))
    observed = np.trace(scores, axis1=1, axis2=2).max() / num
    rng, rows = np.random.default_rng(seed), np.arange(num)
    reached = sum(scores[:, rows, rng.permutation(num)].mean(1).max() >= observed - 1e-12 for _ in range(_PERMUTATIONS))
    return float(others), float((1 + reached) / (1 + _PERMUTATIONS))


def _spoken(estimate: Estimate) -> str:
    return f"{estimate['value']:.2f} ({estimate['low']:.2f} to {estimate['high']:.2f})"


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate['value']:.0f}% ({100 * estimate['low']:.0f} to {100 * estimate['high']:.0f})"
