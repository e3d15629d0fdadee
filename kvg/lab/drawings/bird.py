"""Birds, standing in profile."""

from __future__ import annotations

from PIL import ImageDraw

from kvg.lab.sketch import Colour, Sketch, shade

_HEIGHT = {"slim": 0.10, "medium": 0.16, "broad": 0.225}
_HORN: Colour = (222, 206, 178)  # beaks: a bone tone that is no colour of the vocabulary
_LEG: Colour = (92, 84, 82)
_RX, _HEAD = 0.25, 0.1


def draw(s: Sketch) -> None:
    """Draws the bird of ``s.traits``, facing left."""
    part, rng = s.traits.part, s.rng
    ry = _HEIGHT[s.traits.build] * rng.uniform(0.96, 1.04)
    neck = 0.25 if part == "long neck" else 0.06
    leg = 0.28 if part == "long legs" else 0.10
    beak = 0.21 if part == "big beak" else 0.075
    tail = 0.23 if part == "long tail" else 0.08
    crest = 0.14 if part == "crest" else 0.0
    # Every part moves the bird so that the whole of it is centred in the square.
    rise = 0.8 * ry + neck
    cx = 0.5 - (tail + 0.04 - _HEAD - beak) / 2
    cy = 0.5 - (ry + leg - rise - _HEAD - crest) / 2
    hx, hy = cx - _RX + 0.04, cy - rise
    _tail(s, cx, cy, tail, rng.uniform(-0.03, 0.05))
    for dx in (-0.07, 0.06):
        foot = cy + ry + leg
        s.line([(cx + dx, cy + ry - 0.04), (cx + dx, foot - 0.02), (cx + dx - 0.06, foot - 0.02)], _LEG, 0.04)
    if part == "crest":
        for x, lean in ((-0.07, -0.03), (-0.01, 0.04), (0.05, 0.11)):
            s.polygon(
                [
                    (hx + x - 0.03, hy - 0.05),
                    (hx + x + lean, hy - _HEAD - crest + abs(lean - 0.04) * 0.5),
                    (hx + x + 0.06, hy - 0.03),
                ],
                shade(s.main, 0.85),
            )
    _head(s, hx, hy, (cx, cy), ry)
    _beak(s, hx, hy, beak, part == "big beak")

    def torso(pen: ImageDraw.ImageDraw, u: float) -> None:
        pen.ellipse([(cx - _RX) * u, (cy - ry) * u, (cx + _RX) * u, (cy + ry) * u], fill=255)

    s.body(torso)
    s.ellipse(hx - 0.025, hy - 0.02, 0.032, 0.032, (250, 250, 250))
    s.ellipse(hx - 0.032, hy - 0.02, 0.014, 0.014, (20, 20, 20), outline=False)


def _tail(s: Sketch, cx: float, cy: float, tail: float, drop: float) -> None:
    x, end = cx + _RX, cx + _RX + tail
    wide = 0.075 if tail > 0.2 else 0.05
    s.polygon(
        [
            (x - 0.1, cy - 0.05),
            (end, cy + drop - wide),
            (end - 0.03, cy + drop),
            (end, cy + drop + wide),
            (x - 0.1, cy + 0.05),
        ],
        shade(s.main, 0.85),
    )


def _head(s: Sketch, hx: float, hy: float, middle: tuple[float, float], ry: float) -> None:
    cx, cy = middle

    def silhouette(pen: ImageDraw.ImageDraw, u: float) -> None:
        pen.polygon(
            [
                ((hx - 0.06) * u, hy * u),
                ((hx + 0.065) * u, hy * u),
                ((cx - 0.08) * u, (cy - 0.5 * ry) * u),
                ((cx - _RX + 0.02) * u, (cy + 0.02) * u),
            ],
            fill=255,
        )
        pen.ellipse([(hx - _HEAD) * u, (hy - _HEAD) * u, (hx + _HEAD) * u, (hy + _HEAD) * u], fill=255)

    s.body(silhouette, pattern=False)


def _beak(s: Sketch, hx: float, hy: float, length: float, big: bool) -> None:
    x, thick = hx - _HEAD * 0.75, 0.085 if big else 0.04
    tip = (x - length - 0.02, hy + (0.07 if big else 0.02))
    upper = [(x - length * 0.6, hy - thick * 0.8)] if big else []
    s.polygon([(x, hy - thick), *upper, tip, (x, hy + thick)], _HORN)
    if big:
        s.line([(x, hy + 0.02), (x - length * 0.8, hy + 0.04)], s.ink, 0.016)
