"""Molluscs: a patterned shell or mantle over a creeping foot with a head."""

from __future__ import annotations

import math

from PIL import ImageDraw

from kvg.lab.sketch import Colour, Point, Sketch, shade

_HEIGHT = {"slim": 0.13, "medium": 0.21, "broad": 0.30}
_ABOVE = {"spines": 0.16, "fins": 0.16, "horns": 0.08}
_BUMPS = 7


def _arc(cx: float, cy: float, rx: float, ry: float, turn: float) -> Point:
    """Point of an ellipse; ``turn`` runs from 0 (left) over 0.5 (top) to 1 (right)."""
    return cx - rx * math.cos(turn * math.pi), cy - ry * math.sin(turn * math.pi)


def _spines(s: Sketch, cx: float, cy: float, rx: float, ry: float) -> None:
    for k in range(6):
        turn = 0.1 + 0.16 * k
        left, right = _arc(cx, cy, rx * 0.95, ry * 0.9, turn - 0.06), _arc(cx, cy, rx * 0.95, ry * 0.9, turn + 0.06)
        s.polygon([left, _arc(cx, cy, rx + 0.09, ry + 0.17, turn), right], shade(s.main, 0.8))


def _fins(s: Sketch, cx: float, cy: float, rx: float, ry: float) -> None:
    dark = shade(s.main, 0.8)
    s.polygon(
        [
            (cx - 0.2, cy - 0.8 * ry),
            (cx + 0.02, cy - ry - 0.17),
            (cx + 0.2, cy - ry - 0.17),
            (cx + 0.13, cy - ry - 0.06),
            (cx + 0.2, cy - 0.7 * ry),
        ],
        dark,
    )
    s.polygon(
        [
            (cx + rx - 0.08, cy),
            (cx + rx + 0.13, cy - 0.17),
            (cx + rx + 0.08, cy),
            (cx + rx + 0.13, cy + 0.15),
            (cx + rx - 0.08, cy + 0.05),
        ],
        dark,
    )


def _spiral(s: Sketch, cx: float, cy: float, rx: float, ry: float, line: Colour) -> None:
    turns, steps = 2.2, 60
    points = []
    for k in range(steps + 1):
        radius, angle = 0.8 * k / steps, math.tau * turns * k / steps + 0.5
        points.append((cx + radius * rx * math.cos(angle), cy + radius * ry * math.sin(angle)))
    s.line(points, line, 0.032)


def _head(s: Sketch, x: float, y: float, horns: bool, sway: float) -> None:
    skin = shade(s.main, 0.85)
    if horns:
        for dx, height in ((-0.05, 0.30), (0.07, 0.36)):
            tip = (x + dx + sway, y - height)
            s.limb([(x, y), (x + dx * 0.8, y - height * 0.5), tip], skin, 0.04)
            s.ellipse(*tip, 0.045, 0.045, skin)
    s.ellipse(x, y, 0.095, 0.095, skin)
    s.ellipse(x - 0.025, y - 0.015, 0.032, 0.032, (250, 250, 250))
    s.ellipse(x - 0.032, y - 0.015, 0.013, 0.013, (20, 20, 20), outline=False)


def draw(s: Sketch) -> None:
    """Draws the mollusc of ``s.traits``, facing left."""
    part, rng = s.traits.part, s.rng
    ry = _HEIGHT[s.traits.build] * rng.uniform(0.96, 1.04)
    rx = 0.31 if part in ("fins", "horns") else 0.34
    cx = {"fins": 0.50, "horns": 0.56}.get(part, 0.53)
    cy = 0.5 + 0.5 * _ABOVE.get(part, 0.0)
    line: Colour = (158, 152, 158) if s.traits.colour == "black" else s.ink
    foot = cy + 0.78 * ry
    if part == "spines":
        _spines(s, cx, cy, rx, ry)
    elif part == "fins":
        _fins(s, cx, cy, rx, ry)
    s.polygon(
        [
            (cx - rx - 0.06, foot - 0.03),
            (cx + 0.2, foot - 0.03),
            (cx + rx + 0.06, foot + 0.08),
            (cx - rx - 0.02, foot + 0.08),
        ],
        shade(s.main, 0.85),
    )
    _head(s, cx - rx - 0.04, foot - 0.03, part == "horns", rng.uniform(-0.03, 0.02))

    def silhouette(pen: ImageDraw.ImageDraw, u: float) -> None:
        pen.ellipse([(cx - rx) * u, (cy - ry) * u, (cx + rx) * u, (cy + ry) * u], fill=255)
        if part == "ribs":
            for k in range(_BUMPS):
                x, y = _arc(cx, cy, rx * 0.93, ry * 0.95, (k + 0.5) / _BUMPS)
                pen.ellipse([(x - 0.07) * u, (y - 0.075) * u, (x + 0.07) * u, (y + 0.075) * u], fill=255)

    s.body(silhouette)
    if part == "spiral":
        _spiral(s, cx, cy, rx, ry, line)
    elif part == "ribs":
        for k in range(1, _BUMPS):
            x, y = _arc(cx, cy, rx, ry, k / _BUMPS)
            s.line([(0.5 * (x + cx), 0.5 * (y + cy + 0.6 * ry)), (x, y)], line, 0.022)
