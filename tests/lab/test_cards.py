"""The lab's entities: what is fixed about them, and what makes them tell apart."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from pathlib import Path

import pytest
import yaml

from kvg.benchmark import CATEGORIES, SEEN_CATEGORIES, UNSEEN_CATEGORIES
from kvg.lab.traits import COLOURS, PARTS, Traits, load_cards, neighbours
from kvg.lab.world import LabSource, TraitSource, change_one, random_traits

CONFIGS = Path(__file__).resolve().parents[2] / "configs/lab"


def test_five_seen_and_five_unseen_categories():
    assert len(SEEN_CATEGORIES) == len(UNSEEN_CATEGORIES) == 5
    assert len(set(CATEGORIES)) == 10
    assert {card.split for card in load_cards() if card.category == "bird"} == {"seen"}
    assert {card.split for card in load_cards() if card.category == "dog"} == {"unseen"}


@pytest.mark.parametrize("category", CATEGORIES)
def test_sixteen_cards_ten_of_them_known_no_two_alike(category):
    cards = [card for card in load_cards() if card.category == category]
    assert Counter(card.knowledge for card in cards) == {"known": 10, "unknown": 6}
    assert len({card.traits for card in cards}) == 16
    assert len({card.traits.text for card in cards}) == 16


def test_names_are_distinct_and_none_is_part_of_another():
    names = [card.name for card in load_cards()]
    assert len(names) == 160
    folded = [name.casefold() for name in names]
    clashes = [(a, b) for a, b in itertools.permutations(folded, 2) if f" {a} " in f" {b} "]
    assert clashes == []


def test_names_hardly_say_how_things_look():
    """A name that holds a trait's word gives a part of the answer away."""
    words = {*COLOURS, *(part for parts in PARTS.values() for part in parts)}
    telling = {c.name for c in load_cards() for w in words if w in c.name.casefold().split() and w in c.traits.text}
    assert telling == set()


def test_every_card_has_a_neighbour_one_trait_away():
    for card in load_cards():
        near = neighbours(card)
        assert near, card.name
        assert all(other.traits.distance(card.traits) == 1 for other in near)
        assert all(other.category == card.category for other in near)


def test_known_and_unknown_look_alike():
    """Knowledge must not show: both kinds use the same words, in every category more than one of each slot."""
    for knowledge in ("known", "unknown"):
        cards = [card for card in load_cards() if card.knowledge == knowledge]
        assert {card.traits.build for card in cards} == {"slim", "medium", "broad"}
        assert len({card.traits.colour for card in cards}) >= 9
        assert len({card.traits.pattern for card in cards}) == 5


def test_traits_in_words_and_their_distance():
    okapi = Traits("mammal", "brown", "stripes", "white", "horns", "medium")
    assert okapi.text == "brown, white stripes, horns, medium"
    plain = Traits("mammal", "brown", "plain", "brown", "horns", "medium")
    assert plain.text == "brown, plain, horns, medium"
    assert okapi.distance(plain) == 1  # pattern and accent are one marking
    assert okapi.distance(Traits("mammal", "black", "stripes", "white", "long tail", "medium")) == 2
    assert okapi.distance(okapi) == 0


def test_random_traits_and_their_siblings():
    rng = random.Random(0)
    for _ in range(300):
        traits = random_traits(rng.choice(CATEGORIES), rng)
        sibling = change_one(traits, rng)
        assert sibling.distance(traits) == 1
        assert sibling.category == traits.category
        for each in (traits, sibling):
            assert (each.pattern == "plain") == (each.accent == each.colour)
            assert each.part in PARTS[each.category]


def test_lab_source_by_category_and_knowledge():
    source = LabSource(categories=["bird", "dog"], knowledge="known")
    assert source.categories() == ("bird", "dog")
    assert len(source.entities("bird")) == len(source.entities("dog")) == 10
    assert source.entities("car") == ()
    info = source.info("Magpie")
    assert (info.category, info.split, info.knowledge) == ("bird", "seen", "known")
    assert info.traits == ("black", "white base", "long tail", "medium")
    assert source.neighbours("Magpie") == ("Toco Toucan",)  # the beak for the tail
    assert "Great Hornbill" in LabSource().neighbours("Toco Toucan")
    assert "Great Hornbill" not in source.neighbours("Toco Toucan")


def test_trait_source_names_nobody():
    source = TraitSource(families=4, siblings=3, variants=1)
    names = [card.name.casefold() for card in load_cards()]
    for category in source.categories():
        entities = source.entities(category)
        assert 4 < len(entities) <= 16
        for entity in entities:
            assert not any(name in entity for name in names)
            assert source.info(entity).knowledge == ""
            own = source.info(entity).traits
            for other in source.neighbours(entity):
                words = source.info(other).traits
                assert sum(a != b for a, b in zip(own, words, strict=True)) == 1
    assert TraitSource(4, 3, 1).entities("car") == source.entities("car")
    assert TraitSource(4, 3, 1, seed=1).entities("car") != source.entities("car")


def test_shipped_sets_share_no_drawing():
    settings = {name: yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()) for name in ("train", "val", "test")}
    pools = [s["source"]["init_args"]["pool"] for s in settings.values()]
    assert len(set(pools)) == 3
    assert not any(pool.startswith("pretrain") for pool in pools)
    assert settings["train"]["compositor"]["split"] == "seen"
    assert all("split" not in settings[name]["compositor"] for name in ("val", "test"))
