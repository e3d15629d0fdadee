"""Settings of an evaluation: the prompt mode, and sets that are gone through once."""

from __future__ import annotations

import pytest

from data_modules import EvaluationDataModule
from kvg.errors import ConfigError


def test_auto_asks_as_the_model_was_trained(write_set, backbone, caplog):
    data = EvaluationDataModule(write_set(2))
    data.connect(backbone)
    assert data.mode == "direct"  # it does not tell
    backbone.trained_mode = "think"
    assert data.mode == "think"
    assert EvaluationDataModule(write_set(2, name="other"), mode="json").mode == "json"


def test_settings_that_cannot_work(write_set, tmp_path):
    with pytest.raises(ConfigError, match=r"data\.mode: 'thinking' is not one of auto, think, direct, cot, json, qwen"):
        EvaluationDataModule("set", mode="thinking")
    options = {"options": ("Merlin", "Osprey")}
    data = EvaluationDataModule(write_set(2, **options), mode="describe")
    with pytest.raises(ConfigError, match=r"data\.mode: describe is for boxes, but test has multiple-choice"):
        data.setup("test")


def test_sets_are_gone_through_once(write_set, monkeypatch):
    data = EvaluationDataModule(write_set(3))
    data.setup("test")
    known = data.batches
    monkeypatch.setattr("data_modules.evaluation.check_set", None)
    data.setup("test")
    assert data.batches is known
    assert [[row for row, _ in rows] for _, _, rows in known.read([0])] == [[0, 1, 2]]
