"""Opens a listed picture and decides whether it can be used."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, get_args

from PIL import Image

from kvg.box_forms import BoxForm, BoxFormat, BoxUnit
from kvg.catalogue.colour_grids import colour_grid
from kvg.catalogue.cutting import covered_share, moved_into, region_around
from kvg.catalogue.entry import Entry, Rejection, cut_out
from kvg.catalogue.hashing import perceptual_hash
from kvg.catalogue.listing import Listing, PictureSource
from kvg.catalogue.project import ScanSettings
from kvg.errors import DataError
from kvg.pictures import read_picture
from kvg.records import excerpt, is_utf8
from kvg.text.special_tokens import check_plain
from kvg.types import Box

OPAQUE = 127  # pixels with alpha above this belong to the entity; others are its soft edge
FORMS: Final = tuple(BoxForm(unit, order) for unit in get_args(BoxUnit) for order in get_args(BoxFormat))


@dataclass(frozen=True)
class Examined:
    """The result of opening a picture.

    Attributes:
        record: the entry for the catalogue, or a rejection.
        fitting: indices of the ``FORMS`` in which the listed box lies inside the picture; None if the source gives no
            box, or the picture could not be opened.
    """

    record: Entry | Rejection
    fitting: tuple[int, ...] | None = None


def examine(name: str, source: PictureSource, listing: Listing, settings: ScanSettings) -> Examined:
    """Opens one listed picture and checks it.

    Args:
        name: name of the source.
        source: source that lists the picture.
        listing: listing of the picture.
        settings: sizes of the pictures that are used, and sources of close-ups.
    """
    min_side = settings.min_side
    fitting: tuple[int, ...] | None = None
    try:
        for field in ("ref", "entity", "category"):
            _check_text(name, field, getattr(listing, field))
        data = source.read(listing.ref)
        image = read_picture(data, listing.ref, settings.max_pixels)

        def convert(raw: object, form: BoxForm) -> Box:
            return listing.rules.upright(raw, data, whole.size, listing.ref, form)

        whole = image
        if listing.box is not None:
            fitting = tuple(number for number, form in enumerate(FORMS) if _fits(convert, listing.box, form))
        given = None if listing.box is None else convert(listing.box, listing.rules.form)
        image, given, region = _cut(listing, image, given, convert)
        if min(image.size) < min_side:
            raise DataError(name, "size", f"is {image.width}x{image.height}, under {min_side} a side (min_side)")
        box, box_from = _box(image, given, name in settings.close_ups)
    except DataError as error:
        ref = listing.ref if isinstance(listing.ref, str) and listing.ref else excerpt(listing.ref)
        return Examined(Rejection(name, ref, error.field, error.remedy), fitting)
    inside = None if box is None else cut_out(image, _whole_pixels(box, image))
    entry = Entry(
        source=name,
        ref=listing.ref,
        entity=listing.entity,
        category=listing.category,
        width=image.width,
        height=image.height,
        sha256=hashlib.sha256(data).hexdigest(),
        fingerprint=f"{perceptual_hash(image):040x}",
        box_px=box,
        box_from=box_from,
        part=listing.part,
        licence=listing.licence,
        cut_px=region,
        file_fingerprint="" if region is None else f"{perceptual_hash(whole):040x}",
        box_fingerprint="" if inside is None else f"{perceptual_hash(inside):040x}",
        colour_grid=colour_grid(image),
        box_colour_grid="" if inside is None else colour_grid(inside),
    )
    return Examined(entry, fitting)


def opaque(image: Image.Image) -> Image.Image:
    """Returns the mask of the entity on an RGBA picture: 255 where it is opaque and 0 elsewhere, mode L."""
    return image.getchannel("A").point(lambda alpha: 255 * (alpha > OPAQUE))


def alpha_box(image: Image.Image) -> Box | None:
    """Returns the box around the opaque pixels; None if no pixel is transparent.

    Raises:
        DataError: no pixel is opaque.
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


def _box(image: Image.Image, given: Box | None, close_up: bool) -> tuple[Box | None, str]:
    """Returns the box of the entity and its origin; see ``kvg.catalogue.entry.Entry``."""
    if given is not None:
        return given, "given"
    around = alpha_box(image)
    if around is not None:
        return around, "alpha"
    return ((0.0, 0.0, float(image.width), float(image.height)), "picture") if close_up else (None, "")


_Converter = Callable[[object, BoxForm], Box]


def _fits(convert: _Converter, raw: object, form: BoxForm) -> bool:
    try:
        convert(raw, form)
    except DataError:
        return False
    return True


def _cut(
    listing: Listing, image: Image.Image, given: Box | None, convert: _Converter
) -> tuple[Image.Image, Box | None, Box | None]:
    """Cuts one object of several out of its picture; does not change other pictures.

    Returns:
        The picture, the box in it, and the region that was cut out.
    """
    if listing.others is None or given is None:
        return image, given, None
    others = [convert(raw, listing.rules.form) for raw in listing.others if _fits(convert, raw, listing.rules.form)]
    share = covered_share(given, others)
    if share > listing.rules.max_overlap:
        reason = f"is covered by another object's to {share:.0%}, more than max_overlap {listing.rules.max_overlap:g}"
        raise DataError(listing.ref, "overlap", f"its box {reason}; leave it out, or raise max_overlap")
    region = region_around(given, image.width, image.height, listing.rules.margin, others)
    return cut_out(image, region), moved_into(given, region), region


def _whole_pixels(box: Box, image: Image.Image) -> Box:
    """Returns the box of all pixels that a box touches, at least one pixel."""
    x1, y1 = min(int(box[0]), image.width - 1), min(int(box[1]), image.height - 1)
    x2, y2 = max(x1 + 1, -int(-box[2] // 1)), max(y1 + 1, -int(-box[3] // 1))
    return float(x1), float(y1), float(min(x2, image.width)), float(min(y2, image.height))


def _check_text(where: str, field: str, value: object) -> None:
    if not isinstance(value, str) or not value:
        raise DataError(where, field, f"the {field} is missing in the list; fill it in, or name its column")
    if field != "ref" and not is_utf8(value):
        raise DataError(where, field, f"{excerpt(value)} is no valid text; rename it")
    if field != "ref":
        check_plain(value, where, field)
