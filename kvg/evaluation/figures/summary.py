"""The main figures of an evaluation, by log key."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kvg.evaluation.records.prediction import Prediction


def summary(cases: Sequence[Prediction]) -> dict[str, float]:
    """Accuracy, mean IoU and share of unparsed answers: over all cases, and by split, knowledge and category.

    With several sets, keys start with the set's name. Cases on corrupted pictures have the prefix ``KIND-STRENGTH``.

    Returns:
        ``iou_acc``, ``mean_iou``, ``unparsed`` (0-1) and ``n``, then ``iou_acc/seen`` and so on. Multiple-choice
        questions have ``choice_acc`` instead of the first two. Categories are those of the cases.
    """
    several = len({case.set for case in cases}) > 1
    parts: dict[str, list[Prediction]] = {}
    for case in cases:
        corruption = f"{case.artifact}-{case.strength}/" if case.artifact else ""
        parts.setdefault(f"{case.set}/{corruption}" if several else corruption, []).append(case)
    return {f"{prefix}{name}": value for prefix, members in parts.items() for name, value in _figures(members).items()}


def _figures(cases: Sequence[Prediction]) -> dict[str, float]:
    groups: dict[str, list[Prediction]] = {"": list(cases)}
    for case in cases:
        for value in dict.fromkeys((case.split, case.knowledge, case.category)):
            if value:
                groups.setdefault(f"/{value}", []).append(case)
    figures: dict[str, float] = {}
    for group, members in groups.items():
        boxes = [case for case in members if not case.is_choice and case.has_truth]
        for kind, some in (("iou", boxes), ("", [case for case in members if case.is_choice])):
            if not some:
                continue
            name = "iou_acc" if kind else "choice_acc"
            figures[f"{name}{group}"] = _mean(case.correct for case in some)
            if kind:
                figures[f"mean_iou{group}"] = _mean(case.iou for case in some)
        figures[f"unparsed{group}"] = _mean(not case.answered for case in members)
        figures[f"n{group}"] = float(len(members))
        if num := sum(not case.has_truth for case in members):
            figures[f"no_true_box{group}"] = float(num)
    return figures


def _mean(values: Iterable[float]) -> float:
    known = list(values)
    return sum(known) / len(known)
