"""Counts of samples for the manifest of a set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from kvg.types import Sample

COUNTED: Final = ("category", "split", "knowledge", "num_objects", "rationale", "licences")
Counts = dict[str, Counter[str]]


def empty_counts() -> Counts:
    """Returns empty counters for all counted fields."""
    return {name: Counter() for name in COUNTED}


def count_sample(counts: Counts, sample: Sample) -> None:
    """Adds one sample to the counts. A sample with several licences counts once for each."""
    for name in ("category", "split", "knowledge"):
        counts[name][getattr(sample, name) or "-"] += 1
    counts["num_objects"][str(len(sample.objects))] += 1
    counts["rationale"]["yes" if sample.rationale else "no"] += 1
    counts["licences"].update(dict.fromkeys(licences_of(sample) or ["-"], 1))


def licences_of(sample: Sample) -> list[str]:
    """Returns the known licences of the pictures of a sample, sorted, each once.

    >>> licences_of(Sample("k", b"", 9, 9, "bird", "seen", (), 0, licences=("CC0", "", "CC0", "BY")))
    ['BY', 'CC0']
    """
    return sorted({name for name in sample.licences if name})


def sum_counts(counts: Iterable[Mapping[str, Mapping[str, int]]]) -> dict[str, dict[str, int]]:
    """Returns the sum of several counts, in a fixed order.

    >>> sum_counts([{"split": {"unseen": 1}}, {"split": {"seen": 2, "unseen": 3}}])["split"]
    {'seen': 2, 'unseen': 4}
    """
    total = empty_counts()
    for set_counts in counts:
        for name, values in set_counts.items():
            total[name].update(values)
    return {name: dict(sorted(counter.items())) for name, counter in total.items()}
