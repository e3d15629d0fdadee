"""References to objects: every form in which a rationale names one by number, and what is none."""

import json
import time

import pytest

from kvg.text.box_refs import LAST, bare_number, numbered_boxes, object_mentions, with_placeholders
from kvg.text.conclusions import pointed_at, with_name


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("object 2", [2]),
        ("Objects 2", [2]),
        ("OBJECT 2.", [2]),
        ("object #2", [2]),
        ("object no. 2", [2]),
        ("object no 2", [2]),
        ("object number 2", [2]),
        ("object Nr. 2", [2]),
        ("object № 2", [2]),
        ("object (2)", [2]),
        ("object [2]", [2]),
        ("object: 2", [2]),
        ("object-2", [2]),
        ("object_2", [2]),
        ("object **2**", [2]),
        ('object "2"', [2]),
        ("object two", [2]),
        ("object B", [2]),
        ("#2", [2]),
        ("# 2", [2]),
        ("no. 2", [2]),
        ("number 2", [2]),
        ("number two", [2]),
        ("box 2", [2]),
        ("bounding box 2", [2]),
        ("candidate 2", [2]),
        ("item 12", [12]),
        ("bird 2", [2]),
        ("Birds 2 and 3", [2, 3]),
        ("objects 1, 2 and 3", [1, 2, 3]),
        ("objects 1 & 2", [1, 2]),
        ("the second object", [2]),
        ("the 2nd object", [2]),
        ("the second one", [2]),
        ("the second blue one", [2]),
        ("the second bird", [2]),
        ("it is the second.", [2]),
        ("the second of them", [2]),
        ("the twelfth object", [12]),
        ("the last one", [LAST]),
        ("second object", [2]),
        ("Second one is meant", [2]),
        ("2nd bird", [2]),
        ("the bird numbered 2", [2]),
        ("labelled (2)", [2]),
        ("marked #2", [2]),
        ("object 1, not object 2", [1, 2]),
        # None of them names an object.
        ("", []),
        ("<box:2>", []),
        ("2 white spots", []),
        ("the second feather", []),
        ("a second look", []),
        ("a second object", []),
        ("no. 2.5", []),
        ("number 2,000", []),
        ("object 200", []),
        ("object 2nd", []),
        ("objection 2", []),
        ("the object I see", []),
        ("the objects in the picture", []),
        ("snow 2", []),
        ("a number of 3", []),
    ],
)
def test_objects_named_by_number(text, numbers):
    assert [mention.number for mention in object_mentions(text, ["bird"])] == numbers


@pytest.mark.parametrize(
    ("text", "number"),
    [("2", 2), (" It is 2", 2), ("the answer: 2.", 2), ("**2**", 2), ("(2)", 2), ("in 2019", None), ("has 2", None)],
)
def test_a_sentence_that_ends_in_a_number(text, number):
    mention = bare_number(text)
    assert (mention and mention.number) == number


@pytest.mark.parametrize(
    ("text", "boxes"),
    [
        ("1 <box:0> red; 2 <box:1> blue.", {1: 0, 2: 1}),
        ("1. <box:1> red; 2. <box:0> blue.", {1: 1, 2: 0}),
        ("1) red <box:0>. 2) blue <box:1>.", {1: 0, 2: 1}),
        ("(1) <box:0>, (2) <box:1>", {1: 0, 2: 1}),
        ("**1.** <box:0> red\n**2.** <box:1> blue", {1: 0, 2: 1}),
        ("#1 <box:0>; #2 <box:1>", {1: 0, 2: 1}),
        ("Object 1 is at <box:0>, object 2 at <box:1>.", {1: 0, 2: 1}),
        ("Object A: <box:0>. Object B: <box:1>.", {1: 0, 2: 1}),
        ("The first object <box:1> is red, the second one <box:0> blue.", {1: 1, 2: 0}),
        ("<box:0> (object 1) is red, <box:1> (object 2) is blue.", {1: 0, 2: 1}),
        ("<box:0> object 1 is red; <box:1> object 2 is blue.", {1: 0, 2: 1}),
        ("1. A large bird with a long crest, seen at <box:0>. 2. A small one at <box:1>.", {1: 0, 2: 1}),
        ("1 <box:0> red; 1 <box:1> blue.", {1: 0}),
        ("<box:0> red; <box:1> blue.", {}),
        ("", {}),
    ],
)
def test_which_box_a_number_means(text, boxes):
    assert numbered_boxes(text) == boxes


