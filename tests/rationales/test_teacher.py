"""What a teacher is told, and which of its answers can be used."""

from __future__ import annotations

import pytest

from kvg.errors import ConfigError, DataError
from kvg.rationales.rules import RationaleRules
from kvg.rationales.teacher import teacher_prompt, template_of
from kvg.text.box_codec import AbsoluteCodec, ImageSize, RelativeCodec
from kvg.types import Sample, SceneObject

# Two birds side by side on 200x100 pixels: (0,0)-(100,100) and (100,0)-(200,100), which is 0-500 and 500-1000 of 1000.
SIZE = ImageSize(200, 100, 200, 100)
HOOPOE = SceneObject("Hoopoe", (0.0, 0.0, 100.0, 100.0))
ROLLER = SceneObject("European Roller", (100.0, 0.0, 200.0, 100.0))
SAMPLE = Sample("s1", b"", 200, 100, "bird", "seen", (HOOPOE, ROLLER), 0)

GOOD = """Planning: A Hoopoe has a crest with black tips and a long bent bill; I look for these.
Visual analysis: 1. <|box_start|>(0,0),(500,1000)<|box_end|> an orange bird with a crest; 2. (510,0),(1000,990) a blue
bird with a brown back.
Comparison: Object 1 has the crest, object 2 has none and is blue.
Conclusion: The Hoopoe is object 1, (0,0),(500,1000)."""

TEMPLATE = (
    "Plan: A Hoopoe has a crest with black tips and a long bent bill; I look for these. "
    "Look: 1. <box:0> an orange bird with a crest; 2. <box:1> a blue bird with a brown back. "
    "Compare: Object 1 has the crest, object 2 has none and is blue. "
    "Conclusion: The Hoopoe is object 1, <box:0>."
)


def taken(text, codec=None, size=SIZE, **rules):
    return template_of(text, SAMPLE, codec or RelativeCodec(), size, RationaleRules(**rules))


def test_the_teacher_is_told_all_and_asked_for_four_parts():
    told = teacher_prompt(SAMPLE, RelativeCodec(), SIZE)
    assert told.startswith(
        "This image shows Hoopoe (<|box_start|>(0,0),(500,1000)<|box_end|>), "
        "European Roller (<|box_start|>(500,0),(1000,1000)<|box_end|>). "
        "The bounding box of Hoopoe is <|box_start|>(0,0),(500,1000)<|box_end|>."
    )
    for title in ("Plan:", "Look:", "Compare:", "Conclusion:", "1. ", "2. ", "3. "):
        assert f"\n{title}" in told


def test_a_thing_without_a_name_is_called_unknown():
    nameless = Sample("s1", b"", 200, 100, "bird", "seen", (HOOPOE, SceneObject("", ROLLER.box_px)), 0)
    assert "[Unknown] (<|box_start|>(500,0)" in teacher_prompt(nameless, RelativeCodec(), SIZE)


def test_a_good_answer_becomes_a_template():
    assert taken(GOOD) == TEMPLATE


@pytest.mark.parametrize(
    "titles",
    [
        ("Plan:", "Look:", "Compare:", "Conclusion:"),
        ("**Plan:**", "**Look:**", "**Compare:**", "**Conclusion:**"),
        ("**Planning**:", "**Visual Analysis**:", "**Comparison**:", "**Conclusion**:"),
        ("### 1. Plan:", "### 2. Look:", "### 3. Compare:", "### 4. Conclusion:"),
        ("PLAN:", "LOOK:", "COMPARE:", "CONCLUSION:"),
    ],
)
def test_titles_are_known_by_their_words(titles):
    text = GOOD
    for old, new in zip(("Planning:", "Visual analysis:", "Comparison:", "Conclusion:"), titles, strict=True):
        text = text.replace(old, new)
    assert taken(text) == TEMPLATE


def test_titles_need_no_lines_of_their_own():
    assert taken(" ".join(GOOD.split())) == TEMPLATE


