"""Who may see which picture: seen and unseen entities; training, validation and test; and no copy on two sides."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from kvg.catalogue.entry import Entry, Rejection
from kvg.catalogue.hashing import groups_of_copies, matches
from kvg.errors import ConfigError


@dataclass(frozen=True)
class SplitSettings:
    """How pictures are shared out.

    Attributes:
        unseen: categories of which nothing is trained on.
        held_out: share of the entities of every other category of which nothing is trained on, either.
        val: share of the pictures of all other entities that validate.
        test: share that test.
        copy_distance: pictures that are alike in colour are copies of each other where at most this many of the 64 bits
            that tell of light and dark differ.
    """

    unseen: Sequence[str] = ()
    held_out: float = 0.0
    val: float = 0.1
    test: float = 0.1
    copy_distance: int = 3

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ConfigError: a setting cannot work.
        """
        for name in ("held_out", "val", "test"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"splits.{name}", f"{getattr(self, name)} is not a share; give 0 to 1")
        if self.val + self.test > 1:
            raise ConfigError("splits.val, test", f"{self.val} and {self.test} are more than the whole")
        if not 0 <= self.copy_distance <= 15:
            raise ConfigError("splits.copy_distance", f"{self.copy_distance} is not within 0-15 bits")


def share_out(
    entries: Sequence[Entry], settings: SplitSettings, seed: int, forbidden: Mapping[str, str]
) -> tuple[list[Entry], list[Rejection]]:
    """Gives each entry its split and its use.

    Copies, and copies of copies, are one group. A group that shows a forbidden picture is left out, and so is one whose
    pictures bear different names; of files that are equal to the last byte only the first is kept. Of the rest each
    group goes to one side as a whole, by a draw that does not depend on what else there is.

    Args:
        entries: in a fixed order.
        settings: see there.
        seed: of the draws.
        forbidden: fingerprints of pictures that must not be trained on, by name.

    Returns:
        What is kept, and what is left out; all in the order of ``entries``.

    Raises:
        ConfigError: ``unseen`` names a category that does not occur.
    """
    unknown = set(settings.unseen) - {entry.category for entry in entries}
    if unknown:
        raise ConfigError("splits.unseen", f"{sorted(unknown)} are no categories of these sources; correct the names")
    hashes = [int(entry.fingerprint, 16) for entry in entries]
    wanted = {name: int(value, 16) for name, value in forbidden.items()}
    copied = matches(wanted, hashes, settings.copy_distance) if wanted else [""] * len(entries)
    groups = groups_of_copies(hashes, settings.copy_distance)
    members = defaultdict(list)
    for number, group in enumerate(groups):
        members[group].append(number)
    kept, left = [], []
    first: dict[str, str] = {}
    for number, entry in enumerate(entries):
        own = members[groups[number]]
        names = sorted({entries[n].entity for n in own})
        reason = ""
        if copied[number]:
            reason = f"shows the same as {copied[number]}, which must not be trained on"
        elif len(names) > 1:
            reason = f"the same picture bears {len(names)} names: {', '.join(names[:4])}"
        elif first.setdefault(entry.sha256, f"{entry.source}: {entry.ref}") != f"{entry.source}: {entry.ref}":
            reason = f"is the same file as {first[entry.sha256]}"
        if reason:
            left.append(Rejection(entry.source, entry.ref, "copy", reason))
            continue
        unseen = entry.category in settings.unseen or _share(seed, entry.category, entry.entity) < settings.held_out
        draw = _share(seed, min(entries[n].sha256 for n in own))
        use = "val" if draw < settings.val else "test" if draw < settings.val + settings.test else "train"
        if unseen:  # there is nothing to train on, so all of it serves
            use = "val" if draw * (settings.val + settings.test) < settings.val else "test"
        kept.append(replace(entry, split="unseen" if unseen else "seen", use=use))
    return kept, left


def _share(seed: int, *words: str) -> float:
    """A number in [0, 1) that depends on nothing but these words and the seed."""
    digest = hashlib.sha256("\0".join((str(seed), *words)).encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
