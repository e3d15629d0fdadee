"""One reader of pictures for the whole project: upright, eight bits a channel, RGB or RGBA.

Whatever decodes a picture (``kvg-data scan``, the published formats, shards, training, evaluation, pages) does it here,
so that one file looks the same everywhere.
"""

from __future__ import annotations

import io
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from kvg.errors import DataError
from kvg.types import Box

MAX_PIXELS: Final = 64_000_000  # decoded, four bytes each: 256 MB
_ORIENTATION: Final = 0x0112  # EXIF tag
_NOTES: Final = frozenset({"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"})  # may hold an orientation
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_DEEP: Final = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")  # more than eight bits a channel
_STORED: Final = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png"}  # MPO: a JPEG with further pictures behind it


def read_picture(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decodes a picture whole.

    The content counts, not the name of the file. EXIF orientation is applied, of an animation comes the first frame,
    CMYK and palettes become RGB. Bytes behind the end of the picture (padding, the trailer of a phone, a film) are
    left alone.

    Sixteen bits become eight by scale (65,535 is white). Floating-point pixels are taken as 0-1 where none is larger
    than 1, as 0-255 where none is larger than 255, else as 0 to the largest; what is no number is black.

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
    with _decoder_errors(name, data):
        image = _opened(data, name, max_pixels)
        turned = orientation(image)
        image.load()
        _check_end(data)
        transparent = image.has_transparency_data
        if turned != 1 and image.format != "TIFF":
            image = ImageOps.exif_transpose(image)
        if image.mode in _DEEP:
            image = _eight_bits(image)
        mode = "RGBA" if transparent else "RGB"
        return image if image.mode == mode else image.convert(mode)


def read_rgb(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decodes a picture as ``read_picture``, on white where it is transparent.

    Raises:
        DataError: as ``read_picture``.
    """
    return as_rgb(read_picture(data, name, max_pixels))


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


def as_rgb(image: Image.Image) -> Image.Image:
    """A decoded picture as RGB, on white where it is transparent; one that is RGB is not copied."""
    if image.mode == "RGB":
        return image
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def picture_size(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Width and height of the upright picture, in pixels, from its header alone.

    Raises:
        DataError: the header cannot be read, or the picture is larger than ``max_pixels``.
    """
    with _decoder_errors(name, data):
        image = _opened(data, name, max_pixels)
        return _swapped(image) if orientation(image) >= 5 and image.format != "TIFF" else image.size


def check_complete(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> None:
    """Checks that a picture is not cut off; it is decoded only where its end mark does not stand at its end.

    Raises:
        DataError: it is cut off, or cannot be decoded.
    """
    if not _ends_with_mark(data):
        read_picture(data, name, max_pixels)


def standard_picture(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> tuple[bytes, int, int]:
    """A picture as shards store it: JPEG or PNG, upright, eight bits a channel.

    JPEG and PNG files that are so already keep their bytes; all others are written anew as PNG.

    Returns:
        The file's bytes, and width and height in pixels.

    Raises:
        DataError: as ``read_picture``.
    """
    with _decoder_errors(name, data):
        header = _opened(data, name, max_pixels)
        as_it_is = header.format in _STORED and header.mode not in _DEEP and orientation(header) == 1
    if as_it_is:
        check_complete(data, name, max_pixels)
        return data, header.width, header.height
    image = read_picture(data, name, max_pixels)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue(), image.width, image.height


def raw_orientation(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> tuple[int, int, int]:
    """How a file's pixels lie: width and height as stored, and the EXIF orientation (1: upright).

    Raises:
        DataError: the header cannot be read, or the picture is larger than ``max_pixels``.
    """
    with _decoder_errors(name, data):
        image = _opened(data, name, max_pixels)
        turned = orientation(image)
        width, height = _swapped(image) if turned >= 5 and image.format == "TIFF" else image.size
        return width, height, turned


def upright_box(box: Box, width: int, height: int, turned: int) -> Box:
    """A box of the pixels as a file stores them, in the upright picture.

    Args:
        box: x1, y1, x2, y2 in pixels as stored.
        width: of the pixels as stored.
        height: of the pixels as stored.
        turned: EXIF orientation, 1 to 8.

    >>> upright_box((10, 20, 30, 25), 100, 50, 6)  # shown turned by 90 degrees to the right
    (25, 10, 30, 30)
    """
    x1, y1, x2, y2 = box
    if turned in (5, 7):  # mirrored along a diagonal
        flip = (y1, x1, y2, x2) if turned == 5 else (height - y2, width - x2, height - y1, width - x1)
        return flip
    if turned in (2, 3):
        x1, x2 = width - x2, width - x1
    if turned in (3, 4):
        y1, y2 = height - y2, height - y1
    if turned == 6:
        return height - y2, x1, height - y1, x2
    if turned == 8:
        return y1, width - x2, y2, width - x1
    return x1, y1, x2, y2


def orientation(image: Image.Image) -> int:
    """EXIF orientation of an opened picture, 1 to 8; 1 (upright) where it has none, or one that is damaged."""
    if not (_NOTES & image.info.keys() or image.format == "TIFF"):
        return 1  # most pictures, without parsing anything
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a damaged note makes its parser raise nearly anything; the pixels are not touched by it
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _swapped(image: Image.Image) -> tuple[int, int]:
    return image.height, image.width  # the size that Pillow gives is that of the stored pixels, but of a TIFF upright


def _opened(data: bytes, name: str, max_pixels: int) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    width, height = image.size
    if width * height > max_pixels:
        remedy = f"has {width}x{height} pixels, more than {max_pixels}; make it smaller or raise max_pixels"
        raise DataError(name, "image", remedy)
    if image.format == "PNG" and b"eXIf" in data:
        image.load()  # the note may stand behind the pixels
    return image


def _ends_with_mark(data: bytes) -> bool:
    return (b"IEND" if data.startswith(_PNG) else b"\xff\xd9") in data[-64:]


def _check_end(data: bytes) -> None:
    """Finds the end of a JPEG or PNG in front of whatever follows it.

    Decoders take what fills up a file that was cut off (zeros of a download that never ended) for pixels.
    """
    if _ends_with_mark(data):
        return
    if data.startswith(_PNG):
        place = len(_PNG)
        while len(data) - place >= 12 and (kind := data[place + 4 : place + 8]) != b"IEND":
            end = place + 12 + int.from_bytes(data[place : place + 4], "big")
            checksum = int.from_bytes(data[end - 4 : end], "big")
            if end > len(data) or not kind.isalpha() or checksum != zlib.crc32(data[place + 4 : end - 4]):
                raise OSError("image file is truncated")
            place = end
    elif data.startswith(b"\xff\xd8"):
        place = 2
        while data[place : place + 1] == b"\xff" and data[place + 1 : place + 2] != b"\xda":  # headers, then pixels
            place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        if data.find(b"\xff\xd9", place) < 0:
            raise OSError("image file is truncated")


def _eight_bits(image: Image.Image) -> Image.Image:
    pixels = np.nan_to_num(np.asarray(image, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    largest = float(pixels.max())
    if image.mode == "F":
        scale = 255.0 if largest <= 1 else 1.0 if largest <= 255 else 255 / largest
    else:
        scale = 1 / 257 if largest <= 65_535 else 255 / largest
    return Image.fromarray(np.clip(np.rint(pixels * scale), 0, 255).astype(np.uint8))


@contextmanager
def _decoder_errors(name: str, data: bytes) -> Iterator[None]:
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
