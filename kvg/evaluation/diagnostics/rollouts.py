"""Signs in the rollouts of stage 2 that a reward is stuck, or rises without better boxes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, TypedDict

import torch

from kvg.boxes import box_rows, iou
from kvg.evaluation.figures.estimate import FEWEST, Estimate, difference
from kvg.formats.rollout_files import RolloutRecord
from kvg.stats.bootstrap import bootstrap_interval

EQUAL: Final = 0.95  # share of rollouts with the same value above which a component is constant
SAME_BOX: Final = 0.5  # share of one box, where true boxes differ, that is a sign
MAX_UNPARSED: Final = 0.5  # share of rollouts without a box that is a sign, as in callbacks.CollapseGuard
_THRESHOLD: Final = 0.5  # IoU of a correct box
Value = Callable[[RolloutRecord], float]


class StepFigures(TypedDict):
    """Means over the stored rollouts of one step."""

    step: int
    n: int
    reward: float
    parts: dict[str, float]
    spread: float  # mean standard deviation of rewards within groups
    iou: float  # of boxes with the true boxes; 0 without a box
    correct: float  # share with an IoU of at least 0.5
    unparsed: float
    truncated: float
    tokens: float
    entropy: float  # in nats per token
    distinct: float  # distinct texts, as a share


class RolloutFigures(TypedDict):
    """The steps of a run, and a verdict for each signature; see ``kvg.evaluation.diagnostics.signatures``."""

    steps: list[StepFigures]
    verdicts: dict[str, str]


def overlaps(records: Sequence[RolloutRecord]) -> list[float]:
    """IoU of each predicted box with the true one; 0 without a box."""
    boxes, targets = [record.box for record in records], [record.target for record in records]
    values: list[float] = iou(box_rows(boxes), box_rows(targets)).tolist()
    return values


def rollout_figures(records: Sequence[RolloutRecord], seed: int) -> RolloutFigures:
    """Figures of each step, and the verdicts over the first and the last third of the steps.

    Args:
        records: of one run, by step.
        seed: of the intervals.
    """
    by_record = dict(zip(map(id, records), overlaps(records), strict=True))
    by_step: dict[int, list[RolloutRecord]] = {}
    for record in records:
        by_step.setdefault(record.step, []).append(record)
    steps = sorted(by_step)
    third = max(1, len(steps) // 3)
    first = [record for step in steps[:third] for record in by_step[step]]
    last = [record for step in steps[-third:] for record in by_step[step]]
    verdicts = {f"reward component {name}": _component(name, records, last) for name in records[0].parts}

    def iou_of(record: RolloutRecord) -> float:
        return by_record[id(record)]

    one_step = "not measurable: there is one step"
    verdicts["reward and IoU"] = _hacked(first, last, iou_of, seed) if len(steps) > 1 else one_step
    verdicts["answers"] = _answers(last)
    return RolloutFigures(steps=[_step(by_step[step], iou_of) for step in steps], verdicts=verdicts)


def _step(records: Sequence[RolloutRecord], iou_of: Value) -> StepFigures:
    def mean(value: Value) -> float:
        return math.fsum(map(value, records)) / len(records)

    groups: dict[tuple[int, int], list[float]] = {}
    for record in records:
        groups.setdefault((record.rank, record.prompt), []).append(record.reward)
    spreads = [float(torch.tensor(rewards).std()) if len(rewards) > 1 else 0.0 for rewards in groups.values()]
    return StepFigures(
        step=records[0].step,
        n=len(records),
        reward=mean(lambda r: r.reward),
        parts={name: mean(lambda r, name=name: r.parts.get(name, 0.0)) for name in records[0].parts},  # type: ignore[misc]
        spread=math.fsum(spreads) / len(spreads),
        iou=mean(iou_of),
        correct=mean(lambda r: iou_of(r) >= _THRESHOLD),
        unparsed=mean(lambda r: r.box is None),
        truncated=mean(lambda r: r.finish_reason == "length"),
        tokens=mean(lambda r: r.num_tokens),
        entropy=mean(lambda r: r.entropy),
        distinct=len({r.text for r in records}) / len(records),
    )


def _component(name: str, records: Sequence[RolloutRecord], last: Sequence[RolloutRecord]) -> str:
    if len(last) < FEWEST:
        return f"not measurable: fewer than {FEWEST} rollouts in the last steps"
    value, num = Counter(round(record.parts.get(name, 0.0), 6) for record in last).most_common(1)[0]
    if num < EQUAL * len(last):
        return "no sign"
    values = [record.parts.get(name, 0.0) for record in records]
    where = f"{value:g} in {num / len(last):.0%} of the last {len(last)} rollouts"
    if min(values) < value and value >= max(values) - 1e-6:
        return f"not measurable: {where}, its highest value, so that nothing is left to learn from it"
    return f"sign: it is stuck: {where}; it gives no gradient"


def _hacked(first: Sequence[RolloutRecord], last: Sequence[RolloutRecord], iou_of: Value, seed: int) -> str:
    if min(len(first), len(last)) < FEWEST:
        return f"not measurable: fewer than {FEWEST} rollouts in the first or the last steps"
    reward = difference(_mean(last, lambda r: r.reward, seed), _mean(first, lambda r: r.reward, seed))
    overlap = difference(_mean(last, iou_of, seed), _mean(first, iou_of, seed))
    if reward["low"] <= 0 or overlap["low"] > 0:
        return "no sign"
    text = f"the reward rose by {_interval(reward)}, the IoU of the boxes did not: {_interval(overlap, '+')}"
    return f"sign: {text}; sort by reward and read the best answers"


def _answers(last: Sequence[RolloutRecord]) -> str:
    if len(last) < FEWEST:
        return f"not measurable: fewer than {FEWEST} rollouts in the last steps"
    unparsed = sum(record.box is None for record in last) / len(last)
    if unparsed > MAX_UNPARSED:
        return f"sign: {unparsed:.0%} of the last {len(last)} rollouts have no box"
    boxes = Counter(tuple(map(round, record.box)) for record in last if record.box is not None)
    box, num = boxes.most_common(1)[0]
    targets = {record.target for record in last if record.box is not None and tuple(map(round, record.box)) == box}
    if num > SAME_BOX * len(last) and len(targets) > 1:
        return f"sign: {num / len(last):.0%} of the last {len(last)} rollouts have the same box {box}"
    return "no sign"


def _mean(records: Sequence[RolloutRecord], value: Value, seed: int) -> Estimate:
    values = [value(record) for record in records]
    low, high = bootstrap_interval(values, seed, clusters=[record.key for record in records])
    return Estimate(n=len(values), value=math.fsum(values) / len(values), low=low, high=high)


def _interval(estimate: Estimate, sign: str = "") -> str:
    value, low, high = (f"{estimate[name]:{sign}.3f}" for name in ("value", "low", "high"))  # type: ignore[literal-required]
    return f"{value} ({low} to {high})"
