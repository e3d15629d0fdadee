"""The facts about the photographs, checked alone: nothing is fetched."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from kvg.config.settings import read_yaml
from kvg.pipeline.settings.project import load_project

HERE = Path(__file__).parent
FACTS = read_yaml(HERE / "facts.yaml")
ROWS = list(csv.DictReader((HERE / "pictures.csv").read_text("utf-8").splitlines()))
CATEGORIES = {row["entity"]: row["category"] for row in ROWS}


def traits(entity: str) -> list[str]:
    return FACTS[entity].split(", ")


def test_every_entity_has_facts_and_every_fact_an_entity():
    assert set(FACTS) == set(CATEGORIES)
    assert all(isinstance(name, str) and isinstance(looks, str) for name, looks in FACTS.items())


def test_there_are_enough_of_them():
    nums = Counter(CATEGORIES.values())
    assert sum(nums.values()) >= 500
    assert len(nums) == 20
    assert min(nums.values()) >= 5  # a composite needs several of one category


def test_an_entity_belongs_to_one_category():
    assert len({(row["entity"], row["category"]) for row in ROWS}) == len(CATEGORIES)


@pytest.mark.parametrize("category", sorted(set(CATEGORIES.values())))
def test_each_entity_has_three_to_six_short_traits(category):
    for entity in (name for name, its in CATEGORIES.items() if its == category):
        assert 3 <= len(traits(entity)) <= 6, entity
        assert len(set(traits(entity))) == len(traits(entity)), entity
        for trait in traits(entity):
            assert len(trait) <= 60, (entity, trait)
            assert 2 <= len(trait.split()) <= 6, (entity, trait)
            assert trait == trait.strip(" .;,"), (entity, trait)


@pytest.mark.parametrize("category", sorted(set(CATEGORIES.values())))
def test_no_two_of_a_category_look_alike(category):
    alike, first = defaultdict(list), defaultdict(list)
    for entity in (name for name, its in CATEGORIES.items() if its == category):
        alike[frozenset(traits(entity))].append(entity)
        first[traits(entity)[0]].append(entity)
    assert not [names for names in (*alike.values(), *first.values()) if len(names) > 1]


def test_a_picture_is_listed_once_and_boxes_are_boxes():
    assert len({row["picture"] for row in ROWS}) == len(ROWS)
    for row in ROWS:
        corners = [row[name] for name in ("x1", "y1", "x2", "y2")]
        if any(corners):
            x1, y1, x2, y2 = map(int, corners)
            assert 0 <= x1 < x2, row
            assert 0 <= y1 < y2, row


def test_the_project_names_categories_that_there_are():
    project = load_project(HERE / "project.yaml")
    assert set(project.splits.unseen) < set(CATEGORIES.values())
