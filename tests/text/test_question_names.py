from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvg.text.names import clean_name
from kvg.text.prompts import DESCRIPTION, PROMPTS, REF_END, REF_START, describe_prompts, prompt
from kvg.text.question_names import name_in_question

NAMES = [
    "St. Bernard",
    "Mt. Fuji",
    "Dr. Seuss' car",
    "B.A.T. 9d",
    "B.A.T.",
    "Boeing 737-800",
    "Martin Luther King Jr.",
    "Tom, Dick: and 'Harry'",
    'Hughes H-4 "Spruce Goose"',
    "Who Framed Roger Rabbit?",
    "Café racer №5",
    "日本スピッツ",
    "Merlin. Let's think, output its best",
    "Homo sapiens subsp. idaltu",
    "No. 5 {question} %s \\1",
]
ANY_NAME = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1).map(clean_name).filter(bool)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", sorted(PROMPTS))
def test_every_prompt_of_ours_gives_its_name_back(mode, name):
    assert name_in_question(prompt(name, mode)) == name
    assert name_in_question(f"<image>{prompt(name, mode)}") == name


@given(name=ANY_NAME.filter(lambda name: "<|" not in name))
def test_any_name_round_trips_through_every_prompt(name):
    for text in (*(prompt(name, mode) for mode in PROMPTS), *describe_prompts(name)):
        assert name_in_question(text) == name


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", sorted(set(PROMPTS) - {"direct"}))  # whose end may be a full stop of the sentence
def test_our_prompts_without_their_marks_give_the_name_back(mode, name):
    assert name_in_question(prompt(name, mode).replace(REF_START, "").replace(REF_END, "")) == name
    assert name_in_question(DESCRIPTION.replace("{name}", name)) == name


@pytest.mark.parametrize(
    ("question", "name"),
    [
        ("Find and give the bounding box of St. Bernard", "St. Bernard"),
        ("Find and give the bounding box of Mt. Fuji.", "Mt. Fuji"),
        ("Find and give the bounding box of B.A.T. 9d.", "B.A.T. 9d"),
        ("Find and give the bounding box of the B.A.T.", "the B.A.T."),
        ("Find and give the bounding box of Boeing 737-800.", "Boeing 737-800"),
        ("Give the Bounding Box of: Merlin in the image.", "Merlin"),
        ("Give the bounding box of Merlin in this picture, output its bbox coordinates using JSON format.", "Merlin"),
        ("What is the bounding box of the Merlin in the image?", "the Merlin"),
        ("Give the bounding box of Who Framed Roger Rabbit?", "Who Framed Roger Rabbit?"),
        ("Find and give the bounding box of St. Bernard  Output the thinking process in <think>", "St. Bernard"),
        ("Find and give the bounding box of Mt. Fuji. Please answer in JSON.", "Mt. Fuji"),
        ("Find and give the bounding box of Mt. Fuji.\nOutput its box.\nThink first.", "Mt. Fuji"),
        ("Find and give the bounding box of a  Lesser\u00a0 Kestrel", "a Lesser Kestrel"),
        (f"Find and give the bounding box of {unicodedata.normalize('NFD', 'Café')}", "Café"),
        (f"Where is {REF_START} Dr.\n Seuss' car {REF_END}?", "Dr. Seuss' car"),
        ("Where is the Merlin?", ""),
        ("Find and give the bounding box of ", ""),
        ("", ""),
    ],
)
def test_untagged_questions_by_hand(question, name):
    assert name_in_question(question) == name


def test_the_answer_names_what_the_question_does_not():
    assert name_in_question("Where is it?", f"{REF_START}Mt. Fuji{REF_END}(1,2),(3,4)") == "Mt. Fuji"
