from __future__ import annotations

import pytest

from kvg.errors import DataError
from kvg.rationales.rationale import CardWriter
from kvg.types import Sample, SceneObject, traits_of


def sample(target, *objects):
    scene = tuple(SceneObject(name, (0, 0, 1, 1), traits_of(text)) for name, text in objects)
    return Sample("k", b"", 9, 9, "bird", "seen", scene, target)


def test_four_parts_from_the_cards():
    scene = sample(
        1,
        ("Snowy Egret", "white, plain, long neck, slim"),
        ("Flamingo", "pink, plain, long neck, slim"),
        ("Spoonbill", "pink, plain, big beak, broad"),
    )
    assert CardWriter().write(scene) == (
        "Plan: the Flamingo is pink, plain, long neck, slim. "
        "Look: 1 <box:0> white, plain, long neck, slim; 2 <box:1> pink, plain, long neck, slim; "
        "3 <box:2> pink, plain, big beak, broad. "
        "Compare: <box:1> yes; 1 no, white; 3 no, big beak. "
        "Conclusion: object 2."
    )


def test_without_notes_names_tell_them_apart():
    scene = sample(0, ("Boeing 737", ""), ("Boeing 747", "white, four engines"))
    assert CardWriter().write(scene) == (
        "Plan: find the Boeing 737 among 2. Look: 1 <box:0> Boeing 737; 2 <box:1> Boeing 747. "
        "Compare: <box:0> yes; 2 no, Boeing 747. Conclusion: object 1."
    )


def test_objects_described_alike_are_refused():
    with pytest.raises(DataError, match="sample k: note: object 2 is described like the A"):
        CardWriter().write(sample(0, ("A", "red, plain"), ("B", "red, plain")))


def test_a_trait_more_is_a_difference():
    scene = sample(0, ("A", "red"), ("B", "red, spots"))
    assert "2 no, spots" in CardWriter().write(scene)


@pytest.mark.parametrize(("min_facts", "good"), [(0, True), (1, True), (2, True), (3, False)])
def test_every_object_needs_as_many_facts_as_are_asked_for(min_facts, good):
    notes = ("grey back, white spots", "red legs, long bill, small")
    things = tuple(SceneObject(name, (0, 0, 9, 9), traits_of(note)) for name, note in zip("AB", notes, strict=True))
    sample = Sample("k", b"", 9, 9, "bird", "seen", things, 1)
    if good:
        assert CardWriter(min_facts).write(sample).startswith("Plan: the B is red legs")
    else:
        with pytest.raises(DataError, match="sample k: facts: A has 2, min_facts is 3; add some"):
            CardWriter(min_facts).write(sample)


def test_objects_without_facts_are_named_or_refused():
    things = (SceneObject("A", (0, 0, 9, 9), ("red",)), SceneObject("B", (0, 0, 9, 9)))
    sample = Sample("k", b"", 9, 9, "bird", "seen", things, 0)
    assert CardWriter().write(sample).startswith("Plan: find the A among 2.")
    with pytest.raises(DataError, match="facts: B has 0, min_facts is 1"):
        CardWriter(1).write(sample)
