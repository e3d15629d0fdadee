"""The lab's vocabulary of visual traits, shared by all ten categories, and the cards written in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources

import yaml

from kvg.benchmark import CATEGORIES, split_of
from kvg.errors import DataError

COLOURS: dict[str, tuple[int, int, int]] = {
    "white": (246, 246, 242),
    "black": (34, 34, 38),
    "grey": (142, 146, 152),
    "red": (208, 44, 44),
    "orange": (242, 138, 34),
    "yellow": (246, 214, 60),
    "green": (62, 158, 72),
    "blue": (48, 104, 206),
    "brown": (126, 80, 44),
    "pink": (244, 152, 190),
    "purple": (128, 62, 172),
}
PATTERNS = ("plain", "stripes", "spots", "top", "base")
BUILDS = ("slim", "medium", "broad")
# Parts of each category; most words occur in several categories, so that training on one transfers to others.
PARTS: dict[str, tuple[str, ...]] = {
    "aircraft": ("T-tail", "two engines", "four engines", "propellers", "skis"),
    "car": ("spoiler", "roof rack", "open roof", "fins", "big wheels"),
    "reptilia": ("crest", "horns", "frill", "long tail", "short tail"),
    "bird": ("crest", "long tail", "long legs", "big beak", "long neck"),
    "food": ("cherry", "leaf", "stick", "hole", "bowl"),
    "dog": ("pointed ears", "floppy ears", "long tail", "short tail", "beard"),
    "mollusca": ("spiral", "spines", "ribs", "horns", "fins"),
    "mammal": ("horns", "big ears", "long tail", "long neck", "long nose"),
    "flower": ("big centre", "leaf", "spines", "bell", "long neck"),
    "landmark": ("spire", "dome", "arch", "columns", "steps"),
}
SLOTS = ("colour", "pattern", "accent", "part", "build")


@dataclass(frozen=True)
class Traits:
    """The traits of a drawing. ``accent`` is the colour of the pattern; for ``plain`` it equals ``colour``."""

    category: str
    colour: str
    pattern: str
    accent: str
    part: str
    build: str

    @property
    def marking(self) -> str:
        """Returns the marking, such as ``plain``, ``white stripes``, ``black spots``, ``red top``, ``yellow base``."""
        return "plain" if self.pattern == "plain" else f"{self.accent} {self.pattern}"

    @property
    def text(self) -> str:
        """Returns the traits as text, for example ``brown, white spots, horns, slim``."""
        return ", ".join(self.words)

    @property
    def words(self) -> tuple[str, str, str, str]:
        """Returns colour, marking, part and build, in the form of samples."""
        return self.colour, self.marking, self.part, self.build

    def distance(self, other: Traits) -> int:
        """Returns the number of visible traits that differ (colour, marking, part, build): 0 to 4."""
        pairs = [(self.colour, other.colour), (self.marking, other.marking), (self.part, other.part)]
        return sum(a != b for a, b in [*pairs, (self.build, other.build)])


@dataclass(frozen=True)
class Card:
    """One entity of the lab: its real name, whether the base model was trained on its card, and its traits."""

    name: str
    known: bool
    traits: Traits

    @property
    def category(self) -> str:
        """Returns the name of the category."""
        return self.traits.category

    @property
    def split(self) -> str:
        """Returns ``seen`` or ``unseen``: whether stages 1 and 2 train on this category."""
        return split_of(self.category)

    @property
    def knowledge(self) -> str:
        """Returns ``known`` or ``unknown``, in the form of shards."""
        return "known" if self.known else "unknown"


def _cards_of(category: str) -> Iterator[Card]:
    where = f"kvg/lab/cards/{category}.yaml"
    rows = yaml.safe_load((resources.files("kvg.lab") / "cards" / f"{category}.yaml").read_text("utf-8"))
    for row in rows:
        name = row["name"]
        marking = row["marking"].split()
        accent, pattern = (row["colour"], "plain") if marking == ["plain"] else marking
        traits = Traits(category, row["colour"], pattern, accent, row["part"], row["build"])
        allowed = (COLOURS, PATTERNS, COLOURS, PARTS[category], BUILDS)
        for slot, words in zip(SLOTS, allowed, strict=True):
            if getattr(traits, slot) not in words:
                raise DataError(where, f"{name}: {slot}", f"'{getattr(traits, slot)}' is not one of {sorted(words)}")
        yield Card(name, bool(row["known"]), traits)


@cache
def load_cards() -> tuple[Card, ...]:
    """Reads all cards, in the order of ``CATEGORIES`` and of the files.

    Raises:
        DataError: a card uses a word outside the vocabulary.
    """
    return tuple(card for category in CATEGORIES for card in _cards_of(category))


def neighbours(card: Card, distance: int = 1) -> list[Card]:
    """Returns cards of the same category that differ from ``card`` in at most ``distance`` traits."""
    return [c for c in load_cards() if c.category == card.category and 0 < c.traits.distance(card.traits) <= distance]
