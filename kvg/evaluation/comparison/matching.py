"""Matches the cases of several runs, and groups them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kvg.benchmark import CATEGORIES, KNOWLEDGE, SPLITS
from kvg.errors import ConfigError, DataError
from kvg.evaluation.records.prediction import Prediction

BOTH: Final = "split and knowledge"
GROUPINGS: Final = ("split", "category", "knowledge", BOTH)
ALL: Final = "all"  # every case of a set
MEAN: Final = "category mean"  # of the accuracies of its categories
_ORDER: Final = (*SPLITS, *KNOWLEDGE, *CATEGORIES)
_TOLERANCE: Final = 0.01  # rounding error of a true box on the 0-1000 grid


@dataclass(frozen=True)
class CaseGroup:
    """The cases of one figure.

    Attributes:
        set: name of their set; each corruption counts as a set of its own.
        by: ``all``, ``category mean``, or one of ``GROUPINGS``.
        value: of the grouping; of a category mean the split, or ``all``.
        members: indices of the cases.
    """

    set: str
    by: str
    value: str
    members: NDArray[np.int64]


@dataclass
class Matched:
    """N cases that all runs have answered, in the order of the first run.

    Attributes:
        names: identifiers of the cases.
        sets: the set of each case; each corruption counts as a set of its own.
        fields: for each grouping the value of each case; '' if unknown.
        pictures: the picture of each case; the case's own name if unknown.
        hits: correct answers ``[S, N]`` by setting, one row per seed.
        notes: remarks for the reader.
        num_left_out: cases that not all runs have.
    """

    names: list[str]
    sets: list[str]
    fields: dict[str, list[str]]
    pictures: list[str]
    hits: dict[str, NDArray[np.float64]]
    notes: list[str] = field(default_factory=list)
    num_left_out: int = 0

    def groups(self, by: Sequence[str]) -> list[CaseGroup]:
        """All groups with at least one case: per set all cases, category means, and the parts of each grouping."""
        groups = []
        for name in dict.fromkeys(self.sets):
            inside = np.array([own == name for own in self.sets])
            groups += [group for group in self._groups_of(name, inside, by) if len(group.members)]
        return groups

    def _groups_of(self, name: str, inside: NDArray[np.bool_], by: Sequence[str]) -> Iterator[CaseGroup]:
        values = {grouping: np.array(self.fields[grouping]) for grouping in GROUPINGS}
        yield CaseGroup(name, ALL, ALL, np.flatnonzero(inside))
        parts = {ALL: inside}
        for grouping in by:
            for value in sorted({*values[grouping][inside]} - {""}, key=_place):
                part = inside & (values[grouping] == value)
                yield CaseGroup(name, grouping, str(value), np.flatnonzero(part))
                if grouping == "split":
                    parts[str(value)] = part
        for part_name, part in parts.items() if "category" in by else ():
            own = {*values["category"][part]}
            if len(own) > 1 and "" not in own:
                yield CaseGroup(name, MEAN, part_name, np.flatnonzero(part))


def match(runs: Mapping[str, Sequence[Sequence[Prediction]]], common: bool = False) -> Matched:
    """Matches the answers of several runs to the same questions.

    Questions are equal if ``Prediction.id`` is equal. If every run has a single set, the name of the set is ignored.

    Args:
        runs: runs by setting, one per seed.
        common: use only the cases that all runs have; otherwise missing cases are an error.

    Raises:
        ConfigError: a setting has no run.
        DataError: runs hold different cases, share none, or have different ground truth for the same case.
    """
    for name, seeds in runs.items():
        if not seeds:
            raise ConfigError(f"runs.{name}", "has no run; name at least one")
    flat = {(name, i): cases for name, seeds in runs.items() for i, cases in enumerate(seeds)}
    labels = [name if len(runs[name]) == 1 else f"{name}, run {i + 1}" for name, i in flat]
    tables = _by_name(list(flat.values()))
    order, num_left_out = _shared(dict(zip(labels, tables, strict=True)), common)
    rows = [[table[name] for name in order] for table in tables]
    for label, cases in zip(labels, rows, strict=True):
        _check_truth(labels[0], rows[0], label, cases)
    notes = [f"{num_left_out} cases are skipped because not all runs have them"] if num_left_out else []
    fields = {name: _field(name, rows, notes) for name in ("split", "category", "knowledge", "image")}
    images = fields.pop("image")
    values = zip(fields["split"], fields["knowledge"], strict=True)
    fields[BOTH] = [f"{split}, {knowledge}" if split and knowledge else "" for split, knowledge in values]
    if not any(images):
        notes.append("the lines have no `image`: all cases count as independent, although cases may share a picture")
    right = {own: [float(case.correct) for case in cases] for own, cases in zip(flat, rows, strict=True)}
    return Matched(
        names=order,
        sets=[_set_of(case) for case in rows[0]],
        fields=fields,
        pictures=_pictures(rows[0], images),
        hits={name: np.array([right[name, i] for i in range(len(seeds))]) for name, seeds in runs.items()},
        notes=notes,
        num_left_out=num_left_out,
    )


def _by_name(runs: Sequence[Sequence[Prediction]]) -> list[dict[str, Prediction]]:
    """Tables of cases by name; without the set's name if every run has a single set and these differ."""
    sets = [{case.set for case in cases} for cases in runs]
    alone = all(len(own) == 1 for own in sets) and len(set.union(*sets)) > 1
    return [{_name(case, alone): case for case in cases} for cases in runs]


