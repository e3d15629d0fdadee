"""`kvg predict --intervene` as a command: the model goes on from the changed start, which the lines hold."""

from __future__ import annotations

import json

import pytest

from kvg.cli.kvg import main
from kvg.evaluation.diagnostics.intervention import CLOSE, moves
from kvg.evaluation.records.prediction import read_predictions
from kvg.evaluation.records.question import Question
from kvg.rationales.rationale import CardWriter
from kvg.text.box_codec import ImageSize, RelativeCodec
from kvg.text.completion import write_completion
from kvg.text.prompts import fill_boxes

NUM = 3


@pytest.fixture
def thoughts(tmp_path, scenes, lab_shards):
    """A set, and a run that has answered it with right rationales."""
    path, codec = lab_shards(tmp_path / "set", NUM, k_weights={3: 1.0}), RelativeCodec()
    lines = []
    for sample in scenes(NUM, k_weights={3: 1.0}):
        size = ImageSize(sample.width, sample.height, sample.width, sample.height)
        boxes = [codec.encode(item.box_px, size) for item in sample.objects]
        answer = write_completion(fill_boxes(CardWriter().write(sample), boxes), boxes[sample.target])
        lines.append(Question(sample, "test").line(answer, "think", codec, size))
    (tmp_path / "answers").mkdir()
    (tmp_path / "answers/predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path, tmp_path / "answers"


def predict(path, out, *more) -> int:
    configs = [f"configs/{name}.yaml" for name in ("stage/cot_sft", "backbone/tiny", "data/lab_test")]
    words = ["predict", *(word for config in configs for word in ("-c", config)), "--data.test", path]
    words += ["--data.mode", "think", "--model.max_new_tokens", 3, "--trainer.accelerator", "cpu"]
    return main([str(word) for word in (*words, "--trainer.default_root_dir", out, *more)])


def test_the_model_goes_on_from_the_changed_start(thoughts, tmp_path, capsys):
    path, answers = thoughts
    assert predict(path, tmp_path / "none", "--intervene", "none", "--thoughts", answers) == 0
    cases = read_predictions(tmp_path / "none")
    assert len(cases) == NUM
    assert all(case.answer.startswith(f"<think>{CLOSE}") for case in cases)
    assert all(case.num_tokens <= 3 for case in cases)
    assert moves(cases)["n"] == NUM
    assert moves(cases)["right_before"] == NUM
    assert predict(path, tmp_path / "card", "--intervene", "other_card", "--thoughts", answers) == 0
    for case in read_predictions(tmp_path / "card"):
        made = case.raw["intervention"]
        assert made["kind"] == "other_card"
        assert case.answer.startswith(f"<think>Plan: the {case.entity} is {case.objects[made['other']].note}.")
        assert made["other"] != case.target


def test_another_run_or_none_is_refused(thoughts, tmp_path, capsys):
    path, answers = thoughts
    assert predict(path, tmp_path / "a", "--intervene", "none") == 2
    assert "set both intervene" in capsys.readouterr().err
    assert predict(path, tmp_path / "b", "--intervene", "backwards", "--thoughts", answers) == 2
    assert "backwards" in capsys.readouterr().err
    lines = (answers / "predictions.jsonl").read_text().splitlines()
    (answers / "predictions.jsonl").write_text("\n".join(lines[1:]) + "\n")
    assert predict(path, tmp_path / "c", "--intervene", "none", "--thoughts", answers) == 2
    assert "has no answer to this question" in capsys.readouterr().err
