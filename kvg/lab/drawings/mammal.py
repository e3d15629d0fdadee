"""Mammals: a four-legged grazer in profile."""

from __future__ import annotations

from PIL import ImageDraw

from kvg.lab.sketch import Colour, Sketch, shade

_HEIGHT = {"slim": 0.09, "medium": 0.145, "broad": 0.205}
_LEGS = {"slim": 0.2, "medium": 0.17, "broad": 0.13}
_HOOF: Colour = (62, 56, 56)
_HORN: Colour = (222, 206, 178)
_RX = 0.26


def draw(s: Sketch) -> None:
    """Draws the mammal of ``s.traits``, facing left."""
    part, rng = s.traits.part, s.rng
    ry = _HEIGHT[s.traits.build] * rng.uniform(0.96, 1.04)
    leg = _LEGS[s.traits.build]
    cx = {"long tail": 0.53, "long nose": 0.66}.get(part, 0.58)
    cy = 0.91 - leg - ry
    neck = 0.34 - 0.45 * ry if part == "long neck" else 0.03
    hx, hy = cx - _RX - 0.02, cy - 0.7 * ry - neck + rng.uniform(-0.015, 0.015)
    if part == "long tail":
        _tail(s, cx + _RX, cy - 0.5 * ry, rng.uniform(-0.02, 0.02))
    stride = rng.uniform(-0.015, 0.015)
    for dx, factor in ((-0.1, 0.65), (0.12, 0.65), (-0.18, 0.88), (0.19, 0.88)):
        x = cx + dx + stride
        s.limb([(x, cy + ry - 0.07), (x, 0.88)], shade(s.main, factor), 0.07)
        s.line([(x - 0.01, 0.885), (x + 0.01, 0.885)], _HOOF, 0.05)
    if part == "horns":
        _horn(s, hx + 0.09, hy)

    def head(pen: ImageDraw.ImageDraw, u: float) -> None:
        pen.polygon(
            [
                ((hx - 0.05) * u, hy * u),
                ((hx + 0.08) * u, (hy - 0.03) * u),
                ((cx - 0.1) * u, (cy - ry) * u),
                ((cx - 0.1) * u, cy * u),
                ((cx - _RX + 0.01) * u, (cy + 0.03) * u),
            ],
            fill=255,
        )
        pen.ellipse([(hx - 0.1) * u, (hy - 0.1) * u, (hx + 0.1) * u, (hy + 0.1) * u], fill=255)
        pen.ellipse([(hx - 0.18) * u, (hy - 0.03) * u, (hx + 0.02) * u, (hy + 0.11) * u], fill=255)

    def torso(pen: ImageDraw.ImageDraw, u: float) -> None:
        pen.rounded_rectangle([(cx - _RX) * u, (cy - ry) * u, (cx + _RX) * u, (cy + ry) * u], ry * 0.9 * u, fill=255)

    if part == "long nose":
        _trunk(s, hx, hy, rng.uniform(-0.02, 0.02))
    s.body(head, pattern=False)
    s.body(torso)
    if part != "long nose":
        s.ellipse(hx - 0.15, hy + 0.025, 0.018, 0.018, _HOOF, outline=False)
    s.ellipse(hx - 0.04, hy - 0.025, 0.03, 0.03, (250, 250, 250))
    s.ellipse(hx - 0.047, hy - 0.025, 0.014, 0.014, (20, 20, 20), outline=False)
    if part == "horns":
        _horn(s, hx, hy)
    if part == "big ears":
        s.ellipse(hx + 0.12, hy - 0.1, 0.13, 0.16, shade(s.main, 0.85))
        s.ellipse(hx + 0.12, hy - 0.09, 0.075, 0.1, shade(s.main, 0.6), outline=False)
    else:
        s.ellipse(hx + 0.075, hy - 0.07, 0.035, 0.035, shade(s.main, 0.72))


def _horn(s: Sketch, x: float, y: float) -> None:
    s.limb([(x, y - 0.08), (x + 0.02, y - 0.17), (x + 0.0, y - 0.24), (x - 0.05, y - 0.28)], _HORN, 0.042)


def _trunk(s: Sketch, x: float, y: float, sway: float) -> None:
    s.limb(
        [
            (x - 0.06, y + 0.03),
            (x - 0.16, y + 0.08),
            (x - 0.2 + sway, y + 0.18),
            (x - 0.2 + sway, y + 0.29),
            (x - 0.25 + sway, y + 0.34),
        ],
        shade(s.main, 0.85),
        0.075,
    )


def _tail(s: Sketch, x: float, y: float, sway: float) -> None:
    s.limb(
        [
            (x - 0.05, y + 0.03),
            (x + 0.03, y - 0.02),
            (x + 0.08 + sway, y - 0.12),
            (x + 0.08 + sway, y - 0.25),
            (x + 0.01 + sway, y - 0.31),
        ],
        shade(s.main, 0.85),
        0.055,
    )
    s.ellipse(x + 0.0 + sway, y - 0.32, 0.055, 0.055, shade(s.main, 0.6))
