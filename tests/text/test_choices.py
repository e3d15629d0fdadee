"""Answers to questions of several choices: letters and names."""

import pytest

from kvg.text.choices import parse_choice

OPTIONS = ("Wren", "Red Kite", "A Merlin", "Bird (male)")


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("A", 0), ("b", 1), (" C ", 2), ("D<|im_end|>", 3), ("B.", 1), ("(B)", 1), ("B)", 1), ("**B**", 1),
        ("B. Red Kite", 1), ("B: Red Kite", 1), ("Answer: C", 2), ("answer: (c)", 2), ("The answer is D.", 3),
        ("The correct answer is B, the Red Kite", 1), ("Option B", 1), ("C\nbecause of its wings", 2),
        ("B Red Kite", 1), ("B Wren", None),
        ("Red Kite", 1), ("red kite.", 1), ("A Merlin", 2), ("Bird (male)", 3), ("'Wren'", 0),
        ("", None), ("E", None), ("Z.", None), ("A bird", None), ("Bird", None), ("It is a Red Kite", None),
        ("(B", None), ("Robin", None), ("AB", None), ("I think B", None), ("?", None), ("Answer:", None),
    ],
)  # fmt: skip
def test_an_answer_is_read_by_its_letter_or_its_exact_name(text, option):
    assert parse_choice(text, OPTIONS) == option


def test_the_letter_of_an_option_that_is_not_there_is_none():
    assert parse_choice("C", ("Wren", "Merlin")) is None
