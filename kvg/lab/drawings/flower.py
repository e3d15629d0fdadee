"""Flowers: a head of petals on a stem."""

from __future__ import annotations

import math

from PIL import ImageDraw

from kvg.lab.sketch import Colour, Point, Sketch, shade

_HEIGHT = {"slim": 0.40, "medium": 0.64, "broad": 0.92}  # head height over head width
_STEM: Colour = (86, 98, 80)
_LENGTH = {"long neck": 0.37, "leaf": 0.17}
_WIDTH = {"long neck": 0.255, "leaf": 0.335, "bell": 0.31, "spines": 0.30}


def _petals(cx: float, cy: float, rx: float, ry: float, turn: float) -> list[tuple[float, float, float, float]]:
    """Centres and radii of nine round petals on an elliptical ring, and of the disc that joins them."""
    blobs = [(cx, cy, 0.72 * rx, 0.72 * ry)]
    for k in range(9):
        angle = turn + k * math.tau / 9
        blobs.append((cx + 0.72 * rx * math.cos(angle), cy + 0.72 * ry * math.sin(angle), 0.29 * rx, 0.29 * ry))
    return blobs


def _bell(cx: float, cy: float, rx: float, ry: float) -> list[Point]:
    """Outline of a hanging bell: narrow crown, flaring rim."""
    right = [(0.0, -1.0), (0.3, -0.97), (0.5, -0.82), (0.6, -0.5), (0.64, 0.0), (0.74, 0.38), (1.0, 0.72)]
    rim = [(0.72, 1.0), (0.4, 0.68), (0.0, 1.0), (-0.4, 0.68), (-0.72, 1.0)]
    outline = [*right, *rim, *[(-x, y) for x, y in reversed(right)]]
    return [(cx + rx * x, cy + ry * y) for x, y in outline]


def _leaves(s: Sketch, x: float, y: float) -> None:
    for side in (-1, 1):
        s.polygon(
            [
                (x, y),
                (x + side * 0.1, y - 0.12),
                (x + side * 0.26, y - 0.14),
                (x + side * 0.4, y - 0.08),
                (x + side * 0.26, y + 0.0),
                (x + side * 0.12, y + 0.03),
            ],
            _STEM,
        )
        s.line([(x, y), (x + side * 0.27, y - 0.07)], s.ink, 0.016)


def _spines(s: Sketch, cx: float, cy: float, rx: float, ry: float, turn: float) -> None:
    for k in range(9):
        angle = turn + (k + 0.5) * math.tau / 9
        across = (-math.sin(angle) * 0.045, math.cos(angle) * 0.045)
        root = (cx + 0.7 * rx * math.cos(angle), cy + 0.7 * ry * math.sin(angle))
        tip = (cx + (rx + 0.11) * math.cos(angle), cy + (ry + 0.11) * math.sin(angle))
        s.polygon(
            [(root[0] - across[0], root[1] - across[1]), tip, (root[0] + across[0], root[1] + across[1])],
            shade(s.main, 0.75),
        )


def draw(s: Sketch) -> None:
    """Draws the flower of ``s.traits``."""
    part, rng = s.traits.part, s.rng
    rx = _WIDTH.get(part, 0.36) * rng.uniform(0.97, 1.03)
    ry = _HEIGHT[s.traits.build] * rx * rng.uniform(0.96, 1.04)
    turn, lean = rng.uniform(0.0, math.tau), rng.uniform(-0.04, 0.04)
    length = _LENGTH.get(part, 0.13)
    cx = 0.46 if part == "bell" else 0.5
    cy = {"bell": 0.5, "spines": 0.48}.get(part, 0.485 - 0.5 * length)
    foot = cy + ry + length
    if part == "bell":
        top = cy - ry
        s.limb(
            [
                (cx, top + 0.03),
                (cx + 0.02, top - 0.07),
                (cx + 0.14, top - 0.1),
                (cx + 0.32, top - 0.05),
                (cx + 0.40, top + 0.1),
                (cx + 0.42 + lean * 0.5, cy + ry + 0.08),
            ],
            _STEM,
            0.035,
        )
    else:
        s.limb([(cx, cy), (cx + lean * 0.5, cy + ry), (cx + lean, foot)], _STEM, 0.04)
    if part == "leaf":
        _leaves(s, cx + lean, foot - 0.02)
    elif part == "spines":
        _spines(s, cx, cy, rx, ry, turn)

    def silhouette(pen: ImageDraw.ImageDraw, u: float) -> None:
        if part == "bell":
            pen.polygon([(x * u, y * u) for x, y in _bell(cx, cy, rx, ry)], fill=255)
            return
        for x, y, a, b in _petals(cx, cy, rx, ry, turn):
            pen.ellipse([(x - a) * u, (y - b) * u, (x + a) * u, (y + b) * u], fill=255)

    s.body(silhouette)
    dark: Colour = (112, 104, 112) if s.traits.colour == "black" else (56, 48, 52)
    if part == "big centre":
        s.ellipse(cx, cy, 0.46 * rx, 0.46 * ry, dark)
    elif part != "bell":
        for k in range(9):
            angle = turn + (k + 0.5) * math.tau / 9
            x, y = math.cos(angle), math.sin(angle)
            s.line([(cx + 0.62 * rx * x, cy + 0.62 * ry * y), (cx + 0.85 * rx * x, cy + 0.85 * ry * y)], dark, 0.018)
