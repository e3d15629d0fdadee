"""The files of a run: what counts as done, and what a kill between two writes leaves."""

from __future__ import annotations

import json

import pytest

from kvg.evaluation.records.prediction_files import Predictions


@pytest.fixture
def run(tmp_path):
    def make(**settings):
        return Predictions(tmp_path, {"mode": "direct", **settings}, [2, 1], {"sets": {"test": "here"}})

    return make


def answer(run, number, *keys):
    run.job.save(number, [{"line": {"key": key, "answer": "ä"}, "seconds": 0.5} for key in keys])


def test_answers_are_put_together_in_order_and_then_nothing_is_missing(run, tmp_path):
    assert run().missing() == [0, 1]
    answer(run(), 1, "c")
    assert run().missing() == [0]
    run().job.save(0, [{"fault": "row 0: image: broken", "seconds": 0.5}, {"line": {"key": "b"}, "seconds": 0.25}])
    told = run().write(2, ["row 7: answer: none"])
    lines = (tmp_path / "predictions.jsonl").read_text("utf-8").splitlines()
    assert lines == ['{"key": "b"}', '{"key": "c", "answer": "ä"}']
    assert (told["num_cases"], told["num_bad"], told["seconds"]) == (2, 3, 1.2)
    assert told["bad"] == ["row 7: answer: none", "row 0: image: broken"]
    assert told == json.loads((tmp_path / "predictions.json").read_text("utf-8"))
    assert (told["sets"], told["settings"]) == ({"test": "here"}, {"mode": "direct"})
    assert run().finished
    assert run().missing() == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["predictions.json", "predictions.jsonl"]


def test_answers_of_other_settings_do_not_count(run, tmp_path):
    answer(run(), 0, "a", "b")
    assert run(mode="think").missing() == [0, 1]
    answer(run(), 1, "c")
    run().write(0, [])
    assert not run(mode="think").finished
    assert run(mode="think").missing() == [0, 1]


def test_killed_between_both_files_it_is_not_finished(run, tmp_path):
    for number, keys in ((0, "ab"), (1, "c")):
        answer(run(), number, *keys)
    (tmp_path / "predictions.jsonl").write_text("old\n")
    (tmp_path / "predictions.json").write_text('{"identity": "old"}')
    assert not run().finished
    assert run().missing() == []
    run().write(0, [])
    assert run().finished
    for damage in ("{", "[]", ""):
        (tmp_path / "predictions.json").write_text(damage)
        assert not run().finished


def test_a_damaged_piece_is_asked_again(run, tmp_path):
    answer(run(), 0, "a", "b")
    piece = tmp_path / "predictions.units/000000.json"
    piece.write_text(piece.read_text()[:-9])
    assert run().missing() == [0, 1]
