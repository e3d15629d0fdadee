"""The file of an experiment: what it comes to, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvg.cli.kvg_data import main
from kvg.errors import ConfigError
from kvg.workflow.sweep_config import load_experiment


def test_every_combination_of_the_axes_is_a_variant_and_the_baseline_comes_first(write_experiment):
    experiment = load_experiment(write_experiment())
    assert [v.name for v in experiment.variants] == ["large+grpo", "small+sft", "small+grpo", "large+sft"]
    first = experiment.variants[0]
    assert first.fit.configs[-1] == "configs/stage/grpo.yaml"
    assert list(first.fit.settings)[1:] == ["data.batch_size", "model.warmup", "trainer.max_steps"]
    assert first.fit.settings["trainer.max_steps"] == 4
    assert first.predict.settings["data.mode"] == "direct"
    assert experiment.variants[1].predict.settings["data.mode"] == "think"


def test_what_is_left_out_has_a_default(write_experiment):
    experiment = load_experiment(write_experiment(out=None, compare=None, prepare=None))
    assert experiment.out == Path("runs/sweeps/trial")
    assert experiment.variants[0].name == "small+sft"
    assert experiment.by == ("split", "knowledge")
    assert experiment.curves == ("val/iou_acc",)


def test_values_stand_on_a_command_line_as_the_command_reads_them(write_experiment):
    fill = load_experiment(write_experiment(out="runs/x")).fill
    assert [fill(value) for value in (None, True, 2e-4, "a b")] == ["null", "true", "0.0002", "a b"]
    assert fill({"one": "{out}/{variant}/{seed}"}, "v", 0) == '{"one": "runs/x/v/0"}'
    with pytest.raises(ConfigError, match=r"\{seeds\}: in 'a/\{seeds\}' has no value; there are"):
        fill("a/{seeds}", "v", 0)
    with pytest.raises(ConfigError, match=r"\{seed\}: in .* there are \{out\}"):
        fill("{seed}")


RUN = {"run": "kvg-data cards --out x", "makes": "x"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, r"^seed: is unknown; choose from out, seeds, .*trial.yaml"),
        ({"seeds": 3}, r"seeds: 3 is not a list of whole numbers"),
        ({"seeds": []}, r"seeds: \[\] is not a list"),
        ({"seeds": [0, True]}, r"seeds: \[0, True\] is not a list of whole"),
        ({"seeds": [0, 1, 0]}, r"seeds: .* contains a seed twice"),
        ({"out": 3}, r"out: 3 is not a text"),
        ({"axes": None}, r"axes: None is not a mapping; write `axes: \{name"),
        ({"axes": {"lr": {}}}, r"axes.lr: \{\} is not a mapping"),
        ({"axes": {"lr": {0.1: {}}}}, r"axes.lr.0.1: is not a name: .* in quotes"),
        ({"axes": {"lr": {"a/b": {}}}}, r"axes.lr.a/b: is not a name"),
        ({"axes": {"lr": {"low": {"settings": {}}}}}, r"axes.lr.low.settings: is unknown; choose from fit, predict"),
        ({"axes": {"lr": {"low": {"fit": {"config": []}}}}}, r"axes.lr.low.fit.config: is unknown; choose from conf"),
        (
            {"axes": {"lr": {"low": {"fit": {"settings": ["a"]}}}}},
            r"axes.lr.low.fit.settings: .* should be a mapping of `name: value` lines",
        ),
        ({"fit": None}, r"fit.configs: is missing"),
        ({"fit": {"configs": "configs/stage/grpo.yaml"}}, r"fit.configs: .* should be a list of text"),
        ({"predict": {"configs": []}}, r"predict.configs: is missing"),
        ({"compare": {"baseline": "medium"}}, r"compare.baseline: 'medium' is not a variant; there are small\+sft, sm"),
        ({"compare": {"curve": []}}, r"compare.curve: is unknown; choose from baseline, by, curves"),
        ({"compare": {"curves": "val/iou"}}, r"compare.curves: 'val/iou' should be a list of text"),
        ({"compare": {"by": ["colour"]}}, r"compare.by: 'colour' is none of split, category, knowledge"),
        ({"prepare": {"a b": RUN}}, r"prepare.a b: is not a name"),
        ({"prepare": {"a": {**RUN, "run": "rm -r x"}}}, r"prepare.a.run: must begin with one of kvg, kvg-data"),
        ({"prepare": {"a": {**RUN, "run": "kvg-data 'x"}}}, r"prepare.a.run: cannot be parsed"),
        ({"prepare": {"a": {"run": "kvg-data cards"}}}, r"prepare.a.makes: is missing"),
        ({"prepare": {"a": {**RUN, "makes": ""}}}, r"prepare.a.makes: '' is not a text"),
        ({"axes": {"lr": {"low": {"fit": None}}}}, r"axes.lr.low.fit: null should be a mapping"),
    ],
)
def test_a_file_that_cannot_work_is_refused_by_the_key(write_experiment, changes, message):
    with pytest.raises(ConfigError, match=message):
        load_experiment(write_experiment(**changes))


def test_a_file_that_is_not_there(capsys):
    assert main(["sweep", "configs/sweeps/none.yaml"]) == 2
    assert "no such file; configs/sweeps holds artifacts.yaml" in capsys.readouterr().err