def test_tags_of_other_prompts_are_dropped():
    assert taken(f"<think>{GOOD}</think>") == TEMPLATE


def test_boxes_are_read_in_the_teachers_own_convention():
    # The picture is twice as large for the teacher: (0,0)-(200,200) and (200,0)-(400,200) of 400x200.
    large = ImageSize(200, 100, 400, 200)
    text = GOOD.replace("<|box_start|>(0,0),(500,1000)<|box_end|>", "[0, 0, 200, 200]")
    text = text.replace("(510,0),(1000,990)", "[204, 0, 400, 198]").replace("(0,0),(500,1000)", "[0, 0, 200, 200]")
    assert taken(text, AbsoluteCodec(), large) == TEMPLATE


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("Comparison:", "", "parts: Compare is missing"),
        (
            "Comparison: Object 1 has the crest, object 2 has none and is blue.",
            "Comparison:",
            "parts: Compare is empty",
        ),
        ("Conclusion:", "Comparison: again.\nConclusion:", "parts: Compare is there twice"),
        ("Hoopoe", "bird", "target: Hoopoe is not named"),
        # IoU of (0,0)-(100,100) and (100,0)-(160,100) with half of each: 50x100 of 100x100 and more.
        ("(510,0),(1000,990)", "(250,0),(740,990)", r"boxes: \(250,0\),\(740,990\) is the box of no object"),
        ("(510,0),(1000,990)", "[1, 2, 3, 4]", "boxes: .* is the box of no object"),
        ("(0,0),(500,1000)", "left", "boxes: that of Hoopoe is not quoted"),
        ("object 1, (0,0),(500,1000)", "object 2, (500,0),(1000,1000)", "target: it concludes at European"),
        ("The Hoopoe is object 1, (0,0),(500,1000)", "The Hoopoe is object 2", "target: it concludes at European"),
        ("I look for these.", "I look at (0,0),(500,1000).", "leak: the plan has a box already"),
        ("object 2 has none", "as given, object 2 has none", "leak: 'as given' tells"),
        ("object 2 has none", "the provided bounding box is here", "leak: 'provided bounding box' tells"),
        ("object 2 has none", "its bounding box is given", "leak: 'bounding box is given' tells"),
        ("object 2 has none", "by the ground truth", "leak: 'ground truth' tells"),
        ("an orange", "<box:0> an orange", "boxes: the answer holds <box:N> itself"),
    ],
)
def test_what_would_teach_the_wrong_thing_is_refused(old, new, reason):
    assert old in GOOD
    with pytest.raises(DataError, match=f"sample s1: {reason}"):
        taken(GOOD.replace(old, new))


HERE, THERE = "(0,0),(500,1000)", "(500,0),(1000,1000)"


@pytest.mark.parametrize(
    "conclusion",
    [
        "The Hoopoe is #{n}.",
        "The Hoopoe is # {n}.",
        "The Hoopoe is among the objects {n}.",
        "The Hoopoe is object no. {n}.",
        "The Hoopoe is object number {n}.",
        "The Hoopoe is Object ({n}).",
        "The Hoopoe is object **{n}**.",
        "The Hoopoe is box {n}.",
        "The Hoopoe is the {nth} object.",
        "The Hoopoe is the {nth} one.",
        "The {nth} bird is the Hoopoe.",
        "The Hoopoe is number {word}.",
        "Bird {n} is the Hoopoe.",
        "The Hoopoe is {n}.",
        "{n}",
        "It is object {n} and not object {m}.",
        "Not object {m} but object {n} is meant.",
        "The Hoopoe is object {n}. Object {m} is another bird.",
        "The Hoopoe is here: {box}",
        'It is {{"bbox_2d": [{flat}]}}.',
    ],
)
def test_a_conclusion_is_read_in_every_form(conclusion):
    def answer(n, box):
        flat = box.replace("(", "").replace(")", "")
        words = {"n": n, "m": 3 - n, "nth": ["first", "second"][n - 1], "word": ["one", "two"][n - 1]}
        return GOOD[: GOOD.index("The Hoopoe is object")] + conclusion.format(**words, box=box, flat=flat)

    assert "Conclusion: " in taken(answer(1, HERE))
    with pytest.raises(DataError, match="target: it concludes at European Roller, not at Hoopoe"):
        taken(answer(2, THERE))


