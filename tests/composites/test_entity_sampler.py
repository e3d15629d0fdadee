"""Who is drawn: the company that an entity keeps says nothing of whether it is the one asked for."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from kvg.composites.entity_sampler import EntitySampler
from kvg.composites.sources import EntityInfo
from kvg.lab.world import LabSource


class Star:
    """One entity that resembles all others, which do not resemble each other."""

    def categories(self):
        return ("star", "rest")

    def entities(self, category):
        return ("Hub", "A", "B", "C", "D") if category == "star" else ("X", "Y")

    def neighbours(self, entity):
        return ("A", "B", "C", "D") if entity == "Hub" else ("Hub",) if entity in "ABCD" else ()

    def info(self, entity):
        return EntityInfo("rest" if entity in "XY" else "star", "seen")

    def tile(self, entity, rng):
        raise NotImplementedError


@pytest.mark.parametrize("num", [2, 3, 4])
def test_each_entity_of_a_picture_is_asked_for_alike(num):
    sampler, asked, there = EntitySampler(Star(), 0.7, ["star"], None, None), Counter(), Counter()
    for seed in range(6000):
        _, entities, target = sampler.draw(num, random.Random(seed))
        assert len(set(entities)) == num
        asked[target] += 1
        there.update(entities)
    for entity, times in there.items():
        # Four deviations of a count that is right with chance 1 / num each time.
        assert abs(asked[entity] - times / num) < 4 * (times * (1 / num) * (1 - 1 / num)) ** 0.5
    assert there["Hub"] > 1.3 * there["A"]  # it is there more often, and asked for more often, in the same proportion


def test_in_the_lab_neither_names_nor_resemblance_tell_who_is_asked_for():
    source = LabSource()
    sampler, won, expected, square = EntitySampler(source, 0.8, None, None, None), 0.0, 0.0, 0.0
    neighbours = {e: set(source.neighbours(e)) for c in source.categories() for e in source.entities(c)}
    for seed in range(4000):
        rng = random.Random(f"cast/{seed}")
        _, entities, target = sampler.draw(rng.choice((2, 3, 4)), rng)
        alike = {e: len(neighbours[e] & set(entities)) for e in entities}
        most = [e for e in entities if alike[e] == max(alike.values())]
        won += (target in most) / len(most)
        expected += 1 / len(entities)
        square += (1 / len(entities)) * (1 - 1 / len(entities))
    assert abs(won - expected) < 4 * square**0.5  # drawn around the one asked for it would be 0.50 instead of 0.36


def test_restricted_targets_are_there_and_asked_for():
    sampler = EntitySampler(Star(), 0.5, None, None, ["A", "B"])
    drawn = [sampler.draw(3, random.Random(seed)) for seed in range(300)]
    assert {target for _, _, target in drawn} == {"A", "B"}
    assert {entity for _, entities, _ in drawn for entity in entities} == {"Hub", "A", "B", "C", "D"}


def test_strangers_come_from_other_categories_that_may_be_asked_for():
    sampler = EntitySampler(Star(), 0.5, None, None, None)
    assert {sampler.other_category_entity("star", random.Random(s)) for s in range(30)} == {"X", "Y"}
    assert EntitySampler(Star(), 0.5, ["star"], None, None).other_category_entity("star", random.Random(0)) is None


def test_a_category_that_is_too_small_gives_what_it_has():
    sampler = EntitySampler(Star(), 0.5, ["rest"], None, None)
    assert sorted(sampler.draw(6, random.Random(0))[1]) == ["X", "Y"]
