"""The overlong penalty: DAPO's equation 13, worked by hand."""

import pytest

from kvg.errors import ConfigError
from kvg.rewards.combine import WeightedReward
from kvg.rewards.iou import IoUReward
from kvg.rewards.overlong import OverlongReward
from kvg.text.answer import Answer, read_answer
from kvg.text.box_codec import ImageSize, RelativeCodec
from kvg.types import Completion, Sample, SceneObject

SAMPLE = Sample("k", b"", 10, 10, "bird", "seen", (SceneObject("Merlin", (0.0, 0.0, 5.0, 5.0)),), target=0)


def of_length(num_tokens: int | None, max_tokens: int | None = 100) -> Answer:
    completion = Completion("(0,0),(500,500)", num_tokens, "stop", max_tokens)
    return read_answer(completion, RelativeCodec(), ImageSize(10, 10, 28, 28))


def test_length_costs_linearly_over_the_buffer():
    answers = [of_length(num_tokens) for num_tokens in (1, 80, 81, 90, 95, 100)]
    assert OverlongReward(20)(answers, [SAMPLE] * 6).tolist() == pytest.approx([0, 0, -0.05, -0.5, -0.75, -1])


def test_it_is_a_part_like_any_other():
    parts = {"iou": IoUReward(require_tags=False)}
    reward = WeightedReward(parts, {"overlong": 2.0}, penalties={"overlong": OverlongReward(20)})
    total, breakdown = reward([of_length(90)], [SAMPLE])
    assert list(breakdown) == ["iou", "overlong"]
    assert total.tolist() == pytest.approx([1.0 - 2 * 0.5])
    with pytest.raises(ConfigError, match=r"reward\.penalties: iou: is already a part"):
        WeightedReward(parts, penalties={"iou": OverlongReward(20)})


def test_nothing_is_paid_for_lengths_that_are_not_known():
    with pytest.raises(ValueError, match="num_tokens and max_tokens"):
        OverlongReward(20)([of_length(None)], [SAMPLE])
    with pytest.raises(ValueError, match="num_tokens and max_tokens"):
        OverlongReward(20)([of_length(5, None)], [SAMPLE])


@pytest.mark.parametrize("buffer", [0, -1, 0.5, "3", True])
def test_a_buffer_that_cannot_work(buffer):
    with pytest.raises(ConfigError, match=r"reward\.overlong\.buffer: .* must be a"):
        OverlongReward(buffer)


def test_a_buffer_is_shorter_than_the_longest_completion():
    reward = WeightedReward({"overlong": OverlongReward(99)})
    reward.check_limit(100)
    with pytest.raises(ConfigError, match=r"reward\.overlong\.buffer: 99 must be"):
        reward.check_limit(99)
