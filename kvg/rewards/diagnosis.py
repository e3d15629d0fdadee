"""Likely causes of equal rewards within groups, which give no gradient in stage 2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# Means below the first count as "never rewarded", above the second as "always rewarded".
_NEVER, _ALWAYS = 0.02, 0.95
_MANY, _SOME = 0.5, 0.1  # shares of answers from which on a cause is reported
_LOW_TEMPERATURE = 0.3  # below it completions hardly vary


@dataclass(frozen=True)
class Start:
    """Initial checkpoint and sampling settings of a stage-2 run.

    Attributes:
        checkpoint: of the backbone.
        trained_mode: prompt mode stored in the export; None if no stage 1 of this project wrote the checkpoint.
        mode: prompt mode of the run; None if the data has none.
        pixels: smallest and largest area of a picture in this run, in pixels.
        stored_pixels: the same limits in the checkpoint.
        max_new_tokens: longest completion, in tokens.
        group_size: completions per prompt.
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
    """Likely causes of equal rewards within groups, the most likely first.

    Args:
        means: mean log values by name: ``unparsed`` and ``truncated`` (shares of answers), ``reward/PART``.
        start: initial checkpoint and settings, if known.

    >>> likely_causes({"unparsed": 1.0, "truncated": 0.0, "reward/iou": 0.0})
    ['100% of the answers hold no box']
    """
    causes = _of_start(start) if start else []
    unparsed, truncated = means.get("unparsed", 0.0), means.get("truncated", 0.0)
    if truncated >= _SOME:
        limit = f" at {start.max_new_tokens} tokens" if start else ""
        causes.append(f"{truncated:.0%} of the answers are truncated{limit}: raise model.max_new_tokens")
    if unparsed >= _SOME:
        causes.append(f"{unparsed:.0%} of the answers hold no box")
    if means.get("reward/format", 1.0) < _NEVER:
        mode = f" of mode '{start.mode}'" if start and start.mode else ""
        causes.append(f"the format reward is {means['reward/format']:.2f}: answers do not have the format{mode}")
    if means.get("reward/iou", 1.0) < _NEVER and unparsed < _MANY:
        part = f"the IoU reward is {means['reward/iou']:.2f}"
        causes.append(f"{part} although answers hold boxes: the boxes are wrong, or iou_threshold is too high")
    if means.get("reward/iou", 0.0) > _ALWAYS:
        causes.append(f"the IoU reward is {means['reward/iou']:.2f}: the prompts are too easy, see kvg-data filter")
    return causes


def _of_start(start: Start) -> list[str]:
    causes = []
    if start.group_size == 1:
        causes.append("model.group_size is 1: a group needs at least 2 completions")
    if start.trained_mode is None:
        causes.append(f"the run started from {start.checkpoint}, which is not a stage-1 export: start from an export")
    elif start.mode is not None and start.mode != start.trained_mode:
        causes.append(f"{start.checkpoint} was trained in mode '{start.trained_mode}', this run uses '{start.mode}'")
    if start.trained_mode is not None and start.pixels != start.stored_pixels:
        given, stored = ("-".join(map(str, pair)) for pair in (start.pixels, start.stored_pixels))
        trained = f"{start.checkpoint} was trained with {stored}"
        causes.append(f"pictures have {given} pixels, {trained}: set max_pixels to null")
    if start.temperature < _LOW_TEMPERATURE:
        causes.append(f"temperature {start.temperature} is low: the answers to a prompt hardly differ")
    return causes


def nothing_learnt(means: Mapping[str, float], period: str, start: Start | None = None) -> str:
    """The warning for a period in which most groups have equal rewards.

    Args:
        means: see ``likely_causes``; optionally with ``reward/total`` and ``equal_groups``.
        period: for the text, such as "over 20 steps".
        start: initial checkpoint and settings, if known.

    >>> means = {"reward/total": 0.0, "equal_groups": 1.0, "unparsed": 1.0}
    >>> nothing_learnt(means, "over 20 steps")  # doctest: +ELLIPSIS
    'nothing was learnt over 20 steps: mean reward 0.00, 100% of the groups have equal rewards; likely causes: ...'
    """
    numbers = []
    if "reward/total" in means:
        numbers.append(f"mean reward {means['reward/total']:.2f}")
    if "equal_groups" in means:
        numbers.append(f"{means['equal_groups']:.0%} of the groups have equal rewards")
    causes = likely_causes(means, start) or ["unknown; inspect the answers that BoxPictures logs"]
    detail = f": {', '.join(numbers)}" if numbers else ""
    return f"nothing was learnt {period}{detail}; likely causes: {'; '.join(causes)}"
