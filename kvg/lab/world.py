"""The lab's sources of tiles: the entities of the cards, or combinations of traits without names."""

from __future__ import annotations

import random
import zlib
from collections.abc import Mapping
from functools import lru_cache

from PIL import Image

from kvg.benchmark import CATEGORIES, split_of
from kvg.composites.settings import CompositorConfig
from kvg.composites.sources import EntityInfo
from kvg.lab.tiles import draw_tile
from kvg.lab.traits import BUILDS, COLOURS, PARTS, PATTERNS, Traits, load_cards
from kvg.lab.traits import neighbours as card_neighbours

TILE_PX = 72  # larger than any tile on the lab's canvas; the compositor reduces it


def stable_seed(*parts: object) -> int:
    """Returns a seed that depends only on the values; ``hash`` also depends on the process."""
    return zlib.crc32(repr(parts).encode())


@lru_cache(maxsize=50_000)
def _tile(traits: Traits, variant: int, pool: str) -> Image.Image:
    return draw_tile(traits, random.Random(stable_seed(traits, variant, pool)), TILE_PX)


class LabSource:
    """The 160 entities of the cards.

    Args:
        categories: names of the categories; None for all.
        knowledge: knowledge of the entities, ``known`` or ``unknown``; None for both.
        variants: number of different drawings of each entity.
        pool: name of the set of drawings. Two pools share no drawing; training and test should have different ones.
    """

    def __init__(
        self,
        categories: list[str] | None = None,
        knowledge: str | None = None,
        variants: int = 24,
        pool: str = "train",
    ) -> None:
        wanted = tuple(categories or CATEGORIES)
        self._cards = {c.name: c for c in load_cards() if c.category in wanted and knowledge in (None, c.knowledge)}
        self._categories = tuple(c for c in CATEGORIES if c in wanted)
        self.variants, self.pool = variants, pool

    def categories(self) -> tuple[str, ...]:
        """Returns the names of the categories, in the lab's order."""
        return self._categories

    def entities(self, category: str) -> tuple[str, ...]:
        """Returns the names of the entities of one category."""
        return tuple(name for name, card in self._cards.items() if card.category == category)

    def neighbours(self, entity: str) -> tuple[str, ...]:
        """Returns the entities that differ from ``entity`` in exactly one trait."""
        return tuple(card.name for card in card_neighbours(self._cards[entity]) if card.name in self._cards)

    def info(self, entity: str) -> EntityInfo:
        """Returns category, split, knowledge and traits."""
        card = self._cards[entity]
        return EntityInfo(card.category, card.split, card.knowledge, card.traits.words)

    def tile(self, entity: str, rng: random.Random) -> Image.Image:
        """Returns one of the entity's drawings, RGBA."""
        return _tile(self._cards[entity].traits, rng.randrange(self.variants), self.pool)


class TraitSource:
    """Drawings without names, for pretraining: an "entity" here is a combination of traits, named by its description.

    Every category has ``families`` of a random combination and ``siblings`` others that differ from it in one trait, so
    that there are always hard neighbours.
    """

    def __init__(self, families: int = 100, siblings: int = 8, variants: int = 4, seed: int = 0) -> None:
        self.variants, self.pool = variants, f"pretrain-{seed}"
        self._traits: dict[str, dict[str, Traits]] = {}
        self._families: dict[tuple[str, str], set[str]] = {}
        for category in CATEGORIES:
            rng = random.Random(stable_seed(seed, category))
            members: dict[str, Traits] = {}
            for _ in range(families):
                base = random_traits(category, rng)
                family = [base, *(change_one(base, rng) for _ in range(siblings))]
                for traits in family:
                    members[traits.text] = traits
                    self._families.setdefault((category, traits.text), set()).update(t.text for t in family)
            self._traits[category] = members
        self._current = CATEGORIES[0]

    def categories(self) -> tuple[str, ...]:
        """Returns all ten categories: the base model is trained on all, but without names."""
        return CATEGORIES

    def entities(self, category: str) -> tuple[str, ...]:
        """Returns ``CATEGORY: TRAITS`` of all combinations of one category."""
        return tuple(f"{category}: {text}" for text in self._traits[category])

    def neighbours(self, entity: str) -> tuple[str, ...]:
        """Returns the combinations that differ from ``entity`` in exactly one trait."""
        category, text = entity.split(": ")
        own = self._traits[category][text]
        family = sorted(self._families[category, text])
        return tuple(f"{category}: {t}" for t in family if self._traits[category][t].distance(own) == 1)

    def info(self, entity: str) -> EntityInfo:
        """Returns category, split and traits; knowledge is ''."""
        category, text = entity.split(": ")
        return EntityInfo(category, split_of(category), "", self._traits[category][text].words)

    def tile(self, entity: str, rng: random.Random) -> Image.Image:
        """Returns one of the drawings of this combination, RGBA."""
        category, text = entity.split(": ")
        return _tile(self._traits[category][text], rng.randrange(self.variants), self.pool)


def random_traits(category: str, rng: random.Random) -> Traits:
    """Samples a combination uniformly; ``plain`` is as likely as any other pattern."""
    colour, pattern = rng.choice(tuple(COLOURS)), rng.choice(PATTERNS)
    accent = colour if pattern == "plain" else rng.choice([c for c in COLOURS if c != colour])
    return Traits(category, colour, pattern, accent, rng.choice(PARTS[category]), rng.choice(BUILDS))


def change_one(traits: Traits, rng: random.Random) -> Traits:
    """Samples a combination that differs from ``traits`` in one trait (colour, marking, part or build)."""
    while True:
        other = random_traits(traits.category, rng)
        slot = rng.choice(("colour", "marking", "part", "build"))
        colour, pattern, accent = traits.colour, traits.pattern, traits.accent
        if slot == "marking":
            pattern, accent = other.pattern, other.accent if other.pattern != "plain" else colour
        if slot == "colour":
            colour = other.colour
            accent = colour if pattern == "plain" else accent
        changed = Traits(
            traits.category,
            colour,
            pattern,
            accent,
            other.part if slot == "part" else traits.part,
            other.build if slot == "build" else traits.build,
        )
        if changed.distance(traits) == 1 and (changed.pattern == "plain" or changed.accent != changed.colour):
            return changed


def lab_canvas(seed: int, k_weights: Mapping[int, float], neighbour_prob: float) -> CompositorConfig:
    """Returns settings of the lab's composites: 140 px square, boxes on a grid of 7 px, so coordinates are n * 50."""
    return CompositorConfig(
        seed=seed,
        k_weights=dict(k_weights),
        canvas_sizes=[(140, 140)],
        gap=3,
        fill=(0.85, 1.0),
        snap_px=7,
        min_cell_px=44,
        neighbour_prob=neighbour_prob,
        image_format="png",
    )
