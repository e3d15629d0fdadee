"""Prompts: the published wording to the letter, names with awkward characters, and placeholders."""

from __future__ import annotations

import pytest

from kvg.errors import ConfigError, DataError
from kvg.text.prompts import PROMPTS, fill_boxes, prompt, question

ASK = "Find and give the bounding box of <|object_ref_start|>Merlin<|object_ref_end|>"


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (
            "think",
            ASK + "  Output the thinking process in <think> </think> and final answer (bounding box) in"
            " <answer> </answer> tags.",
        ),
        ("direct", ASK),
        ("cot", ASK + ". Let's think step by step"),
        ("json", ASK + ", output its bbox coordinates using JSON format."),
        (
            "qwen",
            'Locate every object that matches the description "Merlin" in the image. '
            "Report bbox coordinates in JSON format.",
        ),
    ],
)
def test_published_wording(mode: str, expected: str) -> None:
    assert prompt("Merlin", mode) == expected


def test_every_mode_is_pinned() -> None:
    assert set(PROMPTS) == {"think", "direct", "cot", "json", "qwen"}


@pytest.mark.parametrize("name", ["{question}", "Curtiss P-40 {E}", "Škoda 100%", "a\\1b"])
def test_names_are_taken_literally(name: str) -> None:
    for mode in PROMPTS:
        assert prompt(name, mode).count(name if mode == "qwen" else question(name)) == 1
    assert prompt(name, "direct") == f"Find and give the bounding box of <|object_ref_start|>{name}<|object_ref_end|>"


def test_unknown_mode_names_the_choices() -> None:
    with pytest.raises(ConfigError, match="think, direct, cot, json, qwen"):
        prompt("Merlin", "r1")


def test_fill_boxes() -> None:
    template = "Look: 1 <box:1>; 2 <box:0>; again <box:1>. <box:x> stays."
    assert fill_boxes(template, ["A\\1", "B"]) == "Look: 1 B; 2 A\\1; again B. <box:x> stays."


def test_fill_boxes_of_more_than_ten_objects() -> None:
    assert fill_boxes("<box:1> <box:11>", [str(n) for n in range(12)]) == "1 11"


def test_fill_boxes_names_the_missing_object() -> None:
    with pytest.raises(DataError, match=r"<box:2>: there are 2 objects"):
        fill_boxes("<box:2>", ["A", "B"])
