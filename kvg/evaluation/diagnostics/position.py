"""Position bias: whether the answer depends on the place of an object in the picture.

Three tests: Does accuracy differ between places? Do the predicted boxes have the same spatial distribution as the true
ones? Is the first or the largest object answered more often than by an unbiased model, which has the same accuracy in
every place and confuses the target with each of the other objects equally often? The family-wise error rate is 5%: half
of it goes to the first two tests (Holm), half to the third (Bonferroni).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Final, TypedDict

import numpy as np
from numpy.typing import NDArray

from kvg.evaluation.diagnostics.pointing import answered_object
from kvg.evaluation.figures.estimate import FEWEST, Estimate, mean_over, pictures_of, points
from kvg.evaluation.records.prediction import Prediction
from kvg.evaluation.records.scoring import best_iou
from kvg.stats.bootstrap import bootstrap_interval, codes_of
from kvg.stats.paired import holm
from kvg.text.box_codec import GRID
from kvg.types import Box

ALPHA: Final = 0.05
COLUMNS, ROWS = ("left", "middle", "right"), ("top", "bottom")
ORDER: Final = "reading order"
_SHUFFLES = 2000


class PlaceAccuracy(TypedDict):
    """Accuracy for targets in one place."""

    place: str
    accuracy: Estimate


class ByPlace(TypedDict):
    """Accuracy by place, and the p-value of a permutation test that it is equal in all places."""

    by: str  # column, row, reading order
    places: list[PlaceAccuracy]
    p: float


class FieldCount(TypedDict):
    """Numbers of true and of predicted boxes with their centre in one field of the picture."""

    field: str
    truth: int
    answered: int


class Favourite(TypedDict):
    """How often one object is answered, the expected share without bias, and the difference."""

    object: str  # first, largest
    answered: Estimate
    expected: float
    difference: Estimate
    sign: bool


class PositionFigures(TypedDict):
    """The three tests. ``n`` cases; fields are counted over ``answered``, favourites over ``pointed`` of them."""

    n: int
    answered: int  # with a box
    pointed: int  # with a box on an object, among several objects
    by_place: list[ByPlace]
    fields: list[FieldCount]
    distance: float  # of the two distributions over fields: sum of (answered - truth)^2 / (answered + truth)
    p: float  # permutation test that swaps predicted and true boxes of a picture
    favourites: list[Favourite]
    verdict: str


def position(cases: Sequence[Prediction], seed: int) -> PositionFigures:
    """Signs of position bias.

    Args:
        cases: of one run, on clean pictures.
        seed: of intervals and permutations.
    """
    rng = np.random.default_rng(seed)
    by_place = [
        _by_place("column", cases, lambda case: _column(_truth(case)), COLUMNS, rng, seed),
        _by_place("row", cases, lambda case: _row(_truth(case)), ROWS, rng, seed),
    ]
    among = [case for case in cases if len(case.objects) > 1]
    if among:
        names = [str(n + 1) for n in range(max(case.target for case in among) + 1)]
        by_place.append(_by_place(ORDER, among, lambda case: str(case.target + 1), names, rng, seed))
    answered = [case for case in cases if case.answered and case.box and all(map(math.isfinite, case.box))]
    counts, distance, p = _fields(answered, rng)
    pointed = [(case, n) for case in among if (n := answered_object(case)) is not None]
    favourites = [_favourite(name, pointed, place, seed) for name, place in _FAVOURITES.items() if pointed]
    figures = PositionFigures(
        n=len(cases),
        answered=len(answered),
        pointed=len(pointed),
        by_place=by_place,
        fields=counts,
        distance=distance,
        p=p,
        favourites=favourites,
        verdict="",
    )
    return {**figures, "verdict": _verdict(figures)}


def _column(box: Box) -> str:
    return COLUMNS[_part(box[0], box[2], len(COLUMNS))]


def _row(box: Box) -> str:
    return ROWS[_part(box[1], box[3], len(ROWS))]


def _part(low: float, high: float, num: int) -> int:
    """Index of the grid's part that holds the midpoint of two coordinates; clipped to the grid."""
    return int(min(max((low + high) / 2 * num / GRID, 0), num - 1))


def _truth(case: Prediction) -> Box:
    """The true box; of several the one with the highest IoU with the answer."""
    return max(case.targets, key=lambda box: best_iou(case.box, [box])) if len(case.targets) > 1 else case.targets[0]


def _by_place(
    by: str,
    cases: Sequence[Prediction],
    place: Callable[[Prediction], str],
    names: Sequence[str],
    rng: np.random.Generator,
    seed: int,
) -> ByPlace:
    """Verdicts are permuted among pictures with the same number of objects, which have the same chance level."""
    where = [place(case) for case in cases]
    present = [name for name in names if name in where]
    places = [
        PlaceAccuracy(
            place=name,
            accuracy=mean_over([c for c, own in zip(cases, where, strict=True) if own == name], _right, seed),
        )
        for name in present
    ]
    excess, size = np.zeros((_SHUFFLES + 1, len(present))), np.zeros(len(present))
    strata = np.array([len(case.objects) for case in cases])
    columns = np.array([present.index(name) for name in where], dtype=np.int64)
    right = np.array([case.correct for case in cases], dtype=np.float64)
    for stratum in np.unique(strata):
        members = strata == stratum
        marks = np.eye(len(present))[columns[members]]  # [M, P]
        dealt = rng.permuted(np.tile(right[members], (_SHUFFLES, 1)), axis=1)  # [S, M]
        excess += np.vstack([right[members], dealt]) @ marks - right[members].mean() * marks.sum(axis=0)
        size += marks.sum(axis=0)
    return ByPlace(by=by, places=places, p=_p_value((excess**2 / size).sum(axis=1)))


