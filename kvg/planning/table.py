"""A plan as text."""

from __future__ import annotations

from kvg.planning.parts import Part
from kvg.planning.plan import CARDS, GB, Plan

PHASES = ("sample", "score", "learn", "step", "validate")


def table(plan: Plan, card: float = 80) -> list[str]:
    """Lines with the peak of each phase by part, in GB of 1e9 bytes.

    Args:
        plan: what is shown.
        card: GB of the GPUs, on which it depends how FSDP2 samples.
    """
    training, lengths = plan.training, plan.lengths
    phases = plan.phases(card)
    names = [name for name in PHASES if name in phases]
    total, trained = (count / GB for count in plan.parameters)
    where = "process" if training.device == "cpu" else "GPU"
    head = f"{plan.size.name}: {total:.2f} billion parameters, {trained:.3g} billion trained"
    own = f"{training.processes} x {where}, {training.strategy}, {training.precision}"
    kind = f"prompts of {lengths.prompt} tokens ({lengths.picture} of a picture), completions of {lengths.completion}"
    lines = [head, f"{own}; {kind}", f"{f'GB of each {where}':<20}" + "".join(f"{name:>10}" for name in names)]
    for part in Part:
        sizes = [phases[name][part] / GB for name in names]
        if any(size >= _least(plan) for size in sizes):
            lines.append(f"{part.value:<20}" + "".join(f"{_number(size):>10}" for size in sizes))
    sums = [sum(phases[name].values()) / GB for name in names]
    lines.append(f"{'total':<20}" + "".join(f"{_number(size):>10}" for size in sums))
    return lines


def verdicts(plan: Plan, cards: tuple[float, ...] = CARDS) -> list[str]:
    """For each card a line: whether the training fits, or the first change that makes it fit."""
    lines = []
    for card in cards:
        total = plan.total(card)
        if total <= card * GB:
            lines.append(f"fits {card:g} GB ({_number(total / GB)})")
            continue
        advice = plan.advice(card)
        change = (
            "no single change here makes it fit" if advice is None else f"{advice[0]}: about {_number(advice[1] / GB)}"
        )
        lines.append(f"does not fit {card:g} GB ({_number(total / GB)}); {change}")
    return lines


def _number(size: float) -> str:
    return f"{size:.1f}" if size >= 1 else f"{size:.3f}"


def _least(plan: Plan) -> float:
    """Parts below a thousandth of the whole are left out."""
    return max(sum(parts.values()) for phases in plan.ways.values() for parts in phases.values()) / GB / 1000
