"""Prepares pictures for a client, equal to the input of a local backbone."""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from kvg.errors import ConfigError, DataError
from kvg.pictures import orientation, read_rgb
from kvg.ranges import check_whole
from kvg.shards.schema import check_box
from kvg.text.box_codec import ImageSize
from kvg.types import Sample


@dataclass(frozen=True)
class SentSize:
    """Size limits for resizing pictures before sending, by the rule of the Qwen-VL families.

    A server with the same limits does not resize such a picture again, so that pixel coordinates in an answer refer to
    the picture that was sent.

    Attributes:
        max_pixels: largest area.
        min_pixels: smallest area.
        cell: sides are multiples of it: 28 for Qwen2-VL and Qwen2.5-VL, 32 for Qwen3-VL; 1 keeps sides within the
            limits as they are.

    Raises:
        ConfigError: no picture fits.
    """

    max_pixels: int
    min_pixels: int = 56 * 56
    cell: int = 28

    def __post_init__(self) -> None:
        """Checks the numbers."""
        for name, low in (("cell", 1), ("min_pixels", 1), ("max_pixels", 1)):
            check_whole(f"model.sent_size.{name}", getattr(self, name), low)
        if max(self.min_pixels, self.cell**2) > self.max_pixels:
            remedy = f"{self.max_pixels} is less than min_pixels or one cell of {self.cell}x{self.cell}; raise it"
            raise ConfigError("model.sent_size.max_pixels", remedy)

    def of(self, width: int, height: int) -> ImageSize:
        """Both sizes of a picture: as stored, and as sent.

        Raises:
            ValueError: its sides are too unequal.
        """
        resized_height, resized_width = smart_resize(height, width, self.cell, self.min_pixels, self.max_pixels)
        return ImageSize(width, height, resized_width, resized_height)


def sent_picture(sample: Sample, size: SentSize | None) -> bytes:
    """The encoded picture of a sample for a client; its own file if that needs no conversion.

    Args:
        sample: with its picture, which is checked against the record.
        size: limits for resizing; None keeps the size.

    Returns:
        An encoded JPEG or PNG: upright, RGB, on white where it is transparent.

    Raises:
        DataError: the picture does not decode, cannot be resized, or is not that of the record.
    """
    image = read_rgb(sample.image, sample.key)
    if image.size != (sample.width, sample.height):
        sizes = f"the picture is {image.width}x{image.height}, the record says {sample.width}x{sample.height}"
        raise DataError(sample.key, "width, height", f"{sizes}; write the size of the stored picture")
    for number, item in enumerate(sample.objects):
        check_box(item.box_px, *image.size, sample.key, f"objects[{number}].box_px")
    try:
        both = size.of(*image.size) if size else ImageSize(*image.size, *image.size)
    except ValueError as error:
        remedy = f"{image.width}x{image.height} cannot be resized ({error}); crop it"
        raise DataError(sample.key, "image", remedy) from error
    resized = both.resized_width, both.resized_height
    if image.size == resized and _shows_itself(sample.image):
        return sample.image
    if image.size != resized:
        image = image.resize(resized, Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _shows_itself(data: bytes) -> bool:
    """Whether every decoder gives the same pixels as ``read_rgb``: RGB, without an EXIF rotation."""
    with Image.open(io.BytesIO(data)) as header:
        return header.format in ("JPEG", "PNG") and header.mode == "RGB" and orientation(header) == 1