LOOK = "1 <box:0> red; 2 <box:1> blue; 3 <box:2> green."


@pytest.mark.parametrize(
    ("conclusion", "box", "unknown"),
    [
        ("object 2.", 1, None),
        ("#2.", 1, None),
        ("objects 2.", 1, None),
        ("object no. 2.", 1, None),
        ("the Merlin is no. 2.", 1, None),
        ("object (2).", 1, None),
        ("the second object.", 1, None),
        ("the last one.", 2, None),
        ("2.", 1, None),
        ("The Merlin is (2)", 1, None),
        ("it is bird 2", 1, None),
        ("<box:2>.", 2, None),
        ("not object 1 but object 2.", 1, None),
        ("object 2, not object 1.", 1, None),
        ("object 2 and not objects 1 and 3.", 1, None),
        ("the Merlin isn't object 1, it's object 2.", 1, None),
        ("The Merlin is object 2. Object 1 is a Hobby.", 1, None),
        ("Object 2 is the Merlin and object 1 is the Hobby.", 1, None),
        ("Unlike objects 1 and 3, object 2 is the Merlin.", 1, None),
        ("object 7.", None, 7),
        ("the one on the left.", None, None),
        ("not object 2.", None, None),
        ("", None, None),
    ],
)
def test_what_a_conclusion_points_at(conclusion, box, unknown):
    pointed = pointed_at(LOOK, with_name(conclusion, "Merlin"), ["bird"])
    assert (pointed.box, pointed.unknown) == (box, unknown)


def test_a_number_beside_another_box_than_before_is_a_contradiction():
    assert pointed_at(LOOK, "object 2, <box:1>.").contradicted is None
    assert pointed_at(LOOK, "object 2, <box:0>.").contradicted == 2
    assert pointed_at(LOOK, "<box:0> (object 2).").contradicted == 2


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("a (1,2),(3,4) b", "a <box:0> b"),
        ("a [1, 2, 3, 4] b", "a <box:0> b"),
        ("a <|box_start|>(1,2),(3,4)<|box_end|> b", "a <box:0> b"),
        ("a <|object_ref_start|>x<|object_ref_end|><|box_start|>(1,2),(3,4)<|box_end|> b", "a <box:0> b"),
        ('a {"bbox_2d": [1, 2, 3, 4]} b', "a <box:0> b"),
        ('a [{"bbox_2d": [1, 2, 3, 4], "label": "Merlin"}] b', "a <box:0> b"),
        ('a {"label": "Merlin", "bbox_2d": [1, 2, 3, 4]} b', "a <box:0> b"),
        ("a (1,2),(3,4) [5, 6, 7, 8] b", "a <box:0> <box:1> b"),
        ("a (1,2) b [3, 4]", "a (1,2) b [3, 4]"),
    ],
)
def test_boxes_give_way_to_placeholders_with_all_that_belongs_to_them(text, result):
    numbers = iter(range(9))
    assert with_placeholders(text, lambda written: next(numbers)) == result


def test_boxes_that_are_nobody_s_stay():
    assert with_placeholders("(1,2),(3,4)", lambda written: None) == "(1,2),(3,4)"


@pytest.mark.parametrize(
    "piece",
    ["#1 ", "object 1. ", "1. ", "*", "\n", "(", "1 <box:0> ", "the first ", "objects 1, 2", "{", '"label": "'],
)
def test_no_text_takes_long(piece):
    text = piece * (20_000 // len(piece))
    start = time.perf_counter()
    numbered_boxes(text)
    pointed_at(text, text)
    with_placeholders(text + json.dumps([1, 2, 3, 4]) + text, lambda written: 0)
    assert time.perf_counter() - start < 5
