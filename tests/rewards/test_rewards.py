"""Rewards: tables of texts and what they earn, the published quirks, and the weighted sum."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kvg.backbones.families.qwen2_5_vl import Qwen25VL
from kvg.errors import ConfigError
from kvg.rewards.combine import WeightedReward
from kvg.rewards.format import FormatReward
from kvg.rewards.iou import IoUReward
from kvg.rewards.knowledge import KnowledgeReward, Level
from kvg.rl.advantage import group_advantage
from kvg.text.answer import Answer, read_answer
from kvg.text.box_codec import AbsoluteCodec, BoxCodec, ImageSize, RelativeCodec
from kvg.types import Completion, Sample, SceneObject

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


def answers(texts: list[str], codec: BoxCodec = CODEC) -> list[Answer]:
    return [read_answer(Completion(text, None, "stop"), codec, SIZE) for text in texts]


def score(reward: IoUReward | FormatReward, text: str) -> float:
    return reward(answers([text]), [SAMPLE]).item()


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
    assert score(IoUReward(iou_threshold=0.5), text) == pytest.approx(gated)
    assert score(IoUReward(iou_threshold=0.5, binary=True), text) == binary


@pytest.mark.parametrize(("gate", "expected"), [(0.0, 0.9), (0.8, 0.9), (0.89, 0.9), (0.9, 0.0), (0.95, 0.0)])
def test_iou_threshold(gate: float, expected: float) -> None:
    assert score(IoUReward(iou_threshold=gate), tagged(GOOD)) == pytest.approx(expected)


def test_iou_reward_for_policies_without_tags() -> None:
    reward = IoUReward(require_tags=False)
    assert score(reward, EXACT) == 1.0
    assert score(reward, tagged(GOOD)) == pytest.approx(0.9)
    assert score(reward, f"<think>{EXACT}") == 0.0  # cut off while thinking


def test_iou_reward_speaks_the_codec() -> None:
    text = tagged('{"bbox_2d": [0, 0, 112, 112]}')  # left half of the 224 x 112 px that the model sees
    assert IoUReward()(answers([text], AbsoluteCodec()), [SAMPLE]).item() == 1.0
    assert IoUReward()(answers([text]), [SAMPLE]).item() == 0.0


@pytest.mark.parametrize("gate", [-0.1, 1.0, 80])
def test_iou_threshold_is_checked(gate: float) -> None:
    with pytest.raises(ConfigError, match="iou_threshold"):
        IoUReward(iou_threshold=gate)


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


@pytest.mark.parametrize(
    ("answer", "relative", "absolute"),
    [
        (EXACT, 1.0, 0.5),
        ("(0,0),(500,1000)", 1.0, 0.5),
        ('{"bbox_2d": [0, 0, 112, 112]}', 0.5, 1.0),
        ('[{"bbox_2d": [0, 0, 112, 112], "label": "Merlin"}]', 0.5, 1.0),
        ('```json\n[{"bbox_2d": [0, 0, 112, 112]}]\n```', 0.5, 1.0),
        ("[0, 0, 112, 112]", 0.5, 0.5),
    ],
)
def test_format_reward_pays_each_backbone_for_its_own_form(answer: str, relative: float, absolute: float) -> None:
    for codec, expected in ((RelativeCodec(), relative), (Qwen25VL().codec, absolute)):
        assert FormatReward()(answers([tagged(answer)], codec), [SAMPLE]).item() == expected


def test_format_reward_without_the_box_half() -> None:
    assert score(FormatReward(box_half=False), tagged(EXACT)) == 0.5
    assert score(FormatReward(box_half=False), f"<answer>{EXACT}</answer>") == 0.0


def test_weighted_sum_and_breakdown() -> None:
    reward = WeightedReward({"iou": IoUReward(0.8), "format": FormatReward()}, {"format": 0.5})
    texts = [tagged(GOOD), tagged(MISS), GOOD]
    total, breakdown = reward(answers(texts), [SAMPLE] * 3)
    torch.testing.assert_close(total, torch.tensor([1.4, 0.5, 0.0]))  # 0.9 + 0.5 * 1, 0 + 0.5 * 1, 0
    assert list(breakdown) == ["iou", "format"]
    torch.testing.assert_close(breakdown["iou"], torch.tensor([0.9, 0.0, 0.0]))
    torch.testing.assert_close(breakdown["format"], torch.tensor([1.0, 1.0, 0.0]))


def test_weights_default_to_one() -> None:
    total, _ = WeightedReward({"iou": IoUReward(), "format": FormatReward()})(answers([tagged(EXACT)]), [SAMPLE])
    assert total.tolist() == [2.0]


def test_no_completions() -> None:
    total, breakdown = WeightedReward({"iou": IoUReward(), "format": FormatReward()})([], [])
    assert total.shape == breakdown["iou"].shape == breakdown["format"].shape == (0,)


def test_misnamed_weight_is_refused() -> None:
    with pytest.raises(ConfigError, match="fromat: no such part; parts are iou, format"):
        WeightedReward({"iou": IoUReward(), "format": FormatReward()}, {"fromat": 0.5})
    with pytest.raises(ConfigError, match="at least one"):
        WeightedReward({})


def test_unequal_lists_are_refused() -> None:
    with pytest.raises(ValueError, match="got 1 for 2"):
        IoUReward()(answers([EXACT, EXACT]), [SAMPLE])


OTHER = Sample("o", b"", 200, 100, "bird", "seen", (OBJECTS[1], OBJECTS[0]), target=0)  # asks for the Hobby


@pytest.fixture
def table(tmp_path: Path) -> str:
    path = tmp_path / "probe.json"
    path.write_text(json.dumps({"Merlin": 0.5}))
    return str(path)


@pytest.mark.parametrize(
    ("accuracy", "found", "missed"),
    [  # GOOD has an IoU of 0.9; the product is at most 1
        (1.0, 0.9 * 0.65, -0.6),
        (0.70, 0.9 * 0.65, -0.6),
        (0.69, 0.9 * 0.85, -0.5),
        (0.45, 0.9 * 0.85, -0.5),
        (0.30, 0.9, -0.4),
        (0.10, 1.0, -0.2),
        (0.09, 1.0, 0.0),
        (0.0, 1.0, 0.0),
    ],
)
def test_knowledge_reward_by_level(tmp_path: Path, accuracy: float, found: float, missed: float) -> None:
    path = tmp_path / "probe.json"
    path.write_text(json.dumps({"Merlin": accuracy}))
    reward = KnowledgeReward(str(path))
    assert score(reward, tagged(GOOD)) == pytest.approx(found)
    assert score(reward, tagged("(0,0),(325,1000)")) == pytest.approx(missed)  # 0.65 exactly: not above the gate
    assert score(reward, tagged(MISS)) == pytest.approx(missed)
    assert score(reward, tagged("on the left")) == pytest.approx(missed)
    assert score(reward, GOOD) == 0.0  # no answer block


def test_an_entity_that_was_not_probed_is_on_the_lowest_level(table: str) -> None:
    reward = KnowledgeReward(table)
    found = reward(answers([tagged(MISS), tagged(GOOD)]), [SAMPLE, OTHER])
    assert found.tolist() == pytest.approx([-0.5, 0.0])
    assert reward.level(OTHER).name == "completely incorrect"


def test_samples_may_tell_their_own_knowledge() -> None:
    reward = KnowledgeReward(None)
    known, unknown = (replace(SAMPLE, knowledge=name) for name in ("known", "unknown"))
    found = reward(answers([tagged(GOOD)] * 2 + [tagged(MISS)] * 2), [known, unknown] * 2)
    assert found.tolist() == pytest.approx([0.585, 1.0, -0.6, 0.0])


@pytest.mark.parametrize(
    ("right", "ious"), [(1, (0.9, 0, 0, 0)), (2, (0.9, 0.8, 0, 0))], ids=["one of four", "two of four"]
)
def test_a_group_cancels_the_scale(right: int, ious: tuple[float, ...]) -> None:
    """By hand: with one of four right the advantages are 1.5 and -0.5 on every level; see paper, table of levels."""
    published = {"vanilla": (1.0, 0.0), "top": (0.65, -0.6), "bottom": (1.4, 0.0)}
    advantages = {}
    for name, (scale, penalty) in published.items():
        rewards = torch.tensor([min(1.0, scale * i) if i else penalty for i in ious])
        advantages[name] = group_advantage(rewards, 4, eps=0.0)
        raw = group_advantage(rewards, 4, "none")
        assert raw[0].item() == pytest.approx(float(rewards[0] - rewards.mean()))
    if right == 1:
        for found in advantages.values():
            torch.testing.assert_close(found, torch.tensor([1.5, -0.5, -0.5, -0.5]))
    else:  # computed by hand from means and unbiased deviations
        assert advantages["vanilla"][:2].tolist() == pytest.approx([0.9646, 0.7615], abs=1e-3)
        assert advantages["top"][:2].tolist() == pytest.approx([0.9141, 0.8165], abs=1e-3)
        assert advantages["bottom"][:2].tolist() == pytest.approx([0.8660, 0.8660], abs=1e-3)


@pytest.mark.parametrize("content", ["[1]", "{}", '{"a": 2}', '{"a": true}', "{", '{"a": "0.5"}'])
def test_probe_files_are_checked(tmp_path: Path, content: str) -> None:
    path = tmp_path / "probe.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"reward\.accuracies: .*probe\.json"):
        KnowledgeReward(str(path))


def test_levels_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"reward\.levels"):
        KnowledgeReward(None, levels=[Level("a", 0.0, 1.0, 0.0), Level("b", 0.5, 1.0, 0.0)])
    with pytest.raises(ConfigError, match=r"reward\.levels"):
        KnowledgeReward(None, levels=[Level("a", 0.5, 1.0, 0.0)])
