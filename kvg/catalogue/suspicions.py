"""Checks all pictures of a source together: boxes in another form than declared, names in several spellings."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kvg.box_forms import BoxForm
from kvg.catalogue.entry import Entry, Rejection
from kvg.catalogue.examine import FORMS
from kvg.text.names import caseless

_MOST = 0.5  # above this share of misfits the other boxes of a source are rejected, too
_MAX_NAMES = 10  # maximum number of groups of names in one message


@dataclass(frozen=True)
class Boxed:
    """A picture whose source gives a box.

    Attributes:
        record: its entry or rejection.
        form: form of the box that the source declares.
        fitting: see ``kvg.catalogue.examine.Examined``.
    """

    record: Entry | Rejection
    form: BoxForm
    fitting: Sequence[int]

    @property
    def fits(self) -> bool:
        """Returns whether the box lies inside its picture in the declared form."""
        return FORMS.index(self.form) in self.fitting


def doubtful_forms(boxed: Iterable[Boxed]) -> tuple[list[str], list[Rejection]]:
    """Finds sources with boxes outside their pictures, while all boxes would lie inside in another form.

    If most boxes of a source do not fit, the others fit by chance, and their pictures are rejected.

    Args:
        boxed: all pictures with a box that could be opened.

    Returns:
        Suspicions in words, and rejections of entries.
    """
    of_source: dict[tuple[str, BoxForm], list[Boxed]] = defaultdict(list)
    for picture in boxed:
        of_source[picture.record.source, picture.form].append(picture)
    lines: list[str] = []
    rejections: list[Rejection] = []
    for (source, form), pictures in of_source.items():
        misfits = sum(not picture.fits for picture in pictures)
        common = set(range(len(FORMS))).intersection(*(picture.fitting for picture in pictures))
        others = [FORMS[number] for number in sorted(common) if FORMS[number] != form]
        of_unit = [other for other in others if other.unit == form.unit]
        # Nearly all boxes in pixels are also valid in 0-1000, so a few misfits do not make another unit likely.
        others = of_unit or (others if misfits > _MOST * len(pictures) else [])
        if not misfits or not others:
            continue
        first = others[0]
        fitting_forms = " or ".join(f"{other.format} in {other.unit}" for other in others)
        setting = f"box_unit: {first.unit} and box_format: {first.format}"
        finding = f"{misfits} of {len(pictures)} boxes do not lie inside their pictures as {form.format} in {form.unit}"
        lines.append(f"{source}: {finding}; all would as {fitting_forms}: state {setting}, or correct the boxes")
        if misfits > _MOST * len(pictures):
            reason = f"lies inside its picture by chance: {finding}; state {setting}, or correct them"
            entries = [picture.record for picture in pictures if isinstance(picture.record, Entry)]
            rejections += [Rejection(source, entry.ref, "box", reason) for entry in entries]
    return lines, rejections


def spellings(entries: Sequence[Entry]) -> list[str]:
    """Reports names of entities and categories that differ only in capitals, with their numbers of pictures."""
    lines = []
    for kind, field in (("entities", "entity"), ("categories", "category")):
        counts = Counter(str(getattr(entry, field)) for entry in entries)
        by_letters: dict[str, list[str]] = defaultdict(list)
        for name in sorted(counts):
            by_letters[caseless(name)].append(name)
        groups = [names for names in by_letters.values() if len(names) > 1]
        if groups:
            examples = "; ".join(
                " and ".join(f"{name!r} ({counts[name]})" for name in names) for names in groups[:_MAX_NAMES]
            )
            more = f"; and {len(groups) - _MAX_NAMES} more" if len(groups) > _MAX_NAMES else ""
            lines.append(
                f"{len(groups)} {kind} are written in different capitals, and count as several: {examples}{more}"
            )
    return lines