def _name(case: Prediction, alone: bool) -> str:
    return case.id[len(case.set) + 1 :] if alone else case.id


def _set_of(case: Prediction) -> str:
    return f"{case.set}@{case.artifact}-{case.strength}" if case.artifact else case.set


def _shared(tables: Mapping[str, Mapping[str, Prediction]], common: bool) -> tuple[list[str], int]:
    """Names that all runs have, in the order of the first run, and the number of other names.

    Raises:
        DataError: a run lacks cases and ``common`` is not set, or no name is shared.
    """
    everything = dict.fromkeys(name for table in tables.values() for name in table)
    order = [name for name in everything if all(name in table for table in tables.values())]
    if not common and len(order) < len(everything):
        for label, table in tables.items():
            missing = [name for name in everything if name not in table]
            if missing:
                holder = next(other for other, theirs in tables.items() if missing[0] in theirs)
                remedy = (
                    f"{len(missing)} of {len(everything)} cases are missing, first '{missing[0]}', which '{holder}' "
                    "has; finish that run, or compare the common cases with --common"
                )
                raise DataError(f"run '{label}'", "cases", remedy)
    if not order:
        raise DataError(" and ".join(f"'{label}'" for label in tables), "cases", "share no case; compare one benchmark")
    return order, len(everything) - len(order)


def _check_truth(first: str, ours: Sequence[Prediction], label: str, theirs: Sequence[Prediction]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        if one.is_choice or other.is_choice:
            same = one.is_choice and other.is_choice and _right_name(one) == _right_name(other)
            values = "options"
        else:
            values = "gt_bbox"
            same = len(one.targets) == len(other.targets) and all(
                abs(a - b) <= _TOLERANCE
                for p, q in zip(sorted(one.targets), sorted(other.targets), strict=True)
                for a, b in zip(p, q, strict=True)
            )
        if not same:
            remedy = f"differs from run '{first}': not the same benchmark; score both runs against the same file"
            raise DataError(f"run '{label}', case '{other.id}'", values, remedy)


def _right_name(case: Prediction) -> tuple[list[str], str]:
    """The options in sorted order, and the correct one."""
    options = case.options
    return sorted(options), options[case.right]


def _field(name: str, rows: Sequence[Sequence[Prediction]], notes: list[str]) -> list[str]:
    """The value of each case in the first run that has one; adds a note where runs differ."""
    values = [[value for case in cases if (value := getattr(case, name))] for cases in zip(*rows, strict=True)]
    num_other = sum(len({*values}) > 1 for values in values)
    if num_other:
        notes.append(f"runs differ in the {name} of {num_other} cases; the value of the first run is used")
    return [values[0] if values else "" for values in values]


def _pictures(cases: Sequence[Prediction], images: Sequence[str]) -> list[str]:
    """The picture of each case: the cluster. A corrupted picture belongs to the cluster of the clean one."""
    plain = {(case.set, case.key): image for case, image in zip(cases, images, strict=True) if not case.artifact}
    return [
        plain.get((case.set, case.key), image) or f"case {case.id}" for case, image in zip(cases, images, strict=True)
    ]


def _place(value: str) -> tuple[list[int], str]:
    """Sort key: the paper's names in the paper's order, then all others by name."""
    return ([_ORDER.index(part) if part in _ORDER else len(_ORDER) for part in value.split(", ")], value)
