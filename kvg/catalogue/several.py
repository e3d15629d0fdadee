"""Lists pictures with several objects: each object becomes a picture of its own, or all are rejected."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kvg.catalogue.listing import Listed, Listing, Unusable


@dataclass(frozen=True)
class NamedObject:
    """One of the objects of a picture.

    Attributes:
        name: name that is unique on the picture, such as the id of the annotation.
        listing: listing of the picture with the box of this object.
    """

    name: str
    listing: Listing


def split_objects(objects: Sequence[NamedObject], others: Sequence[Any] = ()) -> Iterator[Listed]:
    """Lists the objects of one picture.

    A single object keeps the whole picture. Several objects are each cut out under the name ``path#object``, or all
    rejected; see ``BoxRules.several``.

    Args:
        objects: objects that can be used.
        others: boxes of other objects on the picture, as the source writes them; None for an unknown box.
    """
    num = len(objects) + len(others)
    for number, named_object in enumerate(objects):
        listing, ref = named_object.listing, f"{named_object.listing.ref}#{named_object.name}"
        if num == 1:
            yield listing
        elif listing.rules.several == "reject":
            yield Unusable(ref, "several", f"is one of {num} objects on its picture; set several: crop to cut each out")
        elif listing.box is None:
            yield Unusable(ref, "box", f"is missing, and there are {num} objects on its picture; give each its box")
        else:
            other_boxes = [other.listing.box for other in (*objects[:number], *objects[number + 1 :])]
            known_boxes = tuple(box for box in (*other_boxes, *others) if box is not None and box != listing.box)
            yield replace(listing, ref=ref, others=known_boxes)
