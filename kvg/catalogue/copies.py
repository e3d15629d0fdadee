"""Which pictures are copies of each other, which of them bear two names, and which only look alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from kvg.catalogue.cutting import overlap
from kvg.catalogue.entry import Entry
from kvg.catalogue.hashing import Groups, groups_of_copies
from kvg.catalogue.looks import Looks
from kvg.types import Box

SAME_OBJECT: Final = 0.5  # overlap from which on two boxes on one picture are boxes of one object


@dataclass(frozen=True)
class Copies:
    """What is known of copies among pictures.

    Attributes:
        groups: for each picture the number of the first one of its group, whose pictures belong on one side of a split.
        rivals: for each picture that seems to show the same object as one of another name, the number of such a one.
        lookalikes: pairs of pictures of different names that are alike but for a part, as on one background.
    """

    groups: Sequence[int]
    rivals: dict[int, int]
    lookalikes: Sequence[tuple[int, int]]


def find_copies(entries: Sequence[Entry], max_distance: int, max_change: float) -> Copies:
    """Compares all pictures with each other.

    Pictures with near fingerprints are copies where they bear one name. Where they bear several, their coarse looks
    tell: pictures that differ somewhere show different things on one background. Boxes that lie apart on one picture
    belong to different objects of it. What is inside the boxes is compared in the same way, so that an object is found
    again in front of another background. Cuts of one file belong together, whatever they show.

    Args:
        entries: in a fixed order.
        max_distance: see ``groups_of_copies``.
        max_change: see ``Looks.same``.
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
        pictures = _by_look(members, [entries[n].look for n in members], max_change)
        for picture in pictures:
            _join(groups, picture)
            for thing in _by_object(entries, picture):
                rivals.update(_rivals(entries, thing))
        lookalikes += _pairs_of_names(entries, pictures)
    boxed = [number for number, entry in enumerate(entries) if entry.box_fingerprint]
    inside = [int(entries[n].box_fingerprint, 16) for n in boxed]
    for members in _classes(boxed, groups_of_copies(inside, max_distance)):
        for thing in _by_look(members, [entries[n].box_look for n in members], max_change):
            _join(groups, thing)
            rivals = {**_rivals(entries, thing), **rivals}
    return Copies([groups.first(n) for n in range(len(entries))], rivals, lookalikes)


def repeated_files(entries: Sequence[Entry]) -> dict[int, str]:
    """Why pictures whose files are equal to the last byte are left out, by their numbers.

    Of those that mean one object under one name the first is kept; of those that give it several names none.

    Args:
        entries: in a fixed order.
    """
    reasons: dict[int, str] = {}
    for members in _classes(range(len(entries)), ((entry.sha256, entry.cut_px) for entry in entries)):
        for thing in _by_object(entries, members):
            rivals = _rivals(entries, thing)
            for number in thing:
                if number in rivals:
                    other = entries[rivals[number]]
                    reasons[number] = f"is the same file as {named(other)}; correct one of the names"
                elif number != thing[0]:
                    first = entries[thing[0]]
                    reasons[number] = f"is the same file as {first.source}: {first.ref}"
    for members in _classes(range(len(entries)), ((entry.source, entry.ref) for entry in entries)):
        for number in members[1:]:
            reasons.setdefault(number, "is listed more than once; make one row of it, or name its objects' boxes")
    return reasons


def named(entry: Entry) -> str:
    """A picture and its name, as reasons tell of it."""
    return f"{entry.source}: {entry.ref}, which is named {entry.entity!r}"


def same_object(one: Entry, other: Entry) -> bool:
    """Whether two entries of one picture mean the same object: their boxes overlap, or one of them has no box."""
    if one.box_px is None or other.box_px is None:
        return True
    first, second = _shares(one), _shares(other)
    if one.look and other.look and one.look != other.look and Looks([one.look, other.look]).is_mirrored(0, 1):
        second = 1 - second[2], second[1], 1 - second[0], second[3]
    return overlap(first, second) >= SAME_OBJECT


def _classes(numbers: Iterable[int], keys: Iterable[object], least: int = 2) -> Iterator[list[int]]:
    """Numbers with equal keys, at least so many."""
    found: dict[object, list[int]] = defaultdict(list)
    for number, key in zip(numbers, keys, strict=True):
        found[key].append(number)
    yield from (members for members in found.values() if len(members) >= least)


def _join(groups: Groups, members: Sequence[int]) -> None:
    for other in members[1:]:
        groups.join(members[0], other)


def _by_look(members: Sequence[int], looks: Sequence[str], max_change: float) -> list[list[int]]:
    """Members whose looks are the same; what has no look is like everything."""
    if not all(looks):
        return [list(members)]
    classes: list[list[int]] = []
    all_looks, rest = Looks(looks), np.arange(len(looks))
    while len(rest):
        alike = all_looks.same(int(rest[0]), rest, max_change)
        classes.append([members[place] for place in rest[alike]])
        rest = rest[~alike]
    return classes


def _by_object(entries: Sequence[Entry], members: Sequence[int]) -> list[list[int]]:
    """Members of one picture that mean the same object of it."""
    if any(entries[n].box_px is None for n in members):
        return [list(members)]
    things: list[list[int]] = []
    for number in members:
        own = next((thing for thing in things if same_object(entries[thing[0]], entries[number])), None)
        if own is None:
            things.append([number])
        else:
            own.append(number)
    return things


def _rivals(entries: Sequence[Entry], thing: Sequence[int]) -> dict[int, int]:
    """For each picture of one thing one that gives it another name; nothing where all give it the same."""
    first = thing[0]
    other = next((n for n in thing if entries[n].entity != entries[first].entity), None)
    if other is None:
        return {}
    return {n: first if entries[n].entity != entries[first].entity else other for n in thing}


def _pairs_of_names(entries: Sequence[Entry], pictures: Sequence[Sequence[int]]) -> Iterator[tuple[int, int]]:
    """A pair for each picture that looks like the first one but for a part, and bears another name."""
    first = pictures[0][0]
    others = (number for picture in pictures[1:] for number in picture)
    yield from ((first, number) for number in others if entries[number].entity != entries[first].entity)


def _shares(entry: Entry) -> Box:
    """A box in shares of its picture."""
    x1, y1, x2, y2 = entry.box_px or (0.0, 0.0, float(entry.width), float(entry.height))
    return x1 / entry.width, y1 / entry.height, x2 / entry.width, y2 / entry.height
