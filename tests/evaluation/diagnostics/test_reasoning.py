"""Rationales as models write them, and what each points at, by hand. The Merlin is at A, the Hobby at B."""

import time

import pytest

from kvg.errors import DataError
from kvg.evaluation.diagnostics.reasoning import reasoning
from kvg.evaluation.records.prediction import Prediction

A, B, NOWHERE = "(100,100),(400,400)", "(600,600),(900,900)", "(0,800),(90,990)"
NEAR_A = "<|box_start|>(110,100),(400,390)<|box_end|>"
TRUTH, OTHER = (100, 100, 400, 400), (600, 600, 900, 900)


@pytest.fixture
def read(make_line):
    def read(rationale, answer=A, **fields):
        text = f"<think>{rationale}</think><answer>{answer}</answer>"
        return reasoning(Prediction.from_line(make_line(answer=text, **fields), "test"))

    return read


@pytest.mark.parametrize(
    ("rationale", "concluded"),
    [
        # The project's own form: by number.
        (f"Plan: the Merlin is grey. Look: 1 {A} grey; 2 {B} red. Compare: {A} yes. Conclusion: object 1.", TRUTH),
        (f"Plan: the Merlin is grey. Look: 1 {A} grey; 2 {B} red. Compare: {A} yes. Conclusion: object 2.", OTHER),
        (f"Look: 1 {A}; 2 {B}. Conclusion: object 3.", None),
        (f"Look: 1. {A} blue, 1 {B} brown. Conclusion: object 1.", TRUTH),  # the first numbering counts
        (f"Objects: #1 [100, 100, 400, 400] blue; #2 {B}. Conclusion: #1 it is.", TRUTH),
        # A conclusion with boxes.
        (f"Conclusion: the bird at {B}.", OTHER),
        (f"The Merlin at {A} is small. Conclusion: the bird at {B} is meant.", OTHER),
        (f"In conclusion, {A} shows the Merlin, while {B} shows a Hobby.", TRUTH),
        (f"Conclusion: not {A} but {B}.", OTHER),
        (f"Conclusion: the Merlin is at {B}, not at {A}.", OTHER),
        (f"Conclusion: it is {A}. Object 2 differs.", TRUTH),
        # None: the last sentence with the name and a box, and the box nearest to the name.
        (f"I see birds at {A} and {B}. The Merlin is the one at {A}.", TRUTH),
        (f"{B} has a moustache; the merlin is {A}. It is small.", TRUTH),
        (f"The Merlin could be {A}. No: the Merlin is {B}.", OTHER),
        (f"The bird at {B} is not the Merlin. The bird at {A} is.", None),  # no sentence says it with the name
        (f"The Merlin is {A}. {B} is no Merlin.", TRUTH),
        (f"The Merlin has no spots, as {A} has none.", TRUTH),
        (f"A Hobby is at {B}, the Merlin at {A}.", TRUTH),
        (f"Merlins are small, {A}.", None),  # another word
        (f"The <|object_ref_start|>Merlin<|object_ref_end|> {A}", TRUTH),
        ("The Merlin is on the left.", None),
        (f"A bird at {A}.", None),
        (f"Conclusion: small. The Merlin stands at {A} earlier.", TRUTH),
    ],
)  # fmt: skip
def test_what_a_rationale_points_at(read, rationale, concluded):
    found = read(rationale)
    assert found.concluded == concluded
    assert found.right == {TRUTH: True, OTHER: False, None: None}[concluded]


def test_a_name_with_dots_ends_no_sentence(read):
    text = f"The St. Basil's Cathedral is red. So it is the St. Basil's Cathedral that stands at {A}."
    assert read(text, entity="St. Basil's Cathedral").concluded == TRUTH


def test_a_box_of_no_object_is_a_bad_box_where_the_others_are_known_and_a_wrong_choice_where_they_are_not(read):
    assert read(f"The Merlin is at {NOWHERE}.").right is None
    assert read(f"The Merlin is at {NOWHERE}.", objects=None).right is False
    assert read(f"The Merlin is at {NEAR_A}.").right is True
    assert read(f"The Merlin is at {B}.", objects=None).right is False


@pytest.mark.parametrize(
    ("pointed", "answer", "kept"), [(A, NEAR_A, True), (A, B, False), (B, B, True), (B, A, False), (A, "none", None)]
)
def test_whether_the_answer_keeps_to_what_was_concluded(read, pointed, answer, kept):
    assert read(f"The Merlin is at {pointed}.", answer).kept is kept


def test_boxes_are_read_in_the_line_s_own_convention(read):
    # 200 x 100 pixels, resized to 400 x 200: pixels of the resized picture.
    fields = {"codec": "absolute", "size": [200, 100, 400, 200]}
    found = read('The Merlin is at {"bbox_2d": [40, 20, 160, 80]}.', '{"bbox_2d": [40, 20, 160, 80]}', **fields)
    assert (found.concluded, found.right, found.kept) == (TRUTH, True, True)
    with pytest.raises(DataError, match="codec: 'polar' is not one of"):
        read(f"The Merlin is at {A}.", A, codec="polar")


def test_what_the_name_and_the_card_say(read):
    notes = [
        {"entity": "Merlin", "box": TRUTH, "note": "grey, plain"},
        {"entity": "Hobby", "box": OTHER, "note": "red, plain"},
    ]
    wrong = read(f"Plan: the Merlin is red, plain. Look: 1 {A} grey; 2 {B} red. Conclusion: object 1.", objects=notes)
    assert (wrong.right, wrong.recalled, wrong.verdict, wrong.named) == (True, False, False, True)
    right = read(f"Plan: the Merlin is grey, plain. Look: 1 {A} grey; 2 {B} red. Conclusion: object 2.", objects=notes)
    assert (right.right, right.recalled, right.verdict) == (False, True, True)
    plain = read(f"Look: 1 {A}; 2 {B}. Conclusion: object 1.")
    assert (plain.right, plain.recalled, plain.verdict, plain.named) == (True, None, True, False)


def test_answers_without_a_rationale_are_not_judged(make_line):
    assert reasoning(Prediction.from_line(make_line(answer=A), "test")) is None
    assert reasoning(Prediction.from_line(make_line(answer=f"The Merlin is at {A}"), "test")) is None
    assert reasoning(Prediction.from_line(make_line(answer=f"<think> </think><answer>{A}</answer>"), "test")) is None


def test_zero_shot_reasoning_stands_before_the_last_box(make_line):
    found = reasoning(
        Prediction.from_line(make_line(mode="cot", answer=f"The Merlin is at {B}. So the answer is {A}"), "test")
    )
    assert (found.concluded, found.kept) == (OTHER, False)
    assert reasoning(Prediction.from_line(make_line(mode="cot", answer=A), "test")) is None


def test_a_thought_that_was_cut_off_is_read_as_far_as_it_goes(make_line):
    found = reasoning(Prediction.from_line(make_line(answer=f"<think>The Merlin is at {A}. But"), "test"))
    assert (found.concluded, found.kept) == (TRUTH, None)


def test_no_text_takes_long(make_line):
    for text in (
        "(1,2),(3,4) ",
        "Merlin ",
        "Merlin (1,2),(3,4) ",
        "conclusion ",
        "1 ",
        "(1,",
        "#1 ",
        "not ",
        ",",
        "[1,2,",
    ):
        case = Prediction.from_line(make_line(answer=f"<think>{text * (20_000 // len(text))}"), "test")
        start = time.perf_counter()
        reasoning(case)
        assert time.perf_counter() - start < 5, text
