"""Reptiles: a lizard standing in profile."""

from __future__ import annotations

import math

from PIL import ImageDraw

from kvg.lab.sketch import Colour, Point, Sketch, shade

_HEIGHT = {"slim": 0.08, "medium": 0.13, "broad": 0.185}
_HORN: Colour = (222, 206, 178)
_RX = 0.24


def draw(s: Sketch) -> None:
    """Draws the lizard of ``s.traits``, facing left."""
    part, rng = s.traits.part, s.rng
    ry = _HEIGHT[s.traits.build] * rng.uniform(0.96, 1.04)
    cx = 0.58 if part == "short tail" else 0.523
    cy = 0.58 + rng.uniform(-0.01, 0.01)
    hx, hy = cx - _RX - 0.05, cy - 0.45 * ry - rng.uniform(0.03, 0.05)
    _tail(s, cx + _RX, cy, ry, part, rng.uniform(-0.02, 0.02))
    step = rng.uniform(-0.02, 0.02)
    for dx, side in ((-0.15, -1), (0.15, 1)):
        for shift, factor in ((0.06, 0.62), (-0.03, 0.85)):
            x = cx + dx + shift * side * -1 + step * side
            foot = cy + ry + 0.085
            s.limb(
                [(x, cy + ry - 0.06), (x + 0.02 * side, foot - 0.015), (x - 0.045 + 0.02 * side, foot)],
                shade(s.main, factor),
                0.05,
            )
    if part == "crest":
        _crest(s, cx, cy, ry)
    if part == "horns":
        for x, tip in ((0.07, (0.13, -0.26)), (-0.02, (-0.01, -0.27)), (-0.11, (-0.16, -0.2))):
            s.polygon([(hx + x - 0.03, hy - 0.02), (hx + tip[0], hy + tip[1]), (hx + x + 0.035, hy - 0.02)], _HORN)

    def torso(pen: ImageDraw.ImageDraw, u: float) -> None:
        pen.rounded_rectangle([(cx - _RX) * u, (cy - ry) * u, (cx + _RX) * u, (cy + ry) * u], ry * 0.95 * u, fill=255)

    s.body(torso)
    if part == "frill":
        _frill(s, hx + 0.08, hy)

    def head(pen: ImageDraw.ImageDraw, u: float) -> None:
        pen.ellipse([(hx - 0.08) * u, (hy - 0.085) * u, (hx + 0.11) * u, (hy + 0.085) * u], fill=255)
        pen.ellipse([(hx - 0.16) * u, (hy - 0.035) * u, (hx + 0.05) * u, (hy + 0.08) * u], fill=255)

    s.body(head, pattern=False)
    s.line([(hx - 0.13, hy + 0.035), (hx - 0.02, hy + 0.045)], s.ink, 0.014)
    s.ellipse(hx - 0.01, hy - 0.03, 0.034, 0.034, (250, 250, 250))
    s.ellipse(hx - 0.018, hy - 0.03, 0.015, 0.015, (20, 20, 20), outline=False)


def _tail(s: Sketch, x: float, cy: float, ry: float, part: str, lift: float) -> None:
    fill, w = shade(s.main, 0.85), min(0.1, 0.8 * ry)
    if part == "short tail":  # a fat knob
        s.ellipse(x + 0.02, cy, 0.065, 0.065, fill)
    elif part == "long tail":  # up and back over the body in a big hook
        s.limb(_arc((x - 0.03, cy - 0.18 + lift), 0.152, 100, -150), fill, 0.062)
        s.polygon([(x - 0.12, cy - w), (x + 0.03, cy - 0.02), (x + 0.03, cy + 0.03), (x - 0.12, cy + w)], fill, False)
    else:
        s.polygon([(x - 0.1, cy - w), (x + 0.155, cy + 0.06 + lift), (x - 0.1, cy + w)], fill)


def _arc(centre: Point, radius: float, start: float, end: float) -> list[Point]:
    turns = [math.radians(start + (end - start) * k / 20) for k in range(21)]
    return [(centre[0] + radius * math.cos(t), centre[1] + radius * math.sin(t)) for t in turns]


def _crest(s: Sketch, cx: float, cy: float, ry: float) -> None:
    for k in range(5):
        x = cx - 0.2 + k * 0.1
        high = 0.15 - 0.018 * abs(k - 2)
        s.polygon(
            [(x - 0.055, cy - ry + 0.07), (x + 0.01, cy - ry - high), (x + 0.055, cy - ry + 0.07)], shade(s.main, 0.72)
        )


def _frill(s: Sketch, x: float, y: float) -> None:
    """A ray-edged collar, larger than the head on all sides."""
    rim: list[Point] = []
    for k in range(22):
        turn, r = 2 * math.pi * k / 22, 0.29 if k % 2 else 0.21
        rim.append((x + 0.6 * r * math.cos(turn), y + r * math.sin(turn)))
    s.polygon(rim, shade(s.main, 0.72))
