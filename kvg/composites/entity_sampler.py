"""Samples the entities of a composite and its target."""

from __future__ import annotations

import random
from collections.abc import Sequence

from kvg.composites.sources import TileSource
from kvg.errors import ConfigError, DataError

_MAX_ATTEMPTS = 40  # random tries before all remaining entities are listed


class EntitySampler:
    """Samples entities such that the distractors do not reveal the target.

    It samples the entities of a composite first, and then the target among them with equal probability. If it sampled
    the distractors for a given target, the target would be the entity with the most similar entities on the picture,
    and entities with few similar ones would be targets more often than others.

    Args:
        source: source of tiles.
        neighbour_prob: probability that a further entity is a neighbour of one that was sampled before.
        categories: categories to use; None for all.
        split: split of the targets; None for both.
        targets: entities that can be targets; None for all.

    Attributes:
        targets: possible targets by category.
        left_out: why a category is not used, of each that has fewer than two entities.

    Raises:
        ConfigError: no category or target is left.
        DataError: a category in ``categories`` has fewer than two entities; other such categories are left out.
    """

    def __init__(
        self,
        source: TileSource,
        neighbour_prob: float,
        categories: Sequence[str] | None,
        split: str | None,
        targets: Sequence[str] | None,
    ) -> None:
        self.source, self.neighbour_prob, self._split = source, neighbour_prob, split
        names = source.categories()
        unknown = set(categories or ()) - set(names)
        if unknown:
            raise ConfigError("compositor.categories", f"{sorted(unknown)} are none of {sorted(names)}")
        self._entities = {name: source.entities(name) for name in names}
        missing = set(targets or ()) - {entity for own in self._entities.values() for entity in own}
        wanted = None if targets is None else set(targets)
        self.targets: dict[str, tuple[str, ...]] = {}
        self.left_out: list[DataError] = []
        for name in names if categories is None else [n for n in names if n in categories]:
            entities = self._entities[name]
            if len(entities) < 2:  # there are no distractors
                reason = f"has {len(entities)} with pictures for this set, needs at least 2; add some"
                error = DataError(f"category {name}", "entities", reason)
                if categories is not None:
                    raise error
                self.left_out.append(error)
                continue
            own = [e for e in entities if wanted is None or e in wanted]
            own = [e for e in own if split in (None, source.info(e).split)]
            if own:
                self.targets[name] = tuple(own)
        if not self.targets:
            first = f" ({self.left_out[0]})" if self.left_out else ""
            raise ConfigError("compositor", f"no target is left{first}; widen categories, split or targets")
        if missing:
            raise ConfigError("compositor.targets", f"{sorted(missing)[:5]} are not in the source; correct the names")
        self._names = sorted(self.targets)
        self._allowed = {name: frozenset(own) for name, own in self.targets.items()}

    def draw(self, num: int, rng: random.Random) -> tuple[str, list[str], str]:
        """Samples the entities of a composite.

        Args:
            num: number of entities; fewer if the category has no more with different traits.
            rng: random numbers.

        Returns:
            The category, its entities in random order, and the target.
        """
        category = rng.choice(self._names)
        chosen = [rng.choice(self.targets[category])]
        looks = {self._traits(chosen[0])}
        while len(chosen) < num:
            entity = self._next(category, chosen, looks, rng)
            if not entity:
                break
            chosen.append(entity)
            looks.add(self._traits(entity))
        target = rng.choice([entity for entity in chosen if entity in self._allowed[category]])
        rng.shuffle(chosen)
        return category, chosen, target

    def other_category_entity(self, category: str, rng: random.Random) -> str | None:
        """Samples a possible target of another category; returns None if there is no other category."""
        others = [name for name in self._names if name != category]
        return rng.choice(self.targets[rng.choice(others)]) if others else None

    def _next(self, category: str, chosen: Sequence[str], looks: set[tuple[str, ...]], rng: random.Random) -> str:
        def fits(entity: str) -> bool:
            # A rationale cannot distinguish two entities with the same traits.
            return entity not in chosen and not ((traits := self._traits(entity)) and traits in looks)

        everyone = self._entities[category]
        if rng.random() < self.neighbour_prob:
            near = [e for e in self.source.neighbours(rng.choice(chosen)) if fits(e)]
            if near:
                return rng.choice(near)
        for _ in range(_MAX_ATTEMPTS):
            if fits(entity := rng.choice(everyone)):
                return entity
        rest = [entity for entity in everyone if fits(entity)]
        return rng.choice(rest) if rest else ""

    def _traits(self, entity: str) -> tuple[str, ...]:
        return self.source.info(entity).traits