@pytest.mark.parametrize(
    ("conclusion", "reason"),
    [
        ("The Hoopoe is object 7.", "target: it concludes at object 7, a number that stands beside no box"),
        ("The Hoopoe is object 2, (0,0),(500,1000).", "target: object 2 has another box in the conclusion than before"),
        ("The Hoopoe is at [[0, 0], [500, 1000]].", "boxes: .* is no box that can be read"),
    ],
)
def test_a_conclusion_that_cannot_be_true_is_refused(conclusion, reason):
    with pytest.raises(DataError, match=reason):
        taken(GOOD[: GOOD.index("The Hoopoe is object")] + conclusion)


def test_parts_in_another_order_are_refused():
    plan, look, compare, conclusion = GOOD.split("\n", 1)[0], "Look: (0,0),(500,1000).", "Compare: x.", "Conclusion: y."
    with pytest.raises(DataError, match="parts: come in the order Plan, Compare, Look, Conclusion"):
        taken("\n".join([plan, compare, look, conclusion]), min_words=1)


def test_too_short_and_too_long():
    words = len(TEMPLATE.split()) - 4  # without the titles
    assert taken(GOOD, min_words=words, max_words=words + 1)
    with pytest.raises(DataError, match=f"length: {words} words, not {words + 1} to 99"):
        taken(GOOD, min_words=words + 1, max_words=99)
    with pytest.raises(DataError, match=f"length: {words} words, not 1 to {words - 1}"):
        taken(GOOD, min_words=1, max_words=words - 1)


def test_every_box_may_be_asked_for():
    text = GOOD.replace("(510,0),(1000,990)", "right")
    assert taken(text)
    with pytest.raises(DataError, match="boxes: that of European Roller is not quoted"):
        taken(text, all_boxes=True)


def test_objects_go_by_the_numbers_that_the_teacher_gave_them():
    swapped = GOOD.replace("1. <|box", "2. <|box").replace("2. (510", "1. (510")
    swapped = swapped.replace("object 1, (0,0),(500,1000)", "X")
    assert taken(swapped.replace("is X", "is object 2")).endswith("The Hoopoe is object 2.")
    with pytest.raises(DataError, match="target: it concludes at European Roller, not at Hoopoe"):
        taken(swapped.replace("is X", "is object 1"))


def test_a_word_that_is_no_title_is_no_part():
    text = GOOD.replace("I look for these.", "I plan to look for these, then to compare.")
    assert taken(text).startswith("Plan: A Hoopoe has a crest with black tips and a long bent bill; I plan to look")


@pytest.mark.parametrize("text", ["", "I cannot help with that.", "Plan: " * 2000, "(" * 5000, "<box:" * 3000])
def test_nonsense_is_refused_in_no_time(text):
    with pytest.raises(DataError):
        taken(text)


@pytest.mark.parametrize("rules", [{"min_iou": 0}, {"min_iou": 1.1}, {"min_words": 5, "max_words": 5}])
def test_rules_that_cannot_work(rules):
    with pytest.raises(ConfigError, match=r"rationalize\.rules"):
        RationaleRules(**rules)


@pytest.mark.parametrize("token", ["<image>", "<video>", "<|im_<|im_end|>end|>", "<thi<think>nk>"])
def test_an_answer_that_would_steer_the_model_is_refused(token):
    with pytest.raises(DataError, match="sample s1: tokens: may not hold"):
        taken(GOOD.replace("an orange bird", f"an orange {token} bird"))
