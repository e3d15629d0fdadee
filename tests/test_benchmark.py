"""KVG-Bench's words: the paper's categories, splits and levels."""

import pytest

from kvg.benchmark import (
    CATEGORIES,
    KNOWN_LEVELS,
    LEVELS,
    category_order,
    knowledge_of_accuracy,
    knowledge_of_level,
    level_of,
    split_of,
)
from kvg.rewards.knowledge import PUBLISHED


def test_ten_categories_of_which_five_are_kept_out_of_training():
    assert len(set(CATEGORIES)) == 10
    assert [split_of(category) for category in CATEGORIES] == ["seen"] * 5 + ["unseen"] * 5
    assert split_of("mushroom") == "seen"  # a user's own category is trained on


def test_categories_of_users_follow_those_of_the_benchmark_by_name():
    assert sorted(["tree", "landmark", "aircraft", "mushroom"], key=category_order) == [
        "aircraft",
        "landmark",
        "mushroom",
        "tree",
    ]


@pytest.mark.parametrize(
    ("accuracy", "level", "knowledge"),
    [
        (1.0, "completely correct", "known"),
        (0.70, "completely correct", "known"),
        (0.699, "mostly correct", "known"),
        (0.45, "mostly correct", "known"),
        (0.30, "partially correct", "known"),
        (0.299, "mostly incorrect", "unknown"),
        (0.10, "mostly incorrect", "unknown"),
        (0.0, "completely incorrect", "unknown"),
    ],
)
def test_levels_begin_where_the_paper_says_and_three_of_them_are_known(accuracy, level, knowledge):
    assert level_of(accuracy) == level
    assert knowledge_of_accuracy(accuracy) == knowledge_of_level(level) == knowledge


def test_the_published_reward_pays_by_the_same_levels():
    assert tuple(level.name for level in PUBLISHED) == LEVELS
    assert LEVELS[:3] == KNOWN_LEVELS
    assert [(level.min_accuracy, level.scale, level.penalty) for level in PUBLISHED] == [
        (0.70, 0.65, -0.6),
        (0.45, 0.85, -0.5),
        (0.30, 1.0, -0.4),
        (0.10, 1.2, -0.2),
        (0.0, 1.4, 0.0),
    ]
