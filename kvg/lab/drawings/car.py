"""Cars, seen from the side: body and cabin are one shell that carries the pattern."""

from __future__ import annotations

from PIL import ImageDraw

from kvg.lab.sketch import Colour, Point, Sketch, shade

_HEIGHT = {"slim": 0.22, "medium": 0.35, "broad": 0.50}
_TYRE = (40, 40, 44)
_STEEL = (176, 178, 182)
_GLASS = (206, 230, 240)


def draw(s: Sketch) -> None:
    """Draws the car of ``s.traits``, facing left."""
    part, rng = s.traits.part, s.rng
    height = _HEIGHT[s.traits.build] * rng.uniform(0.96, 1.04)
    wheel = 0.15 if part == "big wheels" else 0.08
    low = 0.76 - (0.12 if part == "big wheels" else 0.0)
    cabin = 0.42 * height
    waist = low - height + cabin
    left, right, lean = 0.08, 0.89, rng.uniform(-0.015, 0.015)
    if part == "open roof":
        waist -= 0.25 * cabin
    dark = shade(s.main, 0.86)
    if part == "fins":
        _fins(s, right, waist, dark)
    elif part == "spoiler":
        _spoiler(s, right, waist, cabin, dark)
    roof: list[Point] = [
        (0.31 + lean, waist + 0.02),
        (0.40 + lean, waist - cabin),
        (0.70 + lean, waist - cabin),
        (0.78 + lean, waist + 0.02),
    ]
    if part == "open roof":
        _cockpit(s, waist, lean)

    def silhouette(pen: ImageDraw.ImageDraw, u: float) -> None:
        nose = 0.22 * (low - waist)
        pen.polygon(
            [
                (left * u, (waist + nose) * u),
                ((left + 0.06) * u, waist * u),
                ((right - 0.03) * u, waist * u),
                (right * u, (waist + nose) * u),
                (right * u, low * u),
                (left * u, low * u),
            ],
            fill=255,
        )
        if part != "open roof":
            pen.polygon([(x * u, y * u) for x, y in roof], fill=255)

    s.body(silhouette)
    if part != "open roof":
        _windows(s, waist, cabin, lean)
    if part == "roof rack":
        _rack(s, waist - cabin, lean)
    s.ellipse(left + 0.04, waist + 0.36 * (low - waist), 0.026, 0.026, (250, 246, 220))
    for x in (left + 0.19, right - 0.19):
        y = low + (0.07 if part == "big wheels" else 0.01)
        s.ellipse(x, y, wheel, wheel, _TYRE)
        s.ellipse(x, y, 0.45 * wheel, 0.45 * wheel, _STEEL, outline=False)


def _windows(s: Sketch, waist: float, cabin: float, lean: float) -> None:
    """Two panes that leave a thick roof, so that the pattern stays visible on the cabin."""
    top, base = waist - 0.62 * cabin, waist - 0.05 * cabin
    s.polygon([(0.385 + lean, base), (0.43 + lean, top), (0.52 + lean, top), (0.52 + lean, base)], _GLASS)
    s.polygon([(0.58 + lean, base), (0.58 + lean, top), (0.66 + lean, top), (0.70 + lean, base)], _GLASS)


def _cockpit(s: Sketch, waist: float, lean: float) -> None:
    """Windscreen, steering wheel and two seats where the cabin would be."""
    s.line([(0.32 + lean, waist + 0.02), (0.41 + lean, waist - 0.15)], s.ink, 0.035)
    s.line([(0.46 + lean, waist + 0.02), (0.50 + lean, waist - 0.07)], _TYRE, 0.028)
    for x in (0.58, 0.74):
        s.limb([(x + lean, waist + 0.03), (x + 0.025 + lean, waist - 0.09)], _TYRE, 0.065)


def _fins(s: Sketch, right: float, waist: float, fill: Colour) -> None:
    """A tail fin that sweeps up and back to a sharp point, with a second one behind it."""
    for dx, fin in ((-0.09, shade(fill, 0.8)), (0.0, fill)):
        tip = (right + 0.03 + dx, waist - 0.25)
        s.polygon([(right - 0.27 + dx, waist + 0.03), tip, (right + 0.01 + dx, waist + 0.05)], fin)


def _spoiler(s: Sketch, right: float, waist: float, cabin: float, fill: Colour) -> None:
    """A wing on struts above the boot, higher than the roof of a slim car."""
    top = waist - 0.16
    for x in (right - 0.09, right - 0.02):
        s.line([(x, waist + 0.03), (x + 0.01, top)], s.ink, 0.03)
    tip = right + 0.035
    s.polygon([(right - 0.16, top), (right - 0.14, top - 0.06), (tip, top - 0.085), (tip, top)], fill)


def _rack(s: Sketch, roof: float, lean: float) -> None:
    """Posts and rails with two cases on top."""
    for x in (0.40, 0.55, 0.70):
        s.line([(x + lean, roof), (x + lean, roof - 0.055)], s.ink, 0.028)
    for x1, x2, high in ((0.38, 0.54, 0.12), (0.56, 0.70, 0.09)):
        s.polygon(
            [
                (x1 + lean, roof - 0.06),
                (x1 + lean, roof - 0.06 - high),
                (x2 + lean, roof - 0.06 - high),
                (x2 + lean, roof - 0.06),
            ],
            (84, 80, 78),
        )
    s.line([(0.32 + lean, roof - 0.055), (0.78 + lean, roof - 0.055)], s.ink, 0.032)
