"""Rationales that are changed on purpose, by hand."""

from __future__ import annotations

import dataclasses

import pytest

from kvg.errors import ConfigError
from kvg.rationales.variants import NO_THOUGHT, rationales
from kvg.types import Sample, SceneObject

STILT = SceneObject("Stilt", (0, 0, 9, 9), ("white", "plain"))
AVOCET = SceneObject("Avocet", (9, 0, 18, 9), ("white", "spots"))
SAMPLE = Sample("k", b"", 18, 9, "bird", "seen", (STILT, AVOCET), 1)
RIGHT = (
    "Plan: the Avocet is white, spots. Look: 1 <box:0> white, plain; 2 <box:1> white, spots. "
    "Compare: <box:1> yes; 1 no, plain. Conclusion: object 2."
)


def written(variant: str, *samples: Sample, seed: int = 0) -> list[str]:
    return rationales(samples or [SAMPLE], variant, seed)


def test_each_variant_of_one_sample():
    assert written("right") == [RIGHT]
    assert written("other_entity") == [
        "Plan: the Avocet is white, plain. Look: 1 <box:0> white, plain; 2 <box:1> white, spots. "
        "Compare: <box:0> yes; 2 no, spots. Conclusion: object 1."
    ]
    assert written("no_traits") == [
        "Plan: the Avocet. Look: 1 <box:0>; 2 <box:1>. Compare: <box:1> yes; 1 no. Conclusion: object 2."
    ]
    assert written("none") == [NO_THOUGHT]
    [filler] = written("filler")
    assert set(filler.split()) == {"so"}
    assert len(filler.split()) == len(RIGHT.split()) + 3 * 12  # three boxes of 13 words


def test_half_of_the_thoughts_are_dropped():
    samples = [dataclasses.replace(SAMPLE, key=f"k{n}") for n in range(200)]
    texts = written("dropped", *samples)
    assert {*texts} == {RIGHT, NO_THOUGHT}
    assert 70 < texts.count(NO_THOUGHT) < 130
    assert texts == written("dropped", *samples)
    assert texts != written("dropped", *samples, seed=1)


def test_shuffled_rationales_have_as_many_objects_and_never_stay():
    def numbered(n: int, objects=(STILT, AVOCET)) -> Sample:
        named = (*objects[:-1], dataclasses.replace(objects[-1], entity=f"Bird {n}"))
        return dataclasses.replace(SAMPLE, key=f"k{n}", objects=named, target=len(named) - 1)

    three = (STILT, dataclasses.replace(STILT, entity="Ruff", traits=("red", "plain")), AVOCET)
    samples = [numbered(0), numbered(1), numbered(2), numbered(3, three)]
    texts = written("shuffled", *samples)
    assert sorted(texts) == sorted(written("right", *samples))
    assert all(sample.entity not in text for sample, text in zip(samples[:3], texts[:3], strict=True))
    assert texts[3] == written("right", samples[3])[0]  # no other has three objects


def test_a_single_object_keeps_its_rationale_and_an_unknown_variant_is_refused():
    alone = dataclasses.replace(SAMPLE, objects=(AVOCET,), target=0)
    assert written("other_entity", alone) == written("right", alone)
    with pytest.raises(ConfigError, match="'upside_down' is none of right"):
        written("upside_down")
