"""Picture files as they are found in the wild, read the same way everywhere: upright, eight bits, RGB or RGBA."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from kvg.errors import DataError

MAX_PIXELS = 64_000_000  # decoded, four bytes each: 256 MB
_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N", "I")


def read_picture(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decodes a picture whole.

    What it holds counts, not how its file is called. A picture that was turned by its camera's note (EXIF) comes
    upright, of an animation comes the first frame, sixteen bits become eight, CMYK and palettes become RGB.

    Args:
        data: the file's bytes.
        name: what errors call it.
        max_pixels: larger ones are not decoded.

    Returns:
        RGB, or RGBA where anything is transparent.

    Raises:
        DataError: nothing can be decoded, or not all of it, or it is larger than ``max_pixels``.
    """
    if not data:
        raise DataError(name, "image", "is empty (zero bytes); fetch it again or remove it")
    with _faults(name, data):
        image = Image.open(io.BytesIO(data))
        width, height = image.size
        if width * height > max_pixels:
            remedy = f"has {width}x{height} pixels, more than {max_pixels}; make it smaller or raise max_pixels"
            raise DataError(name, "image", remedy)
        image.load()
        transparent = image.has_transparency_data
        upright = ImageOps.exif_transpose(image)
        if upright.mode in _SIXTEEN_BITS:
            upright = upright.convert("I").point(lambda value: value / 257).convert("L")
        return upright.convert("RGBA" if transparent else "RGB")


def read_file(path: Path, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Reads a picture's file; see ``read_picture``.

    Raises:
        DataError: as ``read_picture``, or the file cannot be opened.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(str(path), "image", f"cannot be opened ({error.strerror}); correct the path") from error
    return read_picture(data, str(path), max_pixels)


@contextmanager
def _faults(name: str, data: bytes) -> Iterator[None]:
    """Whatever a decoder stumbles on becomes one kind of error: damaged files raise nearly anything."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes, which are checked here, and of odd metadata
            yield
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(name, "image", "is far too large to be decoded; make it smaller") from error
    except Exception as error:
        raise DataError(name, "image", _reason(data, error)) from error


def _reason(data: bytes, error: Exception) -> str:
    head = data[:512].lstrip().lower()
    if head.startswith((b"<svg", b"<?xml")):
        return "is a drawing in SVG, whatever its name says; turn it into PNG"
    if head.startswith((b"<!doctype", b"<html")):
        return "is a web page, not a picture; fetch the picture itself"
    if isinstance(error, UnidentifiedImageError):  # its own words tell the address of an object
        return "is no picture of any known kind, whatever its name says; fetch it again or remove it"
    if "truncated" in str(error) or "broken" in str(error):
        return f"is cut off ({error}); fetch it again or remove it"
    return f"cannot be decoded ({error}); fetch it again or remove it"
