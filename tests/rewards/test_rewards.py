"""Rewards: tables of texts and what they earn, the published quirks, and the weighted sum."""

from __future__ import annotations

import pytest
import torch

from kvg.errors import ConfigError
from kvg.rewards.combine import WeightedReward
from kvg.rewards.format import FormatReward
from kvg.rewards.iou import IoUReward
from kvg.text.box_codec import AbsoluteCodec, ImageSize, RelativeCodec
from kvg.types import Sample, SceneObject

# A 200 x 100 image; the truth is its left half: 100 x 100 px, on the grid (0,0),(500,1000).
SIZE = ImageSize(200, 100, 224, 112)
OBJECTS = (SceneObject("Merlin", (0.0, 0.0, 100.0, 100.0)), SceneObject("Hobby", (100.0, 0.0, 200.0, 100.0)))
SAMPLE = Sample("k", b"", 200, 100, "bird", "seen", OBJECTS, target=0)
CODEC = RelativeCodec()

EXACT = "<|box_start|>(0,0),(500,1000)<|box_end|>"
GOOD = "(0,0),(450,1000)"  # 90 of 100 px wide: IoU 0.9
HALF = "(0,0),(250,1000)"  # IoU exactly 0.5
MISS = "(500,0),(1000,1000)"  # the other bird


def tagged(answer: str, rationale: str = "a") -> str:
    return f"<think>{rationale}</think><answer>{answer}</answer>"


def score(reward: IoUReward | FormatReward, text: str) -> float:
    return reward([text], [SAMPLE], CODEC, [SIZE]).item()


@pytest.mark.parametrize(
    ("text", "gated", "binary"),
    [
        (tagged(EXACT), 1.0, 1.0),
        (tagged(EXACT) + "<|im_end|>", 1.0, 1.0),
        (tagged(GOOD), 0.9, 1.0),
        (tagged(HALF), 0.0, 0.0),  # strictly greater than the gate
        (tagged("(0,0),(255,1000)"), 0.51, 1.0),
        (tagged(MISS), 0.0, 0.0),
        (tagged("(500,1000),(0,0)"), 0.0, 0.0),  # swapped corners
        (tagged("somewhere on the left"), 0.0, 0.0),
        (f"<answer>{GOOD}</answer>", 0.9, 1.0),  # the box is judged apart from the form
        (f"<think>a</think>{EXACT}", 0.0, 0.0),  # no answer block
        (EXACT, 0.0, 0.0),
        (tagged(MISS, rationale=EXACT), 0.0, 0.0),  # a right box in the rationale earns nothing
        (tagged(MISS) + f"<answer>{EXACT}</answer>", 0.0, 0.0),  # only the first answer is read
        (tagged(f"{EXACT} or {MISS}"), 0.0, 0.0),  # and its last box: naming all of them does not pay
        ("", 0.0, 0.0),
    ],
)
def test_iou_reward(text: str, gated: float, binary: float) -> None:
    assert score(IoUReward(iou_gate=0.5), text) == pytest.approx(gated)
    assert score(IoUReward(iou_gate=0.5, binary=True), text) == binary


@pytest.mark.parametrize(("gate", "expected"), [(0.0, 0.9), (0.8, 0.9), (0.89, 0.9), (0.9, 0.0), (0.95, 0.0)])
def test_iou_gate(gate: float, expected: float) -> None:
    assert score(IoUReward(iou_gate=gate), tagged(GOOD)) == pytest.approx(expected)


def test_iou_reward_for_policies_without_tags() -> None:
    reward = IoUReward(require_tags=False)
    assert score(reward, EXACT) == 1.0
    assert score(reward, tagged(GOOD)) == pytest.approx(0.9)
    assert score(reward, f"<think>{EXACT}") == 0.0  # cut off while thinking


def test_iou_reward_speaks_the_codec() -> None:
    text = tagged('{"bbox_2d": [0, 0, 112, 112]}')  # left half of the 224 x 112 px that the model sees
    assert IoUReward()([text], [SAMPLE], AbsoluteCodec(), [SIZE]).item() == 1.0
    assert IoUReward()([text], [SAMPLE], RelativeCodec(), [SIZE]).item() == 0.0


