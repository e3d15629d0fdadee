"""KVG-Bench (DeepPerception, section 5.1): its categories and splits, and what its papers call a known entity.

The only definition of these words. Sets of other categories bring their own names, in their manifests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

SEEN_CATEGORIES: Final = ("aircraft", "car", "reptilia", "bird", "food")  # both stages train on them
UNSEEN_CATEGORIES: Final = ("dog", "mollusca", "mammal", "flower", "landmark")
CATEGORIES: Final = SEEN_CATEGORIES + UNSEEN_CATEGORIES
SPLITS: Final = ("seen", "unseen")
KNOWLEDGE: Final = ("known", "unknown")

# Smallest accuracy of the probe by level, best known first (v3, table 6). A guess among four is right in 0.25.
LEVEL_BOUNDS: Final[Mapping[str, float]] = {
    "completely correct": 0.70,
    "mostly correct": 0.45,
    "partially correct": 0.30,
    "mostly incorrect": 0.10,
    "completely incorrect": 0.0,
}
LEVELS: Final = tuple(LEVEL_BOUNDS)
KNOWN_LEVELS: Final = LEVELS[:3]  # the paper's "high" knowledge (v3, figure 4); the other two levels are "low"


def split_of(category: str) -> str:
    """``unseen`` for the categories that the paper keeps out of training, else ``seen``."""
    return "unseen" if category in UNSEEN_CATEGORIES else "seen"


def level_of(accuracy: float) -> str:
    """The level of an accuracy in 0-1.

    >>> level_of(0.25), level_of(0.7)
    ('mostly incorrect', 'completely correct')
    """
    return next(name for name, bound in LEVEL_BOUNDS.items() if accuracy >= bound)


def knowledge_of_level(level: str) -> str:
    """``known`` or ``unknown``, from the name of a level."""
    return "known" if level in KNOWN_LEVELS else "unknown"


def knowledge_of_accuracy(accuracy: float) -> str:
    """``known`` or ``unknown``, from an accuracy of the probe in 0-1.

    >>> knowledge_of_accuracy(0.3), knowledge_of_accuracy(0.29)
    ('known', 'unknown')
    """
    return knowledge_of_level(level_of(accuracy))


def category_order(category: str) -> tuple[int, str]:
    """A sorting key: the benchmark's categories in the papers' order, then all others by name."""
    return (CATEGORIES.index(category) if category in CATEGORIES else len(CATEGORIES), category)
