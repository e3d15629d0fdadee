"""Charts with intervals: files that stand alone, with a mark where each value is."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

from kvg.report.interval_chart import curves, dots

SVG = "{http://www.w3.org/2000/svg}"


def test_each_value_has_a_dot_and_a_line_over_its_interval():
    chart = dots(
        {"a & b": {"all": (50.0, 40.0, 60.0), "seen": (70.0, 70.0, 70.0)}, "c": {"all": (0.0, -5.0, 5.0)}}, "x"
    )
    root = ElementTree.fromstring(chart)
    tips = [title.text for title in root.iter(f"{SVG}title")]
    assert tips == ["a & b, all: 50.0 (40.0 to 60.0)", "a & b, seen: 70.0 (70.0 to 70.0)", "c, all: 0.0 (-5.0 to 5.0)"]
    dots_of = [(float(g.find(f"{SVG}circle").get("cx")), g.find(f"{SVG}path").get("d")) for g in root.iter(f"{SVG}g")]
    for x, path in dots_of:
        start, end = map(float, re.match(r"M([\d.]+) [\d.]+H([\d.]+)", path).groups())
        assert start <= x <= end
    assert dots_of[0][0] > dots_of[2][0]
    assert "zero" in chart
    assert "prefers-color-scheme:dark" in chart


def test_lines_join_their_points_in_order():
    chart = curves({"dose": [(4.0, (30.0, 20.0, 40.0)), (0.0, (10.0, 5.0, 15.0))]}, "accuracy", "texts")
    root = ElementTree.fromstring(chart)
    [line] = root.iter(f"{SVG}polyline")
    first, second = (tuple(map(float, point.split(","))) for point in line.get("points").split())
    assert first[0] < second[0]
    assert first[1] > second[1]
    assert "texts" in [text.text for text in root.iter(f"{SVG}text")]
