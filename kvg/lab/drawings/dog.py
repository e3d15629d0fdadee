"""Dogs, standing in profile."""

from __future__ import annotations

from PIL import ImageDraw

from kvg.lab.sketch import Colour, Sketch, shade

_HEIGHT = {"slim": 0.085, "medium": 0.135, "broad": 0.195}
_LEGS = {"slim": 0.24, "medium": 0.2, "broad": 0.14}
_NOSE: Colour = (40, 36, 40)
_RX = 0.26


def draw(s: Sketch) -> None:
    """Draws the dog of ``s.traits``, facing left."""
    part, rng = s.traits.part, s.rng
    ry = _HEIGHT[s.traits.build] * rng.uniform(0.96, 1.04)
    leg = _LEGS[s.traits.build]
    cx = {"long tail": 0.56, "short tail": 0.57}.get(part, 0.58)
    cy = 0.9 - leg - ry
    hx, hy = cx - _RX - 0.01, cy - 0.9 * ry - 0.06 + rng.uniform(-0.015, 0.015)
    _tail(s, cx + _RX, cy - ry, part, rng.uniform(-0.02, 0.02))
    stride = rng.uniform(-0.015, 0.015)
    for dx, factor in ((-0.11, 0.65), (0.13, 0.65), (-0.19, 0.88), (0.2, 0.88)):
        x = cx + dx + stride
        s.limb([(x, cy + ry - 0.07), (x, 0.875), (x - 0.03, 0.885)], shade(s.main, factor), 0.062)

    def torso(pen: ImageDraw.ImageDraw, u: float) -> None:
        pen.rounded_rectangle([(cx - _RX) * u, (cy - ry) * u, (cx + _RX) * u, (cy + ry) * u], ry * 0.85 * u, fill=255)

    if part == "pointed ears":
        _pointed(s, hx + 0.08, hy, 0.68)

    def head(pen: ImageDraw.ImageDraw, u: float) -> None:
        pen.polygon(
            [
                ((hx - 0.04) * u, hy * u),
                ((hx + 0.09) * u, (hy - 0.03) * u),
                ((cx - 0.08) * u, (cy - ry) * u),
                ((cx - 0.1) * u, cy * u),
                ((cx - _RX + 0.02) * u, cy * u),
            ],
            fill=255,
        )
        pen.ellipse([(hx - 0.11) * u, (hy - 0.11) * u, (hx + 0.11) * u, (hy + 0.11) * u], fill=255)
        pen.rounded_rectangle([(hx - 0.21) * u, (hy - 0.02) * u, hx * u, (hy + 0.1) * u], 0.05 * u, fill=255)

    s.body(head, pattern=False)
    s.body(torso)
    if part == "beard":
        _beard(s, hx, hy)
    s.ellipse(hx - 0.2, hy + 0.01, 0.036, 0.03, _NOSE, outline=False)
    s.ellipse(hx - 0.05, hy - 0.03, 0.03, 0.03, (250, 250, 250))
    s.ellipse(hx - 0.057, hy - 0.03, 0.014, 0.014, (20, 20, 20), outline=False)
    if part == "pointed ears":
        _pointed(s, hx + 0.005, hy, 0.82)
    elif part == "floppy ears":
        s.polygon(
            [
                (hx - 0.01, hy - 0.09),
                (hx + 0.07, hy - 0.1),
                (hx + 0.15, hy + 0.0),
                (hx + 0.16, hy + 0.16),
                (hx + 0.11, hy + 0.23),
                (hx + 0.04, hy + 0.2),
                (hx + 0.02, hy + 0.06),
            ],
            shade(s.main, 0.62),
        )
    else:
        s.ellipse(hx + 0.06, hy - 0.075, 0.04, 0.04, shade(s.main, 0.72))


def _pointed(s: Sketch, x: float, y: float, factor: float) -> None:
    s.polygon([(x - 0.055, y - 0.06), (x + 0.01, y - 0.25), (x + 0.085, y - 0.04)], shade(s.main, factor))


def _beard(s: Sketch, hx: float, hy: float) -> None:
    """A ragged tuft hanging from the whole length of the snout."""
    s.polygon(
        [
            (hx - 0.22, hy + 0.05),
            (hx - 0.23, hy + 0.19),
            (hx - 0.18, hy + 0.16),
            (hx - 0.15, hy + 0.27),
            (hx - 0.11, hy + 0.17),
            (hx - 0.06, hy + 0.21),
            (hx - 0.03, hy + 0.06),
        ],
        shade(s.main, 0.62),
    )


def _tail(s: Sketch, x: float, y: float, part: str, sway: float) -> None:
    """No tail at all unless the traits speak of one, so that the short one is a feature too."""
    fill = shade(s.main, 0.85)
    if part == "long tail":
        s.limb(
            [
                (x - 0.06, y + 0.06),
                (x + 0.02, y + 0.02),
                (x + 0.05 + sway, y - 0.08),
                (x + 0.05 + sway, y - 0.2),
                (x + 0.01 + sway, y - 0.25),
            ],
            fill,
            0.065,
        )
    elif part == "short tail":
        s.limb([(x - 0.06, y + 0.06), (x + 0.03 + sway, y - 0.03)], fill, 0.095)
