"""Rewards for the steps of a rationale, by hand. Two objects on a 200 x 100 picture; the second one is the target."""

from __future__ import annotations

import pytest
import torch

from kvg.errors import ConfigError
from kvg.rewards.combine import WeightedReward
from kvg.rewards.giou import GIoUReward
from kvg.rewards.iou import IoUReward
from kvg.rewards.process import ConsistencyReward, NamedTraitsReward, SeenTraitsReward
from kvg.text.answer import read_answer
from kvg.text.box_codec import ImageSize, RelativeCodec
from kvg.types import Completion, Sample, SceneObject

STILT = SceneObject("Stilt", (0, 0, 100, 100), ("white", "plain", "crest", "slim"))
AVOCET = SceneObject("Avocet", (100, 0, 200, 100), ("white", "black spots", "crest", "broad"))
SAMPLE = Sample("k", b"", 200, 100, "bird", "seen", (STILT, AVOCET), 1)
LEFT, RIGHT = "<|box_start|>(0,0),(500,1000)<|box_end|>", "<|box_start|>(500,0),(1000,1000)<|box_end|>"
PLAN = "Plan: the Avocet is white, black spots, crest, slim."  # three of four
LOOK = f"Look: 1 {LEFT} white, plain, crest, slim; 2 {RIGHT} red, plain, crest, broad."  # four and two of four
COMPARE = f"Compare: {RIGHT} yes; 1 no, plain."


def answer(text: str):
    return read_answer(Completion(text, 30, "stop"), RelativeCodec(), ImageSize(200, 100, 200, 100))


def thought(*parts: str, box: str = RIGHT):
    return answer(f"<think>{' '.join(parts)}</think><answer>{box}</answer>")


def scores(reward, *answers) -> list[float]:
    made = reward(list(answers), [SAMPLE] * len(answers))
    assert made.dtype == torch.float32
    return made.tolist()


def test_the_plan_is_compared_with_the_card():
    wrong_order = thought("Plan: the Avocet is slim, crest, black spots, white.")
    assert scores(NamedTraitsReward(), thought(PLAN), thought(LOOK), wrong_order) == [0.75, 0.0, 0.0]


def test_each_object_is_compared_with_what_is_said_of_its_box():
    assert scores(SeenTraitsReward(), thought(PLAN, LOOK, COMPARE)) == [0.75]  # (1 + 0.5) / 2
    only_one = thought(PLAN, f"Look: 1 {LEFT} white, plain, crest, slim.", COMPARE)
    twice = thought(PLAN, f"Look: 1 {LEFT} red, plain, crest, slim; 2 {LEFT} white, plain, crest, slim.", COMPARE)
    nowhere = thought(PLAN, "Look: 1 (900,900),(950,950) white, plain, crest, slim.", COMPARE)
    assert scores(SeenTraitsReward(), only_one, twice, nowhere, answer("nothing")) == [0.5, 0.375, 0.0, 0.0]


@pytest.mark.parametrize(
    ("conclusion", "box", "score"),
    [
        ("Conclusion: object 2.", RIGHT, 1.0),
        ("Conclusion: object 2.", LEFT, 0.0),
        ("Conclusion: object 1.", LEFT, 1.0),  # wrong, but consistent
        (f"Conclusion: the Avocet is {LEFT}.", LEFT, 1.0),
        ("Conclusion: object 7.", RIGHT, 0.0),
        ("", RIGHT, 0.0),
        ("Conclusion: object 2.", "nowhere", 0.0),
    ],
)
def test_the_answer_is_the_object_of_the_conclusion(conclusion, box, score):
    assert scores(ConsistencyReward(), thought(PLAN, LOOK, COMPARE, conclusion, box=box)) == [score]


def test_generalised_iou_by_hand():
    half = "(750,0),(1000,1000)"  # 50 x 100 of 100 x 100: IoU 0.5, and the frame is the true box
    beside = "(0,0),(500,1000)"  # touches: IoU 0, the frame is full
    apart = "(0,0),(250,1000)"  # 50 x 100, 50 apart: the frame is 200 x 100, of which 50 x 100 is empty
    made = scores(GIoUReward(), *(thought("x", box=box) for box in (RIGHT, half, beside, apart)), answer("<think>"))
    assert made == pytest.approx([1.0, 0.75, 0.5, 0.375, 0.0])
    assert scores(GIoUReward(require_tags=False), answer(half)) == [0.75]


def test_a_constraint_multiplies_the_sum():
    reward = WeightedReward({"iou": IoUReward()}, constraints={"consistent": ConsistencyReward()})
    good = thought(PLAN, LOOK, COMPARE, "Conclusion: object 2.")
    lucky = thought(PLAN, LOOK, COMPARE, "Conclusion: object 1.")
    total, parts = reward([good, lucky], [SAMPLE] * 2)
    assert total.tolist() == [1.0, 0.0]
    assert {name: values.tolist() for name, values in parts.items()} == {"iou": [1.0, 1.0], "consistent": [1.0, 0.0]}
    with pytest.raises(ConfigError, match="iou: is already a part"):
        WeightedReward({"iou": IoUReward()}, constraints={"iou": ConsistencyReward()})


def test_what_a_model_writes_never_raises():
    for text in ("", "<think>", "Look: ", "<think>Plan: the x is .</think>", f"<think> Look: {LEFT}</think>"):
        for reward in (NamedTraitsReward(), SeenTraitsReward(), ConsistencyReward(), GIoUReward()):
            assert scores(reward, answer(text)) == [0.0]
