"""Statistics of a set of composites, and the accuracy of shortcuts to the target."""

from __future__ import annotations

import logging
import math
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Any, Final

from kvg.audit.conditional_logit import Choices, Trial, by_entity, by_features
from kvg.audit.pixel_traces import FAMILIES, pixel_traces, ranked
from kvg.errors import DataError
from kvg.shards.reader import SampleStore, Tally
from kvg.types import Sample
from kvg.work.progress import with_progress

log = logging.getLogger(__name__)
POSITION, SIZE, ASPECT, RESEMBLANCE, ENTITY = "position", "size", "aspect", "resemblance in words", "entity"
LEVEL: Final = 0.95  # joint confidence level of the intervals of all families
AREAS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3)  # bounds of the classes of relative area
COUNTED: Final = (
    "objects", "category", "layout", "background", "place in reading order",
    "area, all", "area, asked for", "centre, all", "centre, asked for",
)  # fmt: skip
GRID: Final = (4, 3)  # columns and rows of the histogram of centres
_MAX_TRIED = 50_000  # maximum number of composites whose boxes and names are used; more only take memory
_MIN_TRIED = 40  # minimum number of composites for a prediction


@dataclass
class Figures:
    """Statistics of a set.

    Attributes:
        num_samples: number of composites.
        counts: counts by property, then by value.
        present: how often each entity appears, by category.
        targets: how often each entity is the target, by category.
        trials: accuracies of the shortcuts.
        num_pixels: number of composites whose pixels were read.
    """

    num_samples: int = 0
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    present: dict[str, Counter[str]] = field(default_factory=dict)
    targets: dict[str, Counter[str]] = field(default_factory=dict)
    trials: list[Trial] = field(default_factory=list)
    num_pixels: int = 0

    def count(self, sample: Sample) -> None:
        """Adds a composite."""
        self.num_samples += 1
        self._add("objects", str(len(sample.objects)))
        self._add("category", sample.category)
        self._add("layout", str(sample.provenance.get("layout", "-")))
        self._add("background", str(sample.provenance.get("background", "-")))
        self._add("place in reading order", str(sample.target + 1))
        for number, item in enumerate(sample.objects):
            x1, y1, x2, y2 = item.box_px
            column = min(GRID[0] - 1, int((x1 + x2) / 2 / sample.width * GRID[0]))
            row = min(GRID[1] - 1, int((y1 + y2) / 2 / sample.height * GRID[1]))
            size = _area_class((x2 - x1) * (y2 - y1) / (sample.width * sample.height))
            wanted = number == sample.target
            place = f"column {column + 1}, row {row + 1}"
            for name in ("all", "asked for") if wanted else ("all",):
                self._add(f"area, {name}", size)
                self._add(f"centre, {name}", place)
            self.present.setdefault(sample.category, Counter())[item.entity] += 1
            self.targets.setdefault(sample.category, Counter())[item.entity] += wanted

    def _add(self, what: str, value: str) -> None:
        self.counts.setdefault(what, Counter())[value] += 1

    @property
    def warnings(self) -> list[str]:
        """Returns a line for each shortcut that finds the target significantly better than chance."""
        return [
            f"{t.family}: finds {t.accuracy:.1%} of the objects asked for, where {t.chance:.1%} is chance "
            f"(at least {t.low:.1%}, {t.num} composites)"
            for t in self.trials
            if t.warns
        ]

    def entities(self) -> list[dict[str, Any]]:
        """Returns a row per category: least, median and largest number of appearances, as target and as distractor."""
        rows = []
        for category, present in sorted(self.present.items()):
            num_target = self.targets[category]
            times = {
                "present": sorted(present.values()),
                "asked for": sorted(num_target[name] for name in present),
                "distractor": sorted(num - num_target[name] for name, num in present.items()),
            }
            spans = {name: [values[0], median(values), values[-1]] for name, values in times.items()}
            rows.append({"category": category, "entities": len(present), **spans})
        return rows

    def ordered(self) -> dict[str, dict[str, int]]:
        """Returns the counts in a fixed order."""
        return {name: _ordered(name, self.counts[name]) for name in sorted(self.counts, key=COUNTED.index)}

    def record(self) -> dict[str, Any]:
        """Returns the statistics as JSON."""
        trials = [
            {"family": t.family, "accuracy": t.accuracy, "chance": t.chance, "low": t.low, "high": t.high, "n": t.num}
            | {"warning": t.warns}
            for t in self.trials
        ]
        return {
            "num_samples": self.num_samples,
            "num_pixels": self.num_pixels,
            "level": LEVEL,
            "counts": self.ordered(),
            "entities": self.entities(),
            "shortcuts": trials,
            "warnings": self.warnings,
        }


