"""Titles and colours of runs, the same everywhere on a page."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

# The method's stages; runs with these names get full titles, fixed colours, and meaningful default pairs.
STAGES: Final = {
    "base": "Base",
    "direct_sft": "Direct SFT",
    "cot_sft": "CoT-SFT",
    "cot_sft_grpo": "CoT-SFT + GRPO",
}
# Each pair answers a question: does stage 1 help, do rationales help, does stage 2 help.
PAIRS: Final = (("base", "cot_sft"), ("direct_sft", "cot_sft"), ("cot_sft", "cot_sft_grpo"))
_STAGE_HUES: Final = {"base": 0, "direct_sft": 1, "cot_sft": 2, "cot_sft_grpo": 3}
_NUM_HUES: Final = 8  # of style.css; the first is grey and comes last


@dataclass(frozen=True)
class RunStyle:
    """A run on the page: its name, its displayed title, and its CSS colour."""

    name: str
    title: str
    colour: str


def looks(names: Iterable[str]) -> dict[str, RunStyle]:
    """Styles of runs, in order; with more than eight runs colours repeat.

    >>> [(look.title, look.colour) for look in looks(["base", "seed 1", "seed 2"]).values()]
    [('Base', 'var(--hue0)'), ('seed 1', 'var(--hue1)'), ('seed 2', 'var(--hue2)')]
    """
    names = list(dict.fromkeys(names))
    taken = {_STAGE_HUES[name] for name in names if name in _STAGE_HUES}
    free = [hue for hue in (*range(1, _NUM_HUES), 0) if hue not in taken] or list(range(_NUM_HUES))
    styles: dict[str, RunStyle] = {}
    num_own = 0
    for name in names:
        hue = _STAGE_HUES.get(name)
        if hue is None:
            hue = free[num_own % len(free)]
            num_own += 1
        styles[name] = RunStyle(name, STAGES.get(name, name), f"var(--hue{hue})")
    return styles
