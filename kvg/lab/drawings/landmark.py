"""Landmarks: a building seen from the front, whose facade carries the pattern."""

from __future__ import annotations

from PIL import ImageDraw

from kvg.lab.sketch import Colour, Sketch, shade

_HALF_WIDTH = {"slim": 0.13, "medium": 0.21, "broad": 0.30}
_DOORWAY = (58, 52, 54)


def draw(s: Sketch) -> None:
    """Draws the building of ``s.traits``."""
    part, rng = s.traits.part, s.rng
    half = _HALF_WIDTH[s.traits.build] * rng.uniform(0.95, 1.05)
    top, low = {
        "spire": (0.43, 0.88),
        "dome": (0.42, 0.88),
        "columns": (0.24, 0.62),
        "steps": (0.17, 0.66),
        "arch": (0.25, 0.83),
    }[part]
    top += rng.uniform(-0.015, 0.015)
    cx, dark = 0.5 + rng.uniform(-0.01, 0.01), shade(s.main, 0.86)
    if part == "spire":
        _spire(s, cx, top, half, dark)
    elif part == "dome":
        _dome(s, cx, top, half, dark)
    elif part == "steps":
        _steps(s, cx, low, half, dark)
    elif part == "columns":
        _columns(s, cx, top, low, half, dark)

    def silhouette(pen: ImageDraw.ImageDraw, u: float) -> None:
        pen.rectangle([(cx - half) * u, top * u, (cx + half) * u, low * u], fill=255)
        if part == "arch":
            gap, spring = 0.5 * half, top + 0.52 * (low - top)
            pen.ellipse([(cx - gap) * u, (spring - gap) * u, (cx + gap) * u, (spring + gap) * u], fill=0)
            pen.rectangle([(cx - gap) * u, spring * u, (cx + gap) * u, (low + 0.02) * u], fill=0)

    s.body(silhouette)
    ledge = 0.035
    if part in ("arch", "steps"):
        s.polygon(
            [
                (cx - half - ledge, top - 0.03),
                (cx + half + ledge, top - 0.03),
                (cx + half + ledge, top + 0.02),
                (cx - half - ledge, top + 0.02),
            ],
            dark,
        )
    if part in ("spire", "dome", "steps"):
        s.polygon([(cx - 0.04, low), (cx - 0.04, low - 0.13), (cx + 0.04, low - 0.13), (cx + 0.04, low)], _DOORWAY)


def _spire(s: Sketch, cx: float, top: float, half: float, fill: Colour) -> None:
    """A needle almost as tall as the facade, on a short shoulder roof."""
    width = 0.05 + 0.2 * half
    s.polygon(
        [
            (cx - half - 0.03, top + 0.02),
            (cx - 0.5 * half, top - 0.06),
            (cx + 0.5 * half, top - 0.06),
            (cx + half + 0.03, top + 0.02),
        ],
        fill,
    )
    s.polygon([(cx - width, top - 0.03), (cx, 0.07), (cx + width, top - 0.03)], fill)


def _dome(s: Sketch, cx: float, top: float, half: float, fill: Colour) -> None:
    rx = half + 0.02
    ry = min(0.27, 0.06 + 0.8 * half)
    s.line([(cx, top - ry - 0.06), (cx, top - ry)], s.ink, 0.03)
    s.ellipse(cx, top, rx, ry, fill)
    s.ellipse(cx, top - ry - 0.03, 0.028, 0.028, fill)


def _steps(s: Sketch, cx: float, low: float, half: float, fill: Colour) -> None:
    for k in range(4):
        x, y = half + 0.032 * (k + 0.7), low + 0.062 * k
        s.polygon([(cx - x, y - 0.01), (cx + x, y - 0.01), (cx + x, y + 0.065), (cx - x, y + 0.065)], fill)


def _columns(s: Sketch, cx: float, top: float, low: float, half: float, fill: Colour) -> None:
    """A gable above the facade, and an open row of columns that carries it."""
    s.polygon([(cx - half - 0.04, top + 0.01), (cx, top - 0.13), (cx + half + 0.04, top + 0.01)], fill)
    count = 3 if half < 0.17 else 4
    for k in range(count):
        x = cx - half + 0.04 + k * (2 * half - 0.08) / (count - 1)
        s.limb([(x, low), (x, low + 0.22)], fill, 0.045)
    s.polygon(
        [
            (cx - half - 0.04, low + 0.20),
            (cx + half + 0.04, low + 0.20),
            (cx + half + 0.04, low + 0.26),
            (cx - half - 0.04, low + 0.26),
        ],
        fill,
    )
