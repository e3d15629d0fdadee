"""Assigns splits: seen and unseen entities, and training, validation and test pictures, without copies across them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from kvg.catalogue.copies import describe, find_copies, repeated_files
from kvg.catalogue.entry import Entry, Rejection
from kvg.catalogue.hashing import matches
from kvg.errors import ConfigError
from kvg.ranges import check_whole
from kvg.text.names import clean_name


@dataclass(frozen=True)
class SplitSettings:
    """Settings of the splits, section ``splits`` of a project file.

    Attributes:
        unseen: categories that are not trained on.
        held_out: share of the entities of every other category that are not trained on.
        val: share of the pictures of all other entities for validation.
        test: share of the same pictures for the test.
        min_train: number of pictures (copies count once) that each of these entities keeps for training, if it has as
            many. With 1, no entity is tested on that was never trained; an entity with one picture is only trained.
        copy_distance: pictures of similar colour are copies if at most this many of the 64 brightness bits of their
            fingerprints differ.
        copy_change: such pictures with different names show different objects if the colour of one of 12 x 12 cells
            differs by more than this, 0-255.
        two_names: ``drop`` leaves out pictures that seem to show one object under two names, ``keep`` only reports
            them.
    """

    unseen: Sequence[str] = ()
    held_out: float = 0.0
    val: float = 0.1
    test: float = 0.1
    min_train: int = 0
    copy_distance: int = 3
    copy_change: float = 20.0
    two_names: Literal["drop", "keep"] = "drop"

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ConfigError: a setting is outside its range.
        """
        for name in ("held_out", "val", "test"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"splits.{name}", f"{getattr(self, name)} is not a share; give 0 to 1")
        if self.val + self.test > 1:
            raise ConfigError("splits.val, test", f"{self.val} and {self.test} are more than the whole")
        check_whole("splits.min_train", self.min_train, 0)
        if not 0 <= self.copy_distance <= 15:
            raise ConfigError("splits.copy_distance", f"{self.copy_distance} is not within 0-15 bits")
        if not 0 <= self.copy_change <= 255:
            raise ConfigError("splits.copy_change", f"{self.copy_change} is not within 0-255")
        if self.two_names not in ("drop", "keep"):
            raise ConfigError("splits.two_names", f"{self.two_names!r} is none of drop, keep")


def assign_splits(
    entries: Sequence[Entry], settings: SplitSettings, seed: int, forbidden: Mapping[str, str]
) -> tuple[list[Entry], list[Rejection], list[str]]:
    """Assigns ``split`` and ``use`` to each entry.

    Copies, copies of copies, and all cuts of one file form a group. All pictures of a group get the same use. It comes
    from a hash that does not depend on other groups, unless ``min_train`` moves the group to the training part. These
    pictures are rejected: pictures that look like a forbidden picture; all but the first of byte-identical files;
    identical files under two names; and, unless ``two_names`` keeps them, pictures that seem to show one object under
    two names.

    Args:
        entries: pictures in a fixed order.
        settings: settings of the splits.
        seed: seed of the hashes.
        forbidden: fingerprints of pictures that must not be trained on, by name.

    Returns:
        The entries with their splits, and the rejections, both in the order of ``entries``; and suspicions in words.

    Raises:
        ConfigError: ``unseen`` names a category that does not occur.
    """
    unseen_names = {clean_name(name) for name in settings.unseen}
    unknown = unseen_names - {entry.category for entry in entries}
    if unknown:
        raise ConfigError("splits.unseen", f"{sorted(unknown)} are no categories of these sources; correct the names")
    copied = _copies_of_forbidden(entries, forbidden, settings.copy_distance)
    copies = find_copies(entries, settings.copy_distance, settings.copy_change)
    repeated = repeated_files(entries)
    sides = _Sides(entries, copies.groups, settings, seed)
    kept, rejected = [], []
    for number, entry in enumerate(entries):
        field, reason = "copy", repeated.get(number, "")
        if copied[number]:
            reason = f"looks the same as {copied[number]}, which must not be trained on"
        elif not reason and number in copies.rivals and settings.two_names == "drop":
            field, reason = "suspected copy", _suspicion(entries[copies.rivals[number]])
        if reason:
            rejected.append(Rejection(entry.source, entry.ref, field, reason))
        else:
            split = "unseen" if sides.is_unseen(entry) else "seen"
            kept.append(replace(entry, split=split, use=sides.use(copies.groups[number])))
    rivals = {n: other for n, other in copies.rivals.items() if not copied[n] and n not in repeated}
    return kept, rejected, _suspicions(entries, rivals, copies.lookalikes, settings.two_names == "drop")