def gather(store: SampleStore, num_pixels: int = 2000, seed: int = 0, tally: Tally | None = None) -> Figures:
    """Reads a set once, with a progress bar.

    Args:
        store: the set; one sample is in memory at a time.
        num_pixels: number of randomly chosen composites whose pixels are read; 0 for none.
        seed: seed of that choice, and of the halves of the cross-validation.
        tally: counts of bad samples.

    Raises:
        DataError: the set has no readable sample.
    """
    parts, tally = store.parts(), Tally() if tally is None else tally
    total = sum(part.num_samples for part in parts)
    rng = random.Random(f"{seed}/shortcuts")
    tried = set(rng.sample(range(total), min(total, _MAX_TRIED)))
    looked_at = set(rng.sample(sorted(tried), min(len(tried), num_pixels)))
    figures, plain, pixels = Figures(), _Gathered(), _Gathered()

    def samples() -> Iterator[Sample]:
        for part in parts:
            yield from (sample for _, sample in part.read(tally))

    for number, sample in enumerate(with_progress(samples(), "reading composites", total)):
        figures.count(sample)
        if len(sample.objects) > 1 and number in tried:
            plain.add(sample, box_features(sample))
            if number in looked_at:
                pixels.add_pixels(sample)
    if not figures.num_samples:
        raise DataError("the set", "samples", "cannot be read; make the set again")
    figures.num_pixels = len(pixels.chosen)
    level = 1 - (1 - LEVEL) / (len(plain.rows) + len(pixels.rows) + 1)
    if len(plain.chosen) >= _MIN_TRIED:
        figures.trials += plain.trials(level, seed)
        figures.trials.append(by_entity(ENTITY, plain.entities, plain.chosen, level, seed))
    if len(pixels.chosen) >= _MIN_TRIED:
        figures.trials += pixels.trials(level, seed)
    return figures


def box_features(sample: Sample) -> dict[str, list[list[float]]]:
    """Returns the features of each object by family, from boxes and traits only."""
    last = max(1, len(sample.objects) - 1)
    features: dict[str, list[list[float]]] = {POSITION: [], SIZE: [], ASPECT: []}
    areas = []
    for number, item in enumerate(sample.objects):
        x1, y1, x2, y2 = item.box_px
        x, y = (x1 + x2) / 2 / sample.width, (y1 + y2) / 2 / sample.height
        place = [x, y, abs(x - 0.5), abs(y - 0.5), number / last, float(number == 0), float(number == last)]
        features[POSITION].append(place)
        areas.append((x2 - x1) * (y2 - y1))
        features[ASPECT].append([_ratio(x2 - x1, y2 - y1), abs(_ratio(x2 - x1, y2 - y1))])
    for area in areas:
        extremes = [float(area == max(areas)), float(area == min(areas))]
        features[SIZE].append([_ratio(area, sample.width * sample.height), *extremes])
    features[SIZE], features[ASPECT] = ranked(features[SIZE]), ranked(features[ASPECT])
    notes = [set(item.traits) for item in sample.objects]
    if all(notes):
        shared = [[len(a & b) / len(a | b) for j, b in enumerate(notes) if j != i] for i, a in enumerate(notes)]
        features[RESEMBLANCE] = ranked([[sum(row) / len(row), max(row)] for row in shared])
    return features


def _ordered(what: str, counter: Counter[str]) -> dict[str, int]:
    names = sorted(counter, key=lambda name: (int(name) if name.isdigit() else 0, name))
    if what.startswith("area"):
        names = [name for name in area_classes() if name in counter]
    return {name: counter[name] for name in names}


def area_classes() -> list[str]:
    """Returns the names of the classes of relative area, from the smallest."""
    inner = [f"{low:.0%} to {high:.0%}" for low, high in pairwise(AREAS)]
    return [f"under {AREAS[0]:.0%}", *inner, f"{AREAS[-1]:.0%} or more"]


class _Gathered:
    """Features of composites by family; a family is left out if one composite lacks it."""

    def __init__(self) -> None:
        self.rows: dict[str, list[list[list[float]]]] = {}
        self.entities: list[list[str]] = []
        self.chosen: list[int] = []

    def add(self, sample: Sample, features: dict[str, list[list[float]]]) -> None:
        for family, rows in features.items():
            self.rows.setdefault(family, []).append(rows)
        self.entities.append([item.entity for item in sample.objects])
        self.chosen.append(sample.target)
        self.rows = {family: rows for family, rows in self.rows.items() if len(rows) == len(self.chosen)}

    def add_pixels(self, sample: Sample) -> None:
        try:
            traces = pixel_traces(sample)
        except DataError as error:
            log.warning("skipped: sample %s: image: cannot be decoded (%s)", sample.key, error)
            return
        self.add(sample, {family: ranked(traces[family]) for family in FAMILIES})

    def trials(self, level: float, seed: int) -> list[Trial]:
        made = []
        for family, rows in self.rows.items():
            made.append(by_features(family, Choices.of(rows, self.chosen), level, seed))
        return made


def _area_class(share: float) -> str:
    return area_classes()[sum(share >= bound for bound in AREAS)]


def _ratio(a: float, b: float) -> float:
    """Returns the logarithm of ``a / b``."""
    return math.log(max(a, 1e-9) / max(b, 1e-9))
