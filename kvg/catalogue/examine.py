"""Opens a listed picture and says whether it can be used."""

from __future__ import annotations

import hashlib
import math

from PIL import Image

from kvg.catalogue.entry import Entry, Rejection
from kvg.catalogue.hashing import perceptual_hash
from kvg.catalogue.listing import Listing, PictureSource
from kvg.errors import DataError
from kvg.pictures import read_picture
from kvg.types import Box

OPAQUE = 127  # alpha above this belongs to the entity; softer pixels are its rim
_SLACK = 1.5  # pixels that a box may reach over the rim: sets differ in whether the last pixel is counted


def examine(name: str, source: PictureSource, listing: Listing, min_side: int, max_pixels: int) -> Entry | Rejection:
    """Reads one picture whole.

    Args:
        name: of the source.
        source: that lists it.
        listing: what it says.
        min_side: pictures with a shorter side are not used.
        max_pixels: nor are larger ones.
    """
    try:
        for field in ("ref", "entity", "category"):
            if not getattr(listing, field):
                raise DataError(name, field, "is missing in the list; fill it in, or name its column")
        data = source.read(listing.ref)
        image = read_picture(data, listing.ref, max_pixels)
        if min(image.size) < min_side:
            raise DataError(name, "size", f"is {image.width}x{image.height}, under {min_side} a side (min_side)")
        given = checked_box(listing.box, image.width, image.height)
        found = given or alpha_box(image)
    except DataError as error:
        return Rejection(name, listing.ref, error.field, error.remedy)
    return Entry(
        source=name,
        ref=listing.ref,
        entity=listing.entity,
        category=listing.category,
        width=image.width,
        height=image.height,
        sha256=hashlib.sha256(data).hexdigest(),
        fingerprint=f"{perceptual_hash(image):040x}",
        box_px=found,
        box_from="given" if given else "alpha" if found else "",
        part=listing.part,
        licence=listing.licence,
    )


def opaque(image: Image.Image) -> Image.Image:
    """Where an RGBA picture shows its entity: 255 there and 0 elsewhere, mode L."""
    return image.getchannel("A").point(lambda alpha: 255 * (alpha > OPAQUE))


def alpha_box(image: Image.Image) -> Box | None:
    """The box of what is opaque; None for a picture in which nothing is transparent.

    Raises:
        DataError: nothing is opaque.
    """
    if image.mode != "RGBA":
        return None
    mask = opaque(image)
    if mask.getextrema() == (255, 255):
        return None
    bounds = mask.getbbox()
    if bounds is None:
        raise DataError("picture", "alpha", "is empty, so there is no entity on it; remove the picture")
    x1, y1, x2, y2 = bounds
    return float(x1), float(y1), float(x2), float(y2)


def checked_box(raw: object, width: int, height: int) -> Box | None:
    """A box as a source tells it, cut to its picture where it reaches over the rim by rounding.

    Raises:
        DataError: it is not four numbers, has no area, or does not lie in its picture.
    """
    if raw is None:
        return None
    try:
        x1, y1, x2, y2 = (float(value) for value in raw)  # type: ignore[attr-defined]
    except (TypeError, ValueError) as error:
        raise DataError("list", "box", f"{raw!r} is not [x1, y1, x2, y2] in pixels; correct it") from error
    inside = -_SLACK <= x1 < x2 <= width + _SLACK and -_SLACK <= y1 < y2 <= height + _SLACK
    cut = max(0.0, x1), max(0.0, y1), min(float(width), x2), min(float(height), y2)
    if not inside or not all(math.isfinite(v) for v in cut) or cut[0] >= cut[2] or cut[1] >= cut[3]:
        remedy = f"{(x1, y1, x2, y2)} does not lie inside its {width}x{height} picture; correct it (x1 < x2, y1 < y2)"
        raise DataError("list", "box", remedy)
    return cut
