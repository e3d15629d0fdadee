"""`kvg test ... --data.test SET` after a stage's config: the data of the stage has no test sets, and makes way."""

from __future__ import annotations

import pytest
import yaml

from kvg.cli.kvg import main
from kvg.config.overlay_files import SHIPPED, with_test_sets

STAGE, OVERLAY = str(SHIPPED / "configs/stage/cot_sft.yaml"), str(SHIPPED / "configs/data/test_sets.yaml")


@pytest.mark.parametrize("option", ["--data.test=mine", "--data.init_args.test=mine"])
@pytest.mark.parametrize("config", [["-c", STAGE], [f"--config={STAGE}"]])
def test_the_overlay_comes_before_the_set(config, option):
    assert with_test_sets(["test", *config, option]) == ["test", *config, "-c", OVERLAY, option]
    assert with_test_sets(["predict", *config, "--seed_everything", "1", option])[-3:] == ["-c", OVERLAY, option]


@pytest.mark.parametrize(
    "args",
    [
        ["fit", "-c", STAGE, "--data.test=mine"],
        ["test", "-c", STAGE],
        ["test", "-c", STAGE, "-c", OVERLAY, "--data.test=mine"],
        ["test", "-c", STAGE, "--data.class_path=mine.Data", "--data.test=mine"],
    ],
    ids=["fit", "no set", "named already", "a class of one's own"],
)
def test_nothing_else_changes(args):
    assert with_test_sets(args) == args


def test_the_set_is_read_and_the_rest_of_the_stage_stays(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    args = ["test", "-c", "configs/stage/cot_sft.yaml", "-c", "configs/backbone/tiny.yaml", "--data.test", "mine"]
    with pytest.raises(SystemExit) as stop:
        main([*args, "--data.mode", "cot", "--print_config"])
    assert stop.value.code == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["data"]["class_path"] == "data_modules.EvaluationDataModule"
    assert (config["data"]["init_args"]["test"], config["data"]["init_args"]["mode"]) == ("mine", "cot")
    assert config["model"]["class_path"] == "kvg.modules.cot_sft.CoTSFTModule"
    assert main([*args, "--model.backbone.init_args.checkpoint", "tiny"]) == 2
    assert "mine" in capsys.readouterr().err
