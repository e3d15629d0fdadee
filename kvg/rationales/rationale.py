"""Writes rationales in the paper's four parts: planning, visual analysis, comparison, conclusion (v3, figure 6)."""

from __future__ import annotations

from typing import Protocol

from kvg.errors import DataError
from kvg.types import Sample, SceneObject


class RationaleWriter(Protocol):
    """Writes the reasoning that leads to the target."""

    def write(self, sample: Sample) -> str:
        """Writes a rationale.

        Args:
            sample: a sample; its ``rationale`` is not used.

        Returns:
            A template: ``<box:N>`` stands for the box of object N, counted from 0.

        Raises:
            DataError: the sample does not distinguish its objects.
        """


class CardWriter:
    """Writes rationales from the traits of entities, without a teacher model.

    If every object has traits, the rationale recalls those of the target, and names for each other object the first
    trait that the target does not have. Otherwise it distinguishes objects by their names. Objects are numbered from 1,
    in the order of the sample. The comparison begins with the target, so that the model has to decide only once; with
    verdicts in order, every single one would have to be correct.

    Args:
        min_facts: minimum number of traits of every object.

    >>> from kvg.types import SceneObject
    >>> stilt = SceneObject("Stilt", (0, 0, 9, 9), ("white", "plain"))
    >>> avocet = SceneObject("Avocet", (9, 0, 18, 9), ("white", "spots"))
    >>> CardWriter().write(Sample("k", b"", 18, 9, "bird", "seen", (stilt, avocet), 1))
    'Plan: the Avocet is white, spots. Look: 1 <box:0> white, plain; 2 <box:1> white, spots. \
Compare: <box:1> yes; 1 no, plain. Conclusion: object 2.'
    """

    def __init__(self, min_facts: int = 0) -> None:
        self._min_facts = min_facts

    def write(self, sample: Sample) -> str:
        """See ``RationaleWriter``."""
        for item in sample.objects if self._min_facts else ():
            if (num := len(item.traits)) < self._min_facts:
                remedy = f"{item.entity} has {num}, min_facts is {self._min_facts}; add some"
                raise DataError(f"sample {sample.key}", "facts", remedy)
        described = all(item.traits for item in sample.objects)
        looks = [item.description if described else item.entity for item in sample.objects]
        wanted = looks[sample.target]
        plan = f"the {sample.entity} is {wanted}" if described else f"find the {wanted} among {len(looks)}"
        look = "; ".join(f"{i} <box:{i - 1}> {words}" for i, words in enumerate(looks, 1))
        verdicts = [f"<box:{sample.target}> yes"]
        for i, words in enumerate(looks):
            if i == sample.target:
                continue
            difference = _first_difference(sample.objects[i], sample.objects[sample.target]) if described else words
            if not difference or words == wanted:
                remedy = f"object {i + 1} is described like the {sample.entity}; tell them apart"
                raise DataError(f"sample {sample.key}", "note", remedy)
            verdicts.append(f"{i + 1} no, {difference}")
        compare = "; ".join(verdicts)
        return f"Plan: {plan}. Look: {look}. Compare: {compare}. Conclusion: object {sample.target + 1}."


def _first_difference(item: SceneObject, wanted: SceneObject) -> str:
    """Returns the first trait of an object that the target does not have; '' if there is none."""
    return next((trait for trait in item.traits if trait not in wanted.traits), "")