@pytest.mark.parametrize("gate", [-0.1, 1.0, 80])
def test_iou_gate_is_checked(gate: float) -> None:
    with pytest.raises(ConfigError, match="iou_gate"):
        IoUReward(iou_gate=gate)


@pytest.mark.parametrize(
    ("text", "ours", "prefix", "v2"),  # as built; with published_prefix_match; and with both published quirks
    [
        (tagged(EXACT), 1.0, 1.0, 0.5),
        (tagged(MISS), 1.0, 1.0, 0.5),  # form only: a wrong box pays as well
        (tagged("(0, 0),(500, 1000)"), 0.5, 0.5, 0.5),  # reads, but is not in the taught form
        (tagged("[0, 0, 500, 1000]"), 0.5, 0.5, 0.5),
        (tagged("left"), 0.5, 0.5, 0.5),
        (f"<answer>{EXACT}</answer>", 0.5, 0.5, 0.0),  # the halves are independent
        (tagged(EXACT) + " done", 0.5, 1.0, 0.5),  # text after
        (tagged(EXACT) + tagged(EXACT), 0.5, 1.0, 0.5),
        (f"so: {tagged(EXACT)}", 0.5, 0.5, 0.0),  # text before
        (tagged(EXACT, rationale=""), 0.5, 1.0, 0.5),  # thinking left out
        (f"<think>a</think>{EXACT}", 0.0, 0.0, 0.0),
        (EXACT, 0.0, 0.0, 0.0),
        ("", 0.0, 0.0, 0.0),
    ],
)
def test_format_reward(text: str, ours: float, prefix: float, v2: float) -> None:
    assert score(FormatReward(), text) == ours
    assert score(FormatReward(published_prefix_match=True), text) == prefix
    assert score(FormatReward(published_prefix_match=True, published_v2_bug=True), text) == v2


def test_format_reward_without_the_box_half() -> None:
    assert score(FormatReward(box_half=False), tagged(EXACT)) == 0.5
    assert score(FormatReward(box_half=False), f"<answer>{EXACT}</answer>") == 0.0


def test_weighted_sum_and_breakdown() -> None:
    reward = WeightedReward({"iou": IoUReward(0.8), "format": FormatReward()}, {"format": 0.5})
    texts = [tagged(GOOD), tagged(MISS), GOOD]
    total, breakdown = reward(texts, [SAMPLE] * 3, CODEC, [SIZE] * 3)
    torch.testing.assert_close(total, torch.tensor([1.4, 0.5, 0.0]))  # 0.9 + 0.5 * 1, 0 + 0.5 * 1, 0
    assert list(breakdown) == ["iou", "format"]
    torch.testing.assert_close(breakdown["iou"], torch.tensor([0.9, 0.0, 0.0]))
    torch.testing.assert_close(breakdown["format"], torch.tensor([1.0, 1.0, 0.0]))


def test_weights_default_to_one() -> None:
    total, _ = WeightedReward({"iou": IoUReward(), "format": FormatReward()})([tagged(EXACT)], [SAMPLE], CODEC, [SIZE])
    assert total.tolist() == [2.0]


def test_no_completions() -> None:
    total, breakdown = WeightedReward({"iou": IoUReward(), "format": FormatReward()})([], [], CODEC, [])
    assert total.shape == breakdown["iou"].shape == breakdown["format"].shape == (0,)


def test_misnamed_weight_is_refused() -> None:
    with pytest.raises(ConfigError, match="fromat: no such part; parts are iou, format"):
        WeightedReward({"iou": IoUReward(), "format": FormatReward()}, {"fromat": 0.5})
    with pytest.raises(ConfigError, match="at least one"):
        WeightedReward({})


def test_unequal_lists_are_refused() -> None:
    with pytest.raises(ValueError, match="got 2, 1 and 1"):
        IoUReward()([EXACT, EXACT], [SAMPLE], CODEC, [SIZE])
