"""Rationales that are wrong or empty on purpose, to find out what a rationale must contain to be worth training on.

Each variant changes the right rationale of the card writer. The box of the answer is never changed.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from kvg.errors import ConfigError
from kvg.rationales.rationale import CardWriter
from kvg.types import Sample

FILLER: Final = "so"
NO_THOUGHT: Final = "no thought"
_BOX: Final = re.compile(r"<box:\d+>")
_WORDS_OF_A_BOX: Final = 13  # tokens of a box in the lab: the filler is as long as what it stands for
_DROPPED: Final = 0.5
Writer = Callable[[Sample, random.Random], str]


def right(sample: Sample, rng: random.Random) -> str:
    """Returns the right rationale."""
    return CardWriter().write(sample)


def other_entity(sample: Sample, rng: random.Random) -> str:
    """Returns the rationale for another object on the picture, under the name of the target.

    A picture with a single object keeps its right rationale.
    """
    others = [n for n in range(len(sample.objects)) if n != sample.target]
    if not others:
        return right(sample, rng)
    other = rng.choice(others)
    objects = list(sample.objects)
    objects[other] = replace(objects[other], entity=sample.entity)
    return CardWriter().write(replace(sample, objects=tuple(objects), target=other))


def no_traits(sample: Sample, rng: random.Random) -> str:
    """Returns the rationale without the words of any trait: objects, verdicts and conclusion are left."""
    look = "; ".join(f"{n} <box:{n - 1}>" for n in range(1, len(sample.objects) + 1))
    verdicts = [f"<box:{sample.target}> yes"]
    verdicts += [f"{n} no" for n in range(1, len(sample.objects) + 1) if n != sample.target + 1]
    compare, number = "; ".join(verdicts), sample.target + 1
    return f"Plan: the {sample.entity}. Look: {look}. Compare: {compare}. Conclusion: object {number}."


def filler(sample: Sample, rng: random.Random) -> str:
    """Returns one word repeated as often as the right rationale has words."""
    text = _BOX.sub(" ".join([FILLER] * _WORDS_OF_A_BOX), right(sample, rng))
    return " ".join([FILLER] * len(text.split()))


def dropped(sample: Sample, rng: random.Random) -> str:
    """Returns the right rationale, or in half of the samples that there is none (thought dropout, arXiv 2505.16854)."""
    return NO_THOUGHT if rng.random() < _DROPPED else right(sample, rng)


def nothing(sample: Sample, rng: random.Random) -> str:
    """Returns that there is no rationale."""
    return NO_THOUGHT


RIGHT, SHUFFLED = "right", "shuffled"
VARIANTS: Final[dict[str, Writer]] = {
    RIGHT: right,
    "other_entity": other_entity,
    "no_traits": no_traits,
    "filler": filler,
    "dropped": dropped,
    "none": nothing,
}


def check_variant(name: str) -> None:
    """Checks the name of a variant.

    Raises:
        ConfigError: it is unknown.
    """
    if name not in (*VARIANTS, SHUFFLED):
        raise ConfigError("rationalize.variant", f"'{name}' is none of {', '.join((*VARIANTS, SHUFFLED))}")


def rationales(samples: Sequence[Sample], variant: str, seed: int) -> list[str]:
    """Writes the rationales of samples.

    ``shuffled`` gives each sample the right rationale of another one with as many objects, so that its boxes exist. Of
    a number of objects that occurs once, the rationale stays.

    Args:
        samples: the samples of one shard.
        variant: a key of ``VARIANTS``, or ``shuffled``.
        seed: decides all choices, together with the keys of the samples.

    Raises:
        ConfigError: the variant is unknown.
        DataError: a sample does not distinguish its objects.
    """
    check_variant(variant)
    if variant != SHUFFLED:
        return [VARIANTS[variant](sample, random.Random(f"{seed}/{sample.key}")) for sample in samples]
    texts = [right(sample, random.Random(0)) for sample in samples]
    by_number: dict[int, list[int]] = {}
    for n, sample in enumerate(samples):
        by_number.setdefault(len(sample.objects), []).append(n)
    shuffled = list(texts)
    for places in by_number.values():
        order = list(places)
        random.Random(f"{seed}/{samples[places[0]].key}").shuffle(order)
        for place, source in zip(order, [*order[1:], order[0]], strict=True):  # one cycle: nobody keeps its own
            shuffled[place] = texts[source]
    return shuffled
