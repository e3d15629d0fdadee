"""Aircraft in flight, seen from the side: a long fuselage that carries the pattern."""

from __future__ import annotations

from PIL import ImageDraw

from kvg.lab.sketch import Colour, Sketch, shade

_HALF_HEIGHT = {"slim": 0.08, "medium": 0.13, "broad": 0.187}
_DARK = (52, 52, 58)
_GLASS = (206, 230, 240)


def draw(s: Sketch) -> None:
    """Draws the aircraft of ``s.traits``, nose to the left."""
    part, rng = s.traits.part, s.rng
    half = _HALF_HEIGHT[s.traits.build] * rng.uniform(0.95, 1.05)
    left, right = 0.09, 0.86 + rng.uniform(-0.02, 0.02)
    cy = {"T-tail": 0.60, "skis": 0.46}.get(part, 0.48) + rng.uniform(-0.015, 0.015)
    dark = shade(s.main, 0.86)
    _tail(s, right, cy - half, dark)

    def silhouette(pen: ImageDraw.ImageDraw, u: float) -> None:
        nose = 0.6 * half + 0.05
        pen.ellipse([left * u, (cy - half) * u, (left + 2 * nose) * u, (cy + half) * u], fill=255)
        pen.rectangle([(left + nose) * u, (cy - half) * u, 0.64 * u, (cy + half) * u], fill=255)
        pen.polygon(
            [
                (0.63 * u, (cy - half) * u),
                (right * u, (cy - half) * u),
                (right * u, (cy - 0.25 * half) * u),
                (0.63 * u, (cy + half) * u),
            ],
            fill=255,
        )

    if part == "skis":
        _skis(s, cy + half)
    s.body(silhouette)
    s.polygon(
        [
            (left + 0.05, cy - 0.1 * half),
            (left + 0.08, cy - 0.6 * half),
            (left + 0.15, cy - 0.6 * half),
            (left + 0.15, cy - 0.1 * half),
        ],
        _GLASS,
    )
    s.polygon(
        [(0.40, cy + 0.55 * half), (0.55, cy + 0.55 * half), (0.68, cy + half + 0.06), (0.60, cy + half + 0.06)], dark
    )
    if part in ("two engines", "four engines"):
        _engines(s, 2 if part == "two engines" else 4, cy + half, dark)
    elif part == "propellers":
        _propellers(s, left, cy, half, dark)


def _tail(s: Sketch, right: float, top: float, fill: Colour) -> None:
    if s.traits.part == "T-tail":
        s.polygon(
            [(right - 0.19, top + 0.03), (right - 0.05, top - 0.25), (right + 0.06, top - 0.25), (right, top + 0.03)],
            fill,
        )
        s.polygon(
            [
                (right - 0.19, top - 0.245),
                (right - 0.13, top - 0.31),
                (right + 0.06, top - 0.31),
                (right + 0.06, top - 0.245),
            ],
            fill,
        )
    else:
        s.polygon(
            [(right - 0.15, top + 0.03), (right - 0.04, top - 0.12), (right + 0.05, top - 0.12), (right, top + 0.03)],
            fill,
        )


def _engines(s: Sketch, count: int, belly: float, fill: Colour) -> None:
    """Pods under the belly: two long thick ones, or four short ones with clear gaps."""
    length, radius, xs = (0.21, 0.075, (0.21, 0.53)) if count == 2 else (0.105, 0.06, (0.12, 0.29, 0.46, 0.63))
    y = belly + radius + 0.015
    for x in xs:
        s.line([(x + length / 2, belly - 0.03), (x + length / 2, y)], s.ink, 0.05)
        s.polygon(
            [
                (x, y - radius),
                (x + 0.7 * length, y - radius),
                (x + length, y - 0.4 * radius),
                (x + length, y + 0.4 * radius),
                (x + 0.7 * length, y + radius),
                (x, y + radius),
            ],
            fill,
        )
        s.ellipse(x, y, 0.028, radius, _DARK)


def _propellers(s: Sketch, left: float, cy: float, half: float, fill: Colour) -> None:
    """One at the nose and one on the wing, blades upright and far longer than the fuselage is thick."""
    reach = half + 0.13
    s.polygon([(0.36, cy + 0.35 * half), (0.56, cy + 0.55 * half), (0.56, cy + 0.75 * half), (0.36, cy + half)], fill)
    for x, y in ((left + 0.005, cy), (0.35, cy + 0.65 * half)):
        for side in (-1, 1):
            s.polygon(
                [
                    (x - 0.01, y),
                    (x - 0.032, y + side * reach * 0.75),
                    (x, y + side * reach),
                    (x + 0.032, y + side * reach * 0.75),
                    (x + 0.01, y),
                ],
                _DARK,
            )
        s.ellipse(x, y, 0.036, 0.042, _DARK)


def _skis(s: Sketch, belly: float) -> None:
    y = belly + 0.17
    for x in (0.30, 0.62):
        s.line([(x, belly - 0.03), (x, y)], _DARK, 0.035)
    for x1, x2 in ((0.12, 0.44), (0.50, 0.78)):
        s.line([(x1, y - 0.075), (x1 + 0.06, y), (x2, y)], _DARK, 0.05)
