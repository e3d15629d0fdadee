"""Pictures of the catalogue as model input: opaque, shrunk, and cached so that each is opened once."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from kvg.catalogue.entry import Entry, open_entry
from kvg.catalogue.listing import PictureSource
from kvg.work.files import disk_errors

NEUTRAL = (127, 127, 127)  # background of cut-outs: equally far from black and from white
_QUALITY = 95
_START, _END = b"\xff\xd8", b"\xff\xd9"


class PreparedPictures:
    """A cache of pictures for a model. Several processes may prepare the same picture.

    Args:
        folder: folder of the cache.
        sources: sources of the project, by name.
        max_side: maximum side in pixels; larger pictures are shrunk.
        max_pixels: larger pictures are not opened.
    """

    def __init__(self, folder: Path, sources: Mapping[str, PictureSource], max_side: int, max_pixels: int) -> None:
        self.folder, self.sources, self.max_side, self.max_pixels = folder, sources, max_side, max_pixels

    def read(self, entry: Entry) -> bytes:
        """Returns the picture of an entry as JPEG.

        Raises:
            DataError: the picture cannot be read or has changed since the scan, or the disk is full.
        """
        words = f"{entry.source}\0{entry.ref}\0{entry.sha256}\0{self.max_side}"
        words += f"\0{entry.cut_px}" if entry.cut_px else ""
        name = hashlib.sha256(words.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        path = self.folder / name[:2] / f"{name}.jpg"
        if path.is_file() and _is_whole(data := path.read_bytes()):
            return data
        data = self._made(entry)
        with disk_errors(self.folder):
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(f".{os.getpid()}.partial")
            partial.write_bytes(data)
            os.replace(partial, path)
        return data

    def _made(self, entry: Entry) -> bytes:
        image = opaque(open_entry(self.sources, entry, self.max_pixels))
        image.thumbnail((self.max_side, self.max_side), Image.Resampling.LANCZOS, reducing_gap=2.0)
        file = io.BytesIO()
        image.save(file, "JPEG", quality=_QUALITY)
        return file.getvalue()


def opaque(image: Image.Image) -> Image.Image:
    """Converts a picture to RGB; transparent parts become a neutral grey."""
    if image.mode != "RGBA":
        return image.convert("RGB")
    ground = Image.new("RGBA", image.size, (*NEUTRAL, 255))
    return Image.alpha_composite(ground, image).convert("RGB")


def _is_whole(data: bytes) -> bool:
    return data.startswith(_START) and data.endswith(_END)
