"""Finds copies among pictures, copies with two names, and pictures that only look alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from kvg.catalogue.colour_grids import ColourGrids
from kvg.catalogue.cutting import overlap
from kvg.catalogue.entry import Entry
from kvg.catalogue.hashing import Groups, groups_of_copies
from kvg.types import Box

SAME_OBJECT: Final = 0.5  # least IoU of two boxes of one picture that belong to the same object


@dataclass(frozen=True)
class Copies:
    """The copies among a list of pictures.

    Attributes:
        groups: for each picture the index of the first picture of its group. All pictures of a group must have the
            same use.
        rivals: for each picture that seems to show the same object as a picture of another name, the index of such a
            picture.
        lookalikes: pairs of pictures with different names that differ only in a part, such as two objects on one
            background.
    """

    groups: Sequence[int]
    rivals: dict[int, int]
    lookalikes: Sequence[tuple[int, int]]


def find_copies(entries: Sequence[Entry], max_distance: int, max_change: float) -> Copies:
    """Compares all pictures with each other.

    Pictures with near fingerprints are copies if they have the same name. If their names differ, their colour grids
    decide: pictures whose grids differ in a cell show different objects on one background. Boxes of one picture that do
    not overlap belong to different objects. The contents of the boxes are compared in the same way; this finds the same
    object on another background. Cuts of one file are always one group.

    Args:
        entries: pictures in a fixed order.
        max_distance: see ``groups_of_copies``.
        max_change: see ``ColourGrids.same``.
    """
    groups, rivals, lookalikes = Groups(len(entries)), dict[int, int](), list[tuple[int, int]]()
    for members in _classes(range(len(entries)), (entry.sha256 for entry in entries)):
        _join(groups, members)
    hashes = [int(entry.fingerprint, 16) for entry in entries]
    for members in _classes(range(len(entries)), groups_of_copies(hashes, max_distance)):
        by_name = list(_classes(members, (entries[n].entity for n in members), least=1))
        for same_name in by_name:
            _join(groups, same_name)
        if len(by_name) == 1:
            continue
        pictures = _by_grid(members, [entries[n].colour_grid for n in members], max_change)
        for picture in pictures:
            _join(groups, picture)
            for same in _by_object(entries, picture):
                rivals.update(_rivals(entries, same))
        lookalikes += _pairs_of_names(entries, pictures)
    boxed = [number for number, entry in enumerate(entries) if entry.box_fingerprint]
    inside = [int(entries[n].box_fingerprint, 16) for n in boxed]
    for members in _classes(boxed, groups_of_copies(inside, max_distance)):
        for same in _by_grid(members, [entries[n].box_colour_grid for n in members], max_change):
            _join(groups, same)
            rivals = {**_rivals(entries, same), **rivals}
    return Copies([groups.first(n) for n in range(len(entries))], rivals, lookalikes)


def repeated_files(entries: Sequence[Entry]) -> dict[int, str]:
    """Returns the reasons why pictures with byte-identical files are left out, by index of the picture.

    Of identical files with the same name for an object the first is kept; if the names differ, none is kept.

    Args:
        entries: pictures in a fixed order.
    """
    reasons: dict[int, str] = {}
    for members in _classes(range(len(entries)), ((entry.sha256, entry.cut_px) for entry in entries)):
        for same in _by_object(entries, members):
            rivals = _rivals(entries, same)
            for number in same:
                if number in rivals:
                    other = entries[rivals[number]]
                    reasons[number] = f"is the same file as {describe(other)}; correct one of the names"
                elif number != same[0]:
                    first = entries[same[0]]
                    reasons[number] = f"is the same file as {first.source}: {first.ref}"
    for members in _classes(range(len(entries)), ((entry.source, entry.ref) for entry in entries)):
        for number in members[1:]:
            reasons.setdefault(number, "is listed more than once; make one row of it, or name its objects' boxes")
    return reasons


def describe(entry: Entry) -> str:
    """Returns a picture and its name in words, for reasons and reports."""
    return f"{entry.source}: {entry.ref}, which is named {entry.entity!r}"


def same_object(one: Entry, other: Entry) -> bool:
    """Returns whether two entries of one picture are the same object: the boxes overlap, or one of them has no box."""
    if one.box_px is None or other.box_px is None:
        return True
    first, second = _shares(one), _shares(other)
    grids = [one.colour_grid, other.colour_grid]
    if all(grids) and grids[0] != grids[1] and ColourGrids(grids).is_mirrored(0, 1):
        second = 1 - second[2], second[1], 1 - second[0], second[3]
    return overlap(first, second) >= SAME_OBJECT


def _classes(numbers: Iterable[int], keys: Iterable[object], least: int = 2) -> Iterator[list[int]]:
    """Yields groups of numbers with equal keys that have at least ``least`` members."""
    classes: dict[object, list[int]] = defaultdict(list)
    for number, key in zip(numbers, keys, strict=True):
        classes[key].append(number)
    yield from (members for members in classes.values() if len(members) >= least)


def _join(groups: Groups, members: Sequence[int]) -> None:
    for other in members[1:]:
        groups.join(members[0], other)


def _by_grid(members: Sequence[int], grids: Sequence[str], max_change: float) -> list[list[int]]:
    """Groups members by equal colour grids; returns one group of all members if one of them has no grid."""
    if not all(grids):
        return [list(members)]
    classes: list[list[int]] = []
    all_grids, rest = ColourGrids(grids), np.arange(len(grids))
    while len(rest):
        alike = all_grids.same(int(rest[0]), rest, max_change)
        classes.append([members[place] for place in rest[alike]])
        rest = rest[~alike]
    return classes


def _by_object(entries: Sequence[Entry], members: Sequence[int]) -> list[list[int]]:
    """Groups members (all of one picture) whose boxes belong to the same object."""
    if any(entries[n].box_px is None for n in members):
        return [list(members)]
    objects: list[list[int]] = []
    for number in members:
        matching = next((same for same in objects if same_object(entries[same[0]], entries[number])), None)
        if matching is None:
            objects.append([number])
        else:
            matching.append(number)
    return objects


def _rivals(entries: Sequence[Entry], members: Sequence[int]) -> dict[int, int]:
    """Returns for each picture of one object a picture with another name; empty if all names are the same."""
    first = members[0]
    other = next((n for n in members if entries[n].entity != entries[first].entity), None)
    if other is None:
        return {}
    return {n: first if entries[n].entity != entries[first].entity else other for n in members}


def _pairs_of_names(entries: Sequence[Entry], pictures: Sequence[Sequence[int]]) -> Iterator[tuple[int, int]]:
    """Yields the first picture with each picture of another name that differs from it only in a part."""
    first = pictures[0][0]
    others = (number for picture in pictures[1:] for number in picture)
    yield from ((first, number) for number in others if entries[number].entity != entries[first].entity)


def _shares(entry: Entry) -> Box:
    """Returns the box of an entry, 0-1 over the width and height of its picture."""
    x1, y1, x2, y2 = entry.box_px or (0.0, 0.0, float(entry.width), float(entry.height))
    return x1 / entry.width, y1 / entry.height, x2 / entry.width, y2 / entry.height