def _fields(cases: Sequence[Prediction], rng: np.random.Generator) -> tuple[list[FieldCount], float, float]:
    """Counts by field, their distance, and its p-value; predicted and true boxes are swapped per picture."""
    names = [f"{row} {column}" for row in ROWS for column in COLUMNS]
    if not cases:
        return [], 0.0, 1.0
    marks = np.eye(len(names))
    answered = marks[[names.index(f"{_row(case.box)} {_column(case.box)}") for case in cases if case.box]]
    truth = marks[[names.index(f"{_row(_truth(case))} {_column(_truth(case))}") for case in cases]]
    pictures = codes_of(pictures_of(cases), len(cases))
    moved = np.stack([np.bincount(pictures, column) for column in (answered - truth).T], axis=1)  # [C, F]
    moved = moved[moved.any(axis=1)]
    signs = rng.integers(0, 2, size=(_SHUFFLES, len(moved))) * 2.0 - 1.0
    both = np.maximum(answered.sum(axis=0) + truth.sum(axis=0), 1.0)  # invariant under swaps
    distances = (np.vstack([moved.sum(axis=0), signs @ moved]) ** 2 / both).sum(axis=1)
    counts = [
        FieldCount(field=name, truth=int(truth[:, n].sum()), answered=int(answered[:, n].sum()))
        for n, name in enumerate(names)
    ]
    return counts, float(distances[0]), _p_value(distances)


def _p_value(statistics: NDArray[Any]) -> float:
    """Share of the statistics that reach the first, which is the observed one (Phipson and Smyth 2010)."""
    return float((statistics >= statistics[0] * (1 - 1e-9)).mean())


def _first(case: Prediction) -> int:
    return 0


def _largest(case: Prediction) -> int:
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (item.box for item in case.objects)]
    return areas.index(max(areas))


# Objects are in reading order, as in shards.
_FAVOURITES: Final[dict[str, Callable[[Prediction], int]]] = {"first": _first, "largest": _largest}


def _favourite(
    name: str, pointed: Sequence[tuple[Prediction, int]], place: Callable[[Prediction], int], seed: int
) -> Favourite:
    cases = [case for case, _ in pointed]
    verdicts: dict[int, list[bool]] = defaultdict(list)
    for case in cases:
        verdicts[len(case.objects)].append(case.correct)
    rates = {num: sum(own) / len(own) for num, own in verdicts.items()}

    def expected(case: Prediction) -> float:
        num = len(case.objects)
        right = rates[num]
        return right if place(case) == case.target else (1 - right) / (num - 1)

    answered = {id(case): float(number == place(case)) for case, number in pointed}
    excess = {id(case): answered[id(case)] - expected(case) for case in cases}
    level = 1 - ALPHA / 2 / len(_FAVOURITES)
    low, high = bootstrap_interval(list(excess.values()), seed, level=level, clusters=pictures_of(cases))
    return Favourite(
        object=name,
        answered=mean_over(cases, lambda case: answered[id(case)], seed),
        expected=sum(map(expected, cases)) / len(cases),
        difference=mean_over(cases, lambda case: excess[id(case)], seed, bounds=None),
        sign=len(cases) >= FEWEST and (low > 0 or high < 0),
    )


def _right(case: Prediction) -> float:
    return float(case.correct)


def _verdict(figures: PositionFigures) -> str:
    if figures["n"] < FEWEST:
        return f"not measurable: {figures['n']} cases are fewer than {FEWEST}"
    signs = []
    adjusted = holm([*(table["p"] for table in figures["by_place"]), figures["p"]])
    for table, p in zip(figures["by_place"], adjusted, strict=False):
        if p <= ALPHA / 2:
            ranked = sorted(table["places"], key=lambda place: place["accuracy"]["value"])
            low, high = (f"{100 * end['accuracy']['value']:.1f}% ({end['place']})" for end in (ranked[0], ranked[-1]))
            signs.append(f"accuracy differs by {table['by']}, from {low} to {high}, p = {p:.3f}")
    if adjusted[-1] <= ALPHA / 2:
        signs.append(f"predicted and true boxes have different spatial distributions, p = {adjusted[-1]:.3f}")
    for favourite in figures["favourites"]:
        if favourite["sign"]:
            more = "more" if favourite["difference"]["value"] > 0 else "less"
            text = points(favourite["difference"])
            signs.append(f"the {favourite['object']} object is answered {more} often than without bias, {text}")
    return "sign: " + "; ".join(signs) if signs else "no sign"
