"""Options of commands that read published files: the unit of their boxes, and what these refer to."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kvg.formats.written_boxes import Reading

BOX_UNITS: Final = ("pixels", "relative_1000", "unit")  # tests hold them against those of kvg.box_forms
BOXES_OF: Final = ("upright", "raw")


def add_reading_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    text = "of the boxes in published files: pixels, 0-1000 or 0-1 (default: what the form says; else rows are refused)"
    parser.add_argument("--box-unit", choices=BOX_UNITS, help=text)
    text = "what these boxes refer to: pictures as shown (default), or their pixels before EXIF turns them"
    parser.add_argument("--boxes-of", choices=BOXES_OF, default=BOXES_OF[0], help=text)


def reading_of(args: argparse.Namespace) -> Reading:
    """What the options declare."""
    from kvg.formats.written_boxes import Reading

    return Reading(args.box_unit, args.boxes_of)
