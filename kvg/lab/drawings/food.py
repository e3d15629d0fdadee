"""Food: a bun, cake or fruit seen from the side, with what goes on, through or under it."""

from __future__ import annotations

import math

from PIL import ImageDraw

from kvg.lab.sketch import Point, Sketch, shade

_HEIGHT = {"slim": 0.125, "medium": 0.20, "broad": 0.29}
_WOOD = (206, 178, 140)
_CHINA = (98, 96, 108)
_ABOVE = {"cherry": 0.24, "leaf": 0.20}
_BELOW = {"stick": 0.27, "bowl": 0.12}


def _bun(cx: float, cy: float, rx: float, ry: float) -> list[Point]:
    """Outline of a rounded bun, domed above and flatter below."""
    points = []
    for k in range(48):
        angle = k * math.tau / 48
        x, y = math.cos(angle), math.sin(angle)
        power = 0.62 if y > 0 else 0.9
        points.append((cx + rx * math.copysign(abs(x) ** 0.75, x), cy + ry * math.copysign(abs(y) ** power, y)))
    return points


def _cherry(s: Sketch, x: float, y: float) -> None:
    s.line([(x, y - 0.06), (x + 0.04, y - 0.17), (x + 0.12, y - 0.21)], s.ink, 0.03)
    s.ellipse(x, y - 0.05, 0.105, 0.105, shade(s.main, 0.8))
    s.ellipse(x - 0.04, y - 0.09, 0.022, 0.022, (250, 250, 250), outline=False)


def _leaves(s: Sketch, x: float, y: float, lean: float) -> None:
    for side in (-1, 1):
        tip = (x + side * 0.30, y - 0.15 + side * lean)
        blade = [
            (x, y + 0.03),
            (x + side * 0.06, y - 0.13),
            (x + side * 0.19, y - 0.19),
            tip,
            (x + side * 0.22, y - 0.03),
            (x + side * 0.1, y + 0.02),
        ]
        s.polygon(blade, shade(s.main, 0.8))
        s.line([(x, y), (x + side * 0.2, y - 0.1)], s.ink, 0.015)


def _bowl(s: Sketch, cx: float, rim: float, rx: float, depth: float) -> None:
    half = [(cx + rx * math.cos(a), rim + depth * math.sin(a)) for a in (k * math.pi / 20 for k in range(21))]
    s.polygon(
        [
            (cx - 0.15, rim + depth + 0.05),
            (cx - 0.1, rim + depth - 0.03),
            (cx + 0.1, rim + depth - 0.03),
            (cx + 0.15, rim + depth + 0.05),
        ],
        _CHINA,
    )
    s.polygon(half, _CHINA)
    s.limb([(cx - rx, rim), (cx + rx, rim)], shade(_CHINA, 1.4), 0.035)


def draw(s: Sketch) -> None:
    """Draws the dish of ``s.traits``."""
    part, rng = s.traits.part, s.rng
    ry = _HEIGHT[s.traits.build] * rng.uniform(0.96, 1.04)
    rx = 0.37 * rng.uniform(0.97, 1.03)
    cx, cy = 0.5, 0.5 + 0.5 * (_ABOVE.get(part, 0.0) - _BELOW.get(part, 0.0))
    if part == "stick":
        lean = rng.uniform(-0.04, 0.04)
        s.limb([(cx, cy), (cx + lean, cy + ry + 0.22)], _WOOD, 0.065)
    elif part == "cherry":
        _cherry(s, cx + rng.uniform(-0.03, 0.03), cy - ry)
    elif part == "leaf":
        _leaves(s, cx + rng.uniform(-0.03, 0.03), cy - ry, rng.uniform(-0.03, 0.03))

    def silhouette(pen: ImageDraw.ImageDraw, u: float) -> None:
        pen.polygon([(x * u, y * u) for x, y in _bun(cx, cy, rx, ry)], fill=255)
        if part == "hole":
            hx, hy = 0.14, 0.42 * ry
            pen.ellipse([(cx - hx) * u, (cy - hy) * u, (cx + hx) * u, (cy + hy) * u], fill=0)

    s.body(silhouette)
    if part == "bowl":
        _bowl(s, cx, cy + 0.8 * ry, rx + 0.02, 0.2 * ry + 0.11)
