"""Section ``shard`` of a project file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kvg.errors import ConfigError


@dataclass(frozen=True)
class ProjectShards:
    """Section ``shard`` of a project file.

    Attributes:
        sets: of the project; None for all.
        samples_per_shard: see ``ShardSettings``.
        shuffle: see there; by the project's seed.
        knowledge: see there.
    """

    sets: Sequence[str] | None = None
    samples_per_shard: int = 500
    shuffle: bool = True
    knowledge: str | None = None

    def settings(self, seed: int) -> ShardSettings:
        """The settings of each set.

        Raises:
            ConfigError: one cannot work.
        """
        return ShardSettings(seed, self.samples_per_shard, self.shuffle, self.knowledge)


@dataclass(frozen=True)
class ShardSettings:
    """How sets are put together.

    Attributes:
        seed: of the order.
        samples_per_shard: at most; shards differ by one sample at most.
        shuffle: mix the samples; otherwise they stay in the order of the sets.
        knowledge: JSON file, an object of entity: accuracy of the probe in 0-1; None leaves what the samples say.
    """

    seed: int = 0
    samples_per_shard: int = 500
    shuffle: bool = True
    knowledge: str | None = None

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ConfigError: one cannot work.
        """
        for name, least in (("seed", None), ("samples_per_shard", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or (least is not None and value < least):
                raise ConfigError(
                    f"shard.{name}", f"{value!r} must be a whole number" + (" from 1 on" if least else "")
                )
        if not isinstance(self.shuffle, bool):
            raise ConfigError("shard.shuffle", f"{self.shuffle!r} is neither true nor false")
