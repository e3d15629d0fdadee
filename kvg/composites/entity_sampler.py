"""Draws the entities of a composite and which of them is the target."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence

from kvg.composites.sources import TileSource
from kvg.errors import ConfigError, DataError

log = logging.getLogger(__name__)
_MAX_ATTEMPTS = 40  # blind draws before all that are left are listed


class EntitySampler:
    """Draws entities so that the company that an entity keeps does not tell whether it is the one asked for.

    The entities of a composite are drawn first, and which of them is asked for is drawn last, each with the same
    chance. Were the distractors drawn around the one asked for, it would be the one with the most look-alikes on the
    picture, and entities with few look-alikes would more often be asked for than others when they appear.

    Args:
        source: supply of tiles.
        neighbour_prob: chance that an entity is a neighbour of one that is there already.
        categories: only these; None for all.
        split: only entities of this split are asked for; None for both.
        targets: only these entities are asked for; None for all.

    Attributes:
        targets: those that may be asked for, by category.

    Raises:
        ConfigError: no category or entity is left to draw from.
        DataError: a named category has fewer than two entities; where none is named, such ones are left out.
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
        for name in names if categories is None else [n for n in names if n in categories]:
            entities = self._entities[name]
            if len(entities) < 2:  # nothing there has to be told apart
                error = DataError(f"category {name}", "entities", f"has {len(entities)}, needs at least 2; add some")
                if categories is not None:
                    raise error
                log.warning("left out: %s", error)
                continue
            own = [e for e in entities if wanted is None or e in wanted]
            own = [e for e in own if split in (None, source.info(e).split)]
            if own:
                self.targets[name] = tuple(own)
        if not self.targets:
            raise ConfigError("compositor", "no entity is left to ask for; widen categories, split or targets")
        if missing:
            raise ConfigError("compositor.targets", f"{sorted(missing)[:5]} are not in the source; correct the names")
        self._names = sorted(self.targets)
        self._allowed = {name: frozenset(own) for name, own in self.targets.items()}

    def draw(self, num: int, rng: random.Random) -> tuple[str, list[str], str]:
        """The entities of a composite.

        Args:
            num: how many; fewer where the category has no more that can be told apart.
            rng: decides.

        Returns:
            The category, its entities in random order, and the one asked for.
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

    def stranger(self, category: str, rng: random.Random) -> str | None:
        """An entity of another category that may be asked for elsewhere; None where there is no other category."""
        others = [name for name in self._names if name != category]
        return rng.choice(self.targets[rng.choice(others)]) if others else None

    def _next(self, category: str, chosen: Sequence[str], looks: set[tuple[str, ...]], rng: random.Random) -> str:
        def fits(entity: str) -> bool:
            # Two entities that look the same in words could not be told apart by any rationale.
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