class _Sides:
    """The use of each group of copies."""

    def __init__(self, entries: Sequence[Entry], groups: Sequence[int], settings: SplitSettings, seed: int) -> None:
        self.settings, self.seed = settings, seed
        self._unseen_categories = {clean_name(name) for name in settings.unseen}
        self._held_out: dict[tuple[str, str], bool] = {}
        self._draws: dict[int, str] = {}
        self._unseen_groups: set[int] = set()
        for entry, group in zip(entries, groups, strict=True):
            self._draws[group] = min(self._draws.get(group, entry.sha256), entry.sha256)
            if self.is_unseen(entry):
                self._unseen_groups.add(group)
        self._trained = self._least_trained(entries, groups)

    def is_unseen(self, entry: Entry) -> bool:
        """Returns whether the entity of an entry is not trained on."""
        key = entry.category, entry.entity
        if key not in self._held_out:
            self._held_out[key] = _share(self.seed, *key) < self.settings.held_out
        return entry.category in self._unseen_categories or self._held_out[key]

    def use(self, group: int) -> str:
        """Returns the use of all pictures of a group; a group with an unseen entity is not trained on."""
        val, test, draw = self.settings.val, self.settings.test, _share(self.seed, self._draws[group])
        if group in self._unseen_groups:  # val and test share the whole group, since none of it is trained on
            return "val" if draw * (val + test) < val else "test"
        if group in self._trained:
            return "train"
        return "val" if draw < val else "test" if draw < val + test else "train"

    def _least_trained(self, entries: Sequence[Entry], groups: Sequence[int]) -> set[int]:
        """Returns the groups that ``min_train`` keeps for training: of each entity those with the largest hashes."""
        by_entity: dict[tuple[str, str], set[int]] = {}
        for entry, group in zip(entries, groups, strict=True):
            if group not in self._unseen_groups:
                by_entity.setdefault((entry.category, entry.entity), set()).add(group)
        trained = set[int]()
        for own in by_entity.values():
            ordered = sorted(own, key=lambda group: _share(self.seed, self._draws[group]), reverse=True)
            trained.update(ordered[: self.settings.min_train])
        return trained


def _copies_of_forbidden(entries: Sequence[Entry], forbidden: Mapping[str, str], max_distance: int) -> list[str]:
    """Returns for each picture the name of the forbidden picture that it or its file looks like, or ''."""
    forbidden_hashes = {name: int(value, 16) for name, value in forbidden.items()}
    if not forbidden_hashes:
        return [""] * len(entries)
    hashes = [int(entry.fingerprint, 16) for entry in entries]
    cut_numbers = [number for number, entry in enumerate(entries) if entry.file_fingerprint]
    copied_names = matches(
        forbidden_hashes, [*hashes, *(int(entries[n].file_fingerprint, 16) for n in cut_numbers)], max_distance
    )
    for number, name in zip(cut_numbers, copied_names[len(entries) :], strict=True):
        copied_names[number] = copied_names[number] or name
    return copied_names[: len(entries)]


def _suspicion(rival: Entry) -> str:
    remedy = "correct the names; or, if they are two objects, set splits.two_names: keep, or a lower splits.copy_change"
    return f"seems to show the same as {describe(rival)}; {remedy}"


def _suspicions(
    entries: Sequence[Entry], rivals: Mapping[int, int], lookalikes: Sequence[tuple[int, int]], dropped: bool
) -> list[str]:
    """Returns remarks about possible errors in the names of pictures."""
    lines = []
    if rivals:
        first = min(rivals)
        state = "are left out (splits.two_names: drop)" if dropped else "are kept (splits.two_names: keep)"
        lines.append(
            f"{len(rivals)} pictures seem to show the same as one of another name, and {state}; the first: "
            f"{entries[first].ref} ({entries[first].entity}) and {describe(entries[rivals[first]])}"
        )
    if lookalikes:
        one, other = (entries[number] for number in lookalikes[0])
        lines.append(
            f"{len(lookalikes)} pictures differ from one of another name only in a part, like objects on one "
            f"background, and are kept; the first: {other.ref} ({other.entity}) and {describe(one)}"
        )
    return lines


def _share(seed: int, *words: str) -> float:
    """Returns a number in [0, 1) that depends only on the words and the seed."""
    digest = hashlib.sha256("\0".join((str(seed), *words)).encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
