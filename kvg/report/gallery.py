"""Which cases are shown: successes and failures of each stage, from as many categories as there are."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from kvg.report.cases import Case


def pick(
    cases: Mapping[str, Sequence[Case]], shown: Collection[str], per_verdict: Mapping[str, int], seed: int
) -> dict[str, list[Case]]:
    """Chooses cases for every stage.

    Args:
        cases: by stage.
        shown: keys whose picture is at hand.
        per_verdict: by stage, how many right answers and how many wrong ones.
        seed: another seed, other cases.

    Returns:
        By stage, the right answers before the wrong ones. No key comes twice while there are others.
    """
    used: set[str] = set()
    found = {}
    for stage, answered in cases.items():
        rng = random.Random(f"{seed}/{stage}")
        here = [case for case in answered if case.key in shown]
        num = per_verdict.get(stage, 0)
        chosen = [
            case
            for verdict in (True, False)
            for case in _diverse([c for c in here if c.right == verdict], num, used, rng)
        ]
        used.update(case.key for case in chosen)
        found[stage] = chosen
    return found


def _diverse(cases: list[Case], num: int, used: set[str], rng: random.Random) -> list[Case]:
    """The least shown category first; at most one answer without a box, which has nothing to be drawn."""
    order = rng.sample(cases, len(cases))
    categories, splits = Counter[str](), Counter[str]()
    chosen: list[Case] = []
    num_boxless = 0
    while order and len(chosen) < num:
        best = min(
            order,
            key=lambda c: (
                c.key in used,
                c.box_px is None and num_boxless > 0,
                categories[c.category],
                splits[f"{c.split}/{c.knowledge}"],
            ),
        )
        order.remove(best)
        chosen.append(best)
        categories[best.category] += 1
        splits[f"{best.split}/{best.knowledge}"] += 1
        num_boxless += best.box_px is None
    return chosen
