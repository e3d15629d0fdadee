"""Runs with each logger of configs/logger, and what is missing for one is named before a model is loaded."""

from __future__ import annotations

import csv
import importlib.util

import pytest
import yaml

from kvg.cli.kvg import main
from kvg.report.curves import read_curves
from kvg.training.loggers import with_places


@pytest.fixture(scope="module")
def two(tmp_path_factory, lab_shards):
    return lab_shards(tmp_path_factory.mktemp("two") / "set", 2, sizes=[(84, 84)], snap_px=None)


@pytest.mark.parametrize("logger", ["csv", "tensorboard"])
def test_a_run_logs_every_step_and_the_report_reads_it(kvg, two, tmp_path, capsys, logger):
    run = tmp_path / "run"
    settings = {"trainer__max_steps": 3, "data__train": two, "data__batch_size": 2, "model__export": False}
    kvg("fit", "cot_sft", run, f"configs/logger/{logger}.yaml", **settings)
    curves = read_curves(run)
    assert [step for step, _ in curves["train/loss"]] == [0, 1, 2]
    assert {"train/grad_norm", "train/tokens_per_s", "lr-AdamW"} <= curves.keys()
    kinds = {path.name.partition(".")[0] for path in (run / "lightning_logs/version_0").iterdir() if path.is_file()}
    assert kinds == ({"config", "metrics"} if logger == "csv" else {"config", "hparams", "events"})
    # The place is not written down, so that the config can be run again elsewhere.
    config = yaml.safe_load((run / "lightning_logs/version_0/config.yaml").read_text())
    assert config["trainer"]["logger"][0]["init_args"]["save_dir"] == "RUN"
    if logger == "csv":
        with (run / "lightning_logs/version_0/metrics.csv").open() as stream:
            losses = [float(row["train/loss"]) for row in csv.DictReader(stream) if row["train/loss"]]
        assert losses == [value for _, value in curves["train/loss"]]
        capsys.readouterr()
        args = ["fit", "-c", "configs/stage/cot_sft.yaml", "-c", "configs/backbone/tiny.yaml"]
        assert main([*args, f"--data.train={two}", f"--trainer.default_root_dir={run}"]) == 2
        assert "contains an unfinished run" in capsys.readouterr().err


@pytest.mark.parametrize(("logger", "kind"), [("wandb", "WandbLogger"), ("mlflow", "MLFlowLogger")])
def test_a_missing_package_is_named_before_a_model_is_loaded(two, tmp_path, monkeypatch, capsys, logger, kind):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *args: None if name == logger else find(name, *args))
    args = ["fit", "-c", "configs/stage/cot_sft.yaml", "-c", f"configs/logger/{logger}.yaml"]
    missing = "--model.init_args.backbone.init_args.checkpoint=no/such/model"
    assert main([*args, missing, f"--data.train={two}", f"--trainer.default_root_dir={tmp_path / 'run'}"]) == 2
    assert capsys.readouterr().err == (
        f"kvg: trainer.logger: {kind} needs the package {logger}, which is not installed; run `pip install {logger}`, "
        f"or leave out configs/logger/{logger}.yaml\n"
    )
    assert not (tmp_path / "run").exists()


def test_places_of_loggers(tmp_path, monkeypatch):
    from jsonargparse import Namespace

    def trainer(logger, **more):
        return Namespace(logger=logger, default_root_dir="runs/mine", **more)

    def logger(kind, save_dir, **more):
        return Namespace(class_path=f"lightning.pytorch.loggers.{kind}", init_args=Namespace(save_dir=save_dir, **more))

    given = trainer([logger("CSVLogger", "RUN"), logger("WandbLogger", "RUN/w"), logger("CSVLogger", "logs")])
    assert [one.init_args.save_dir for one in with_places(given).logger] == ["runs/mine", "runs/mine/w", "logs"]
    assert given.logger[0].init_args.save_dir == "RUN"
    assert with_places(trainer(True)).logger is True
    local = trainer(logger("MLFlowLogger", "RUN", tracking_uri="sqlite:///RUN/mlflow.db"))
    monkeypatch.chdir(tmp_path)
    assert with_places(local).logger.init_args.tracking_uri == "sqlite:///runs/mine/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert with_places(local).logger.init_args.tracking_uri == "http://127.0.0.1:5000"
    # A requeued job is looked for under its number, see configs/slurm/fit.sbatch.
    monkeypatch.setattr("kvg.training.loggers.SLURMEnvironment.detect", lambda: True)
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    assert with_places(trainer(logger("TensorBoardLogger", "RUN", version=None))).logger.init_args.version == 77
