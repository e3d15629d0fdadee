"""Entities that no model has met: made-up names with cards of their own, for tests and look-ups."""

from __future__ import annotations

import random

from PIL import Image

from kvg.benchmark import CATEGORIES, split_of
from kvg.composites.sources import EntityInfo
from kvg.lab.skills import made_up_name
from kvg.lab.tiles import draw_tile
from kvg.lab.traits import Traits, load_cards
from kvg.lab.world import TILE_PX, change_one, random_traits, stable_seed


class NovelSource:
    """Made-up entities in families: each family is a random card and look-alikes that differ from it in one trait.

    No name is that of a card, and no combination of traits is that of a card of its category. So the name says nothing
    about the looks: without the card the best answer is a guess among the objects.

    Args:
        families: number of families in each category.
        look_alikes: number of look-alikes in each family.
        variants: number of different drawings of each entity.
        seed: decides names, cards and drawings.
    """

    def __init__(self, families: int = 6, look_alikes: int = 4, variants: int = 4, seed: int = 0) -> None:
        self.variants, self._pool = variants, f"novel-{seed}"
        self._traits: dict[str, Traits] = {}
        self._family: dict[str, int] = {}
        known = {card.traits for card in load_cards()}
        for category in CATEGORIES:
            rng = random.Random(stable_seed("novel", seed, category))
            for family in range(families):
                members = [_new(category, known, rng)]
                while len(members) <= look_alikes:
                    other = change_one(members[0], rng)
                    if other not in known:
                        known.add(other)
                        members.append(other)
                for traits in members:
                    self._traits[self._name(rng)] = traits
                self._family |= dict.fromkeys(list(self._traits)[-len(members) :], family)

    def categories(self) -> tuple[str, ...]:
        """Returns all ten categories."""
        return CATEGORIES

    def entities(self, category: str) -> tuple[str, ...]:
        """Returns the names of the entities of one category."""
        return tuple(name for name, traits in self._traits.items() if traits.category == category)

    def neighbours(self, entity: str) -> tuple[str, ...]:
        """Returns the entities of its family that differ from ``entity`` in exactly one trait."""
        own = self._traits[entity]
        family = [e for e in self.entities(own.category) if self._family[e] == self._family[entity]]
        return tuple(e for e in family if self._traits[e].distance(own) == 1)

    def info(self, entity: str) -> EntityInfo:
        """Returns category, split and traits; its knowledge is ``unknown``."""
        traits = self._traits[entity]
        return EntityInfo(traits.category, split_of(traits.category), "unknown", traits.words)

    def tile(self, entity: str, rng: random.Random) -> Image.Image:
        """Returns one of the drawings of this entity, RGBA."""
        traits, variant = self._traits[entity], rng.randrange(self.variants)
        return draw_tile(traits, random.Random(stable_seed(traits, variant, self._pool)), TILE_PX)

    def _name(self, rng: random.Random) -> str:
        while True:
            if (name := made_up_name(rng)) not in self._traits:
                return name


def _new(category: str, known: set[Traits], rng: random.Random) -> Traits:
    while True:
        traits = random_traits(category, rng)
        if traits not in known:
            known.add(traits)
            return traits
