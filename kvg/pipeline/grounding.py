"""The box of an entity on a picture: a model's answer in each box convention, and the picture with the box."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from PIL import Image, ImageDraw, ImageFont

from kvg.errors import ConfigError, DataError
from kvg.pictures import read_rgb
from kvg.text.box_codec import ImageSize, to_norm
from kvg.types import Box
from kvg.work.files import disk_errors

MARK: Final = ".boxed"  # before the suffix of a picture with a box
SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".webp")  # of pictures that are written
BOX_COLOUR: Final = (255, 40, 40)
_EDGE: Final = (255, 255, 255)
_QUALITY: Final = 92
_WIDTH_SHARE: Final = 160  # the line's width is the shorter side of the picture through this
_LABEL_LINES: Final = 6  # height of a label in widths of the line


@dataclass(frozen=True)
class Grounding:
    """Where a model sees an entity.

    Attributes:
        entity: its name.
        image: name of the picture.
        width: of the upright picture, in pixels.
        height: of the upright picture, in pixels.
        text: the whole completion.
        rationale: text inside the think tags; '' if there is none.
        box_px: x1, y1, x2, y2 in pixels of the upright picture, corners as the model wrote them; None if the answer
            has no box.
        finish_reason: ``stop``, or ``length`` if the completion was cut off.
        num_tokens: length of the completion.
        picture: the file's bytes.
    """

    entity: str
    image: str
    width: int
    height: int
    text: str
    rationale: str
    box_px: Box | None
    finish_reason: str
    num_tokens: int | None
    picture: bytes = field(repr=False, compare=False)

    @property
    def box_norm(self) -> Box | None:
        """The box on the 0-1000 grid; None without a box."""
        if self.box_px is None:
            return None
        return to_norm(self.box_px, ImageSize(self.width, self.height, self.width, self.height))

    @property
    def box_unit(self) -> Box | None:
        """The box in shares of width and height, 0-1; None without a box."""
        if self.box_px is None:
            return None
        x1, y1, x2, y2 = self.box_px
        return x1 / self.width, y1 / self.height, x2 / self.width, y2 / self.height

    def record(self) -> dict[str, Any]:
        """All but the picture, as JSON data; boxes are rounded to 2 decimals, those in 0-1 to 5."""
        return {
            "image": self.image,
            "entity": self.entity,
            "box_px": _rounded(self.box_px, 2),
            "box_norm": _rounded(self.box_norm, 2),
            "box_unit": _rounded(self.box_unit, 5),
            "width": self.width,
            "height": self.height,
            "rationale": self.rationale,
            "text": self.text,
            "finish_reason": self.finish_reason,
            "num_tokens": self.num_tokens,
        }

    def with_box(self) -> Image.Image:
        """The upright picture with the box; without a box the picture alone."""
        image = read_rgb(self.picture, self.image).copy()
        if self.box_px is not None:
            draw_box(image, self.box_px)
        return image

    def save(self, path: str | Path) -> Path:
        """Writes the picture with the box.

        Args:
            path: file to write; its suffix decides the format.

        Returns:
            The path.

        Raises:
            ConfigError: the suffix is not one of ``SUFFIXES``.
            DataError: the file cannot be written.
        """
        path = check_suffix(Path(path))
        content = io.BytesIO()
        kind = {".png": "PNG", ".webp": "WEBP"}.get(path.suffix.lower(), "JPEG")
        self.with_box().save(content, kind, **({} if kind == "PNG" else {"quality": _QUALITY}))
        with disk_errors(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.getvalue())
        return path


def draw_box(image: Image.Image, box_px: Box, colour: tuple[int, int, int] = BOX_COLOUR, label: str = "") -> None:
    """Draws a box on a picture, with a light rim, so that the line stands out on any ground.

    Args:
        image: RGB; it is changed.
        box_px: in its pixels, corners in any order.
        colour: red, green and blue, 0-255.
        label: is written into the upper left corner of the box.
    """
    x1, y1, x2, y2 = box_px
    corners = min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)  # a model may swap corners
    line = max(2, min(image.size) // _WIDTH_SHARE)
    pen = ImageDraw.Draw(image)
    rim = max(1, line // 2)
    left, top, right, bottom = corners
    pen.rectangle((left - rim, top - rim, right + rim, bottom + rim), outline=_EDGE, width=line + 2 * rim)
    pen.rectangle(corners, outline=colour, width=line)
    if label:
        font = ImageFont.load_default(size=line * _LABEL_LINES)
        place = left + 2 * line, top + 2 * line
        x1, y1, x2, y2 = pen.textbbox(place, label, font=font)
        pen.rectangle((left, top, x2 + 2 * line, y2 + 2 * line), fill=colour)
        pen.text(place, label, fill=_EDGE, font=font)


def check_suffix(path: Path) -> Path:
    """Checks that a picture can be written under this name; returns it.

    Raises:
        ConfigError: it has another suffix.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError("--out", f"'{path}' must end in one of {', '.join(SUFFIXES)}")
    return path


def encoded_picture(picture: str | Path | bytes | Image.Image) -> tuple[str, bytes]:
    """Name and bytes of a picture.

    Args:
        picture: a path, the bytes of a file, or a PIL image, whose EXIF orientation counts as in a file.

    Raises:
        DataError: the file cannot be read.
    """
    if isinstance(picture, bytes):
        return "picture", picture
    if isinstance(picture, Image.Image):
        content = io.BytesIO()
        plain = picture if picture.mode in ("L", "RGB", "RGBA") else picture.convert("RGBA")
        plain.save(content, "PNG", exif=picture.getexif())
        return "picture", content.getvalue()
    path = Path(picture)
    try:
        return str(path), path.read_bytes()
    except IsADirectoryError as error:
        raise DataError(str(path), "image", "is a folder; give a picture") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(str(path), "image", f"cannot be opened ({reason}); correct the path") from error


def _rounded(box: Box | None, digits: int) -> list[float] | None:
    return None if box is None else [round(value, digits) for value in box]
