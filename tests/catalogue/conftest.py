"""Pictures as they are found in the wild, good ones and damaged ones, made with Pillow."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageDraw


def drawing(seed: int, size: tuple[int, int] = (96, 64)) -> Image.Image:
    """Blotches that no other seed has."""
    rng = random.Random(seed)
    image = Image.new("RGB", size, tuple(rng.randrange(256) for _ in range(3)))
    pen = ImageDraw.Draw(image)
    for _ in range(12):
        x, y = rng.randrange(size[0]), rng.randrange(size[1])
        radius = rng.randrange(4, max(5, min(size) // 2))
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), tuple(rng.randrange(256) for _ in range(3)))
    return image


def encoded(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def bomb() -> bytes:
    """A PNG of 60,000 x 60,000 pixels in a few hundred bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )


def good_ones(seed: int) -> dict[str, bytes]:
    """Unusual files that hold a whole picture, by file name."""
    image = drawing(seed)
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by 90 degrees
    deep = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    frames = [drawing(seed + n) for n in range(3)]
    return {
        f"cmyk-{seed}.jpg": encoded(image.convert("CMYK")),
        f"turned-{seed}.jpg": encoded(image, exif=turned),
        f"deep-{seed}.png": encoded(deep, "PNG"),
        f"animated-{seed}.gif": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        f"really-a-png-{seed}.jpg": encoded(image, "PNG"),
        f"palette-{seed}.png": encoded(image.quantize(256), "PNG"),
        f'it\'s "quoted" & <tagged> 🦉-{seed}.jpg': encoded(image),
    }


def bad_ones(seed: int) -> dict[str, tuple[bytes, str]]:
    """Files that hold none, by file name, with a word of the reason that is to be given."""
    whole = encoded(drawing(seed))
    return {
        f"empty-{seed}.jpg": (b"", "zero bytes"),
        f"cut-{seed}.jpg": (whole[: len(whole) // 2], "cut off"),
        f"cut-{seed}.png": (encoded(drawing(seed), "PNG")[:600], "cut off"),
        f"drawing-{seed}.jpg": (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        f"page-{seed}.jpg": (b"<!DOCTYPE html><html>404</html>", "web page"),
        f"bomb-{seed}.png": (bomb(), "too large"),
        f"noise-{seed}.jpg": (random.Random(seed).randbytes(500), "no picture of any known kind"),
    }


@pytest.fixture
def draw() -> Callable[..., Image.Image]:
    return drawing
