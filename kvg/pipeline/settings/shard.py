"""Section ``shard`` of a project file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kvg.errors import ConfigError


@dataclass(frozen=True)
class ProjectShards:
    """Section ``shard`` of a project file.

    Attributes:
        sets: names of the sets of the project; None for all.
        samples_per_shard: see ``ShardSettings``.
        shuffle: see ``ShardSettings``; with the project's seed.
        knowledge: see ``ShardSettings``.
    """

    sets: Sequence[str] | None = None
    samples_per_shard: int = 500
    shuffle: bool = True
    knowledge: str | None = None

    def settings(self, seed: int) -> ShardSettings:
        """Returns the settings of each set.

        Raises:
            ConfigError: a setting is outside its range.
        """
        return ShardSettings(seed, self.samples_per_shard, self.shuffle, self.knowledge)


@dataclass(frozen=True)
class ShardSettings:
    """Settings of a mixed set.

    Attributes:
        seed: seed of the order.
        samples_per_shard: maximum size of a shard; sizes differ by at most one sample.
        shuffle: whether samples are shuffled; otherwise they stay in the order of the sets.
        knowledge: JSON file ``{entity: accuracy of the probe in 0-1}``; None keeps the knowledge of the samples.
    """

    seed: int = 0
    samples_per_shard: int = 500
    shuffle: bool = True
    knowledge: str | None = None

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ConfigError: a setting is outside its range.
        """
        for name, least in (("seed", None), ("samples_per_shard", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or (least is not None and value < least):
                raise ConfigError(
                    f"shard.{name}", f"{value!r} must be a whole number" + (" from 1 on" if least else "")
                )
        if not isinstance(self.shuffle, bool):
            raise ConfigError("shard.shuffle", f"{self.shuffle!r} is neither true nor false")
