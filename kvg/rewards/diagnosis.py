"""Why stage 2 learns nothing: what its numbers and its start say about rewards that are all alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# Below this a part of the reward is as good as never paid; above the other, as good as always.
_NEVER, _ALWAYS = 0.02, 0.95
_MANY, _SOME = 0.5, 0.1  # shares of answers that are worth a word
_COOL = 0.3  # sampling temperatures below it hardly vary


@dataclass(frozen=True)
class Start:
    """What a run of stage 2 started from, and how it samples.

    Attributes:
        checkpoint: of the backbone.
        trained_mode: prompt mode that its export names; None where no stage 1 of this project wrote it.
        mode: prompt mode of the run; None where the data has none.
        pixels: smallest and largest area of a picture in this run.
        stored_pixels: the same in the checkpoint.
        max_new_tokens: longest completion.
        group_size: completions of a prompt.
        temperature: of sampling.
    """

    checkpoint: str
    trained_mode: str | None
    mode: str | None
    pixels: tuple[int, int]
    stored_pixels: tuple[int, int]
    max_new_tokens: int
    group_size: int
    temperature: float


def likely_causes(means: Mapping[str, float], start: Start | None = None) -> list[str]:
    """Names what may have made the rewards of all groups alike, the likeliest first.

    Args:
        means: of the steps looked at, by name: ``unparsed`` and ``truncated`` (shares of answers), ``reward/PART``.
        start: where it is known.

    >>> likely_causes({"unparsed": 1.0, "truncated": 0.0, "reward/iou": 0.0})
    ['100% of the answers hold no box']
    """
    causes = _of_start(start) if start else []
    unparsed, truncated = means.get("unparsed", 0.0), means.get("truncated", 0.0)
    if truncated >= _SOME:
        limit = f" at {start.max_new_tokens} tokens" if start else ""
        causes.append(f"{truncated:.0%} of the answers are cut off{limit}: raise model.max_new_tokens")
    if unparsed >= _SOME:
        causes.append(f"{unparsed:.0%} of the answers hold no box")
    if means.get("reward/format", 1.0) < _NEVER:
        mode = f" that mode '{start.mode}' asks for" if start and start.mode else ""
        causes.append(f"the format part is {means['reward/format']:.2f}: answers are not in the form{mode}")
    if means.get("reward/iou", 1.0) < _NEVER and unparsed < _MANY:
        part = f"the box part is {means['reward/iou']:.2f}"
        causes.append(f"{part} although boxes are answered: they miss, or iou_threshold is too high")
    if means.get("reward/iou", 0.0) > _ALWAYS:
        causes.append(f"the box part is {means['reward/iou']:.2f}: the prompts are too easy, see kvg-data filter")
    return causes


def _of_start(start: Start) -> list[str]:
    causes = []
    if start.group_size == 1:
        causes.append("model.group_size is 1: there is nothing to compare an answer with")
    if start.trained_mode is None:
        causes.append(f"the run started from {start.checkpoint}, which no stage 1 wrote: give the export of one")
    elif start.mode is not None and start.mode != start.trained_mode:
        causes.append(f"{start.checkpoint} was trained in mode '{start.trained_mode}', and is asked in '{start.mode}'")
    if start.trained_mode is not None and start.pixels != start.stored_pixels:
        given, stored = ("-".join(map(str, pair)) for pair in (start.pixels, start.stored_pixels))
        causes.append(f"pictures have {given} pixels, {start.checkpoint} saw {stored}: set max_pixels to null")
    if start.temperature < _COOL:
        causes.append(f"temperature {start.temperature} makes the answers to a prompt alike")
    return causes


def nothing_learnt(means: Mapping[str, float], period: str, start: Start | None = None) -> str:
    """A warning for a period in which groups of rewards were alike.

    Args:
        means: see ``likely_causes``; with ``reward/total`` and ``equal_groups`` too where they are known.
        period: such as "over 20 steps".
        start: where it is known.

    >>> means = {"reward/total": 0.0, "equal_groups": 1.0, "unparsed": 1.0}
    >>> nothing_learnt(means, "over 20 steps")  # doctest: +ELLIPSIS
    'nothing was learnt over 20 steps: mean reward 0.00, 100% of the groups have equal rewards; likely causes: ...'
    """
    numbers = []
    if "reward/total" in means:
        numbers.append(f"mean reward {means['reward/total']:.2f}")
    if "equal_groups" in means:
        numbers.append(f"{means['equal_groups']:.0%} of the groups have equal rewards")
    causes = likely_causes(means, start) or ["none that these numbers show; look at the answers under BoxPictures"]
    detail = f": {', '.join(numbers)}" if numbers else ""
    return f"nothing was learnt {period}{detail}; likely causes: {'; '.join(causes)}"
