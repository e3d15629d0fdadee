"""Counts the content of a set while its samples are read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from kvg.shards.counting import licences_of
from kvg.types import Sample

COLUMNS = ("category", "split", "knowledge", "samples", "entities", "objects each", "rationales")


@dataclass
class SetFigures:
    """Figures of a set.

    Attributes:
        groups: counts by category, split and knowledge.
        entities: targets, by category, split and knowledge.
        sizes: number of samples by number of objects.
        licences: number of samples by licence; a sample with several licences counts for each.
        num_samples: number of all samples.
    """

    groups: dict[tuple[str, str, str], Counter[str]] = field(default_factory=dict)
    entities: dict[tuple[str, str, str], set[str]] = field(default_factory=dict)
    sizes: Counter[int] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)
    num_samples: int = 0

    def add(self, sample: Sample) -> None:
        """Counts a sample."""
        key = (sample.category, sample.split, sample.knowledge or "-")
        group = self.groups.setdefault(key, Counter())
        group.update(samples=1, objects=len(sample.objects), rationales=bool(sample.rationale))
        self.entities.setdefault(key, set()).add(sample.entity)
        self.sizes[len(sample.objects)] += 1
        self.licences.update(licences_of(sample) or ["-"])
        self.num_samples += 1

    @property
    def num_entities(self) -> int:
        """Number of distinct targets; a name in two categories counts twice."""
        return len({(key[0], name) for key, names in self.entities.items() for name in names})

    @property
    def num_rationales(self) -> int:
        """Number of samples with a rationale."""
        return sum(group["rationales"] for group in self.groups.values())

    def rows(self) -> list[list[str]]:
        """The rows of the table, see ``COLUMNS``; with several rows, the last one is their sum."""
        rows = [self._row(key, group, len(self.entities[key])) for key, group in sorted(self.groups.items())]
        if len(rows) > 1:
            total: Counter[str] = Counter()
            for group in self.groups.values():
                total.update(group)
            rows.append(self._row(("all", "", ""), total, self.num_entities))
        return rows

    @staticmethod
    def _row(key: tuple[str, str, str], group: Counter[str], num_entities: int) -> list[str]:
        num = group["samples"]
        each = f"{group['objects'] / num:.2f}"
        return [*key, str(num), str(num_entities), each, str(group["rationales"])]

    def facts(self, num_bytes: Sequence[int]) -> dict[str, str]:
        """Further lines by name.

        Args:
            num_bytes: sizes of the files.
        """
        total = f"{sum(num_bytes) / 1e6:.1f} MB"
        span = f", {min(num_bytes) / 1e6:.1f} to {max(num_bytes) / 1e6:.1f} MB each" if len(num_bytes) > 1 else ""
        return {
            "objects a picture": _shares(dict(sorted(self.sizes.items())), self.num_samples),
            "rationales": f"{self.num_rationales} with, {self.num_samples - self.num_rationales} without",
            "licences": _shares({_named(name): num for name, num in self.licences.most_common()}, self.num_samples),
            "files": f"{len(num_bytes)}, {total}{span}",
        }


def _named(licence: str) -> str:
    return "not known" if licence == "-" else licence


def _shares(counts: dict[int, int] | dict[str, int], total: int) -> str:
    """Counts and shares as text.

    >>> _shares({2: 3, 3: 1}, 4)
    '2: 3 (75%), 3: 1 (25%)'
    """
    return ", ".join(f"{name}: {num} ({num / total:.0%})" for name, num in counts.items())
