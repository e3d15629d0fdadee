"""A run says at its end what was learnt, and why where nothing was."""

from __future__ import annotations

import logging
import re
from dataclasses import replace

import pytest
import torch

from data_modules import CoTSFTDataModule, GRPODataModule
from kvg.backbones.backbone import Backbone
from kvg.losses.family import GRPOLoss
from kvg.modules.cot_sft import CoTSFTModule
from kvg.modules.grpo import GRPOModule
from kvg.modules.run_summary import RunHistory, reward_lines
from kvg.rewards.diagnosis import Start, likely_causes
from tests.modules.stage_2 import PUBLISHED, SPACES

FINE = {"unparsed": 0.0, "truncated": 0.0, "reward/iou": 0.5, "reward/format": 1.0}
START = Start("runs/sft/export", "think", "think", (784, 19600), (784, 19600), 256, 4, 1.0)


def test_means_of_the_first_the_last_and_all_batches_by_hand():
    history = RunHistory(edge=2)
    for value in (1.0, 2.0, 6.0, 7.0, 9.0):
        history.add({"loss": torch.tensor(value), "tokens": 10 * value})
    means = history.means(lambda rows: rows)
    assert means == {
        "first": {"loss": 1.5, "tokens": 15.0},
        "last": {"loss": 8.0, "tokens": 80.0},
        "all": {"loss": 5.0, "tokens": 50.0},
    }
    assert (history.edge, history.num_batches) == (2, 5)


def test_ends_of_a_short_run_do_not_overlap():
    history = RunHistory(edge=10)
    assert history.means(lambda rows: rows) == {}
    for value in (1.0, 2.0, 6.0):
        history.add({"loss": value})
    means = history.means(lambda rows: rows)
    assert (means["first"]["loss"], means["last"]["loss"], means["all"]["loss"]) == (1.0, 6.0, 3.0)


def test_lines_of_stage_2():
    first = {"reward/iou": 0.1, "reward/total": 0.2, "equal_groups": 0.75, "unparsed": 0.5, "truncated": 0.25}
    last = {"reward/iou": 0.6, "reward/total": 1.1, "equal_groups": 0.25, "unparsed": 0.0, "truncated": 0.0}
    means = {"first": first, "last": last, "all": {**last, "equal_groups": 0.5}}
    assert reward_lines(means, 10, 12345.0, 40) == (
        "Stage 2: 40 steps, 12,345 tokens sampled, 50% of all groups had equal rewards.",
        "Mean reward in the first -> last 10 batches: total 0.20 -> 1.10, iou 0.10 -> 0.60.",
        "Shares in the first -> last 10 batches: groups with equal rewards 75% -> 25%, no box 50% -> 0%, "
        "truncated 25% -> 0%.",
    )


@pytest.mark.parametrize(
    ("numbers", "start", "cause"),
    [
        ({"unparsed": 0.9}, {}, "90% of the answers hold no box"),
        ({"truncated": 0.8}, {}, "80% of the answers are truncated at 256 tokens: raise model.max_new_tokens"),
        ({"reward/format": 0.0}, {}, "the format reward is 0.00: answers do not have the format of mode 'think'"),
        (
            {"reward/iou": 0.0},
            {},
            "the IoU reward is 0.00 although answers hold boxes: the boxes are wrong, or iou_threshold is too high",
        ),
        ({"reward/iou": 0.99}, {}, "the IoU reward is 0.99: the prompts are too easy, see kvg-data filter"),
        (
            {},
            {"trained_mode": None},
            "the run started from runs/sft/export, which is not a stage-1 export: start from an export",
        ),
        ({}, {"mode": "direct"}, "runs/sft/export was trained in mode 'think', this run uses 'direct'"),
        (
            {},
            {"pixels": (784, 401408)},
            "pictures have 784-401408 pixels, runs/sft/export was trained with 784-19600: set max_pixels to null",
        ),
        ({}, {"group_size": 1}, "model.group_size is 1: a group needs at least 2 completions"),
        ({}, {"temperature": 0.1}, "temperature 0.1 is low: the answers to a prompt hardly differ"),
    ],
)
def test_each_cause_is_named_alone_with_its_number(numbers, start, cause):
    assert likely_causes({**FINE, **numbers}, replace(START, **start)) == [cause]


def test_a_healthy_run_has_no_likely_cause():
    assert likely_causes(FINE, START) == []
    assert likely_causes({}, None) == []


def stage_2(backbone, adamw, reward):
    return GRPOModule(backbone, reward, GRPOLoss(beta=0.0), adamw(1e-3), group_size=2, max_new_tokens=6)


def lines_of(caplog):
    return [record.getMessage() for record in caplog.records if "rank_zero" in record.name]


def test_stage_2_without_a_reward_says_so_at_its_start_and_end(fit, tiny, adamw, two, tmp_path, caplog, recwarn):
    """A random model never answers in the form, so that both parts are 0."""
    with caplog.at_level(logging.INFO):
        fit(stage_2(tiny(), adamw, PUBLISHED), GRPODataModule(two, mode="think", batch_size=2), 2)
    warned = [str(warning.message) for warning in recwarn]
    assert (
        sum("stage 2 starts from tiny, which is not a stage-1 export of this project" in text for text in warned) == 1
    )
    (nothing,) = [text for text in warned if text.startswith("nothing was learnt in the whole run")]
    assert "mean reward 0.00, 100% of the groups have equal rewards" in nothing
    for cause in ("started from tiny", "100% of the answers hold no box", "are truncated at 6 tokens", "mode 'think'"):
        assert cause in nothing
    lines = lines_of(caplog)
    assert re.match(r"Stage 2: 2 steps, \d+ tokens sampled, 100% of all groups had equal rewards\.", lines[-5])
    assert lines[-2] == f"The trained model is in {tmp_path / 'export'}."


def test_stage_2_that_learns_from_an_export_warns_of_nothing(fit, tiny, adamw, two, tmp_path, caplog, recwarn):
    tiny().export(tmp_path / "sft", "think")
    backbone = Backbone(str(tmp_path / "sft"))
    with caplog.at_level(logging.INFO):
        module = stage_2(backbone, adamw, SPACES)
        fit(module, GRPODataModule(two, mode="think", batch_size=2), 4)
    assert not [w for w in recwarn if "stage 1" in str(w.message) or "nothing was learnt" in str(w.message)]
    assert re.search(r"batches: total 0\.\d\d -> 0\.\d\d, spaces 0\.\d\d -> 0\.\d\d\.", lines_of(caplog)[-4])


def test_stage_1_says_what_was_learnt(fit, tiny, adamw, two, tmp_path, caplog):
    module = CoTSFTModule(tiny(), adamw(3e-3), warmup=0.0, schedule="constant")
    with caplog.at_level(logging.INFO):
        log = fit(module, CoTSFTDataModule(two, batch_size=2), 4)
    first, last = (sum(log["train/loss"][at]) / 2 for at in (slice(0, 2), slice(2, 4)))
    num_tokens = sum(log["train/labelled_tokens"])
    lines = lines_of(caplog)
    loss = f"loss {first:.2f} -> {last:.2f} in the first -> last 2 batches"
    assert lines[-3] == f"Stage 1: 4 steps, {num_tokens:,.0f} labelled tokens, {loss}."
    assert lines[-2] == f"The trained model is in {tmp_path / 'export'}."
    assert lines[-1] == f"Try it:  kvg ground PICTURE NAME --checkpoint {tmp_path / 'export'}"
