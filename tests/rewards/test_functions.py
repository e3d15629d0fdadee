"""Reward functions of TRL's form, in Python and named in a config."""

import pytest
import yaml
from jsonargparse import ArgumentParser

from kvg.errors import TrainingError
from kvg.rewards.combine import WeightedReward
from kvg.rewards.functions import FunctionReward
from kvg.text.answer import read_answer
from kvg.text.box_codec import ImageSize, RelativeCodec
from kvg.types import Completion, Sample, SceneObject

OBJECTS = (SceneObject("Merlin", (0.0, 0.0, 5.0, 5.0)), SceneObject("Hobby", (5.0, 0.0, 10.0, 10.0)))
SAMPLES = [Sample(f"{n}", b"", 10, 20, "bird", "seen", OBJECTS, target=n) for n in range(2)]
TEXTS = ["<think>a Merlin</think><answer>(0,0),(500,250)</answer>", "no idea"]
ANSWERS = [
    read_answer(Completion(text, 7 + n, "stop"), RelativeCodec(), ImageSize(10, 20, 28, 56))
    for n, text in enumerate(TEXTS)
]


def names_the_entity(completions, entity, **kwargs):
    return [float(name in text) for text, name in zip(completions, entity, strict=True)]


def test_a_function_of_trl_scores_completions():
    assert FunctionReward(names_the_entity)(ANSWERS, SAMPLES).tolist() == [1.0, 0.0]


def test_columns_say_what_was_asked_and_answered():
    seen = {}

    def function(completions, **columns):
        seen.update(columns, completions=completions)
        return [None, 0.5]

    assert FunctionReward(function)(ANSWERS, SAMPLES).tolist() == [0.0, 0.5]
    assert seen == {
        "completions": TEXTS,
        "key": ["0", "1"],
        "entity": ["Merlin", "Hobby"],
        "category": ["bird", "bird"],
        "split": ["seen", "seen"],
        "knowledge": ["", ""],
        "target_box": [(0.0, 0.0, 5.0, 5.0), (5.0, 0.0, 10.0, 10.0)],
        "image_size": [(10, 20), (10, 20)],
        "answer": ["(0,0),(500,250)", "no idea"],
        "box": [(0.0, 0.0, 5.0, 5.0), None],
        "num_tokens": [7, 8],
        "finish_reason": ["stop", "stop"],
    }


def test_a_config_names_it_by_its_import_path(tmp_path, monkeypatch):
    (tmp_path / "own_rewards.py").write_text("def long(completions, **kwargs):\n    return [len(completions[0]), 0]\n")
    monkeypatch.syspath_prepend(tmp_path)
    parser = ArgumentParser()
    parser.add_argument("--reward", type=WeightedReward)
    part = {"class_path": "kvg.rewards.functions.FunctionReward", "init_args": {"function": "own_rewards.long"}}
    reward = {"class_path": "kvg.rewards.combine.WeightedReward", "init_args": {"parts": {"length": part}}}
    config = parser.parse_string(yaml.safe_dump({"reward": reward}))
    total, breakdown = parser.instantiate(config).reward(ANSWERS, SAMPLES)
    assert total.tolist() == breakdown["length"].tolist() == [float(len(TEXTS[0])), 0.0]


def test_scores_are_checked():
    with pytest.raises(ValueError, match="returned 1 scores for 2 completions"):
        FunctionReward(lambda completions, **_: [1.0])(ANSWERS, SAMPLES)
    reward = WeightedReward({"own": FunctionReward(lambda completions, **_: [1.0, float("nan")])})
    with pytest.raises(TrainingError, match="reward own: is nan for sample 1; correct this reward"):
        reward(ANSWERS, SAMPLES)
