"""Loggers of a run as configs name them: their packages, and where their files are."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from jsonargparse import Namespace
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

from kvg.errors import ConfigError

RUN: Final = "RUN"  # stands for trainer.default_root_dir: in save_dir as its first part, in tracking_uri anywhere
_PACKAGES: Final = {  # of Lightning's loggers that need one which is not a requirement of the project
    "WandbLogger": "wandb",
    "MLFlowLogger": "mlflow",
    "CometLogger": "comet_ml",
    "NeptuneLogger": "neptune",
}
_WITH_VERSIONS: Final = ("TensorBoardLogger", "CSVLogger")  # write into version_N


def check_loggers(trainer: Namespace) -> None:
    """Checks that the packages of the loggers are installed, before anything is built.

    Args:
        trainer: settings of the Trainer.

    Raises:
        ConfigError: a package is missing.
    """
    for logger in _loggers(trainer):
        package = _PACKAGES.get(_name(logger), "")
        if package and importlib.util.find_spec(package) is None:
            remedy = f"{_name(logger)} needs the package {package}, which is not installed; run `pip install {package}`"
            raise ConfigError("trainer.logger", f"{remedy}, or leave out configs/logger/{package}.yaml")


def with_places(trainer: Namespace) -> Namespace:
    """Returns the settings with ``RUN`` in each ``save_dir`` and ``tracking_uri`` replaced by the run's folder.

    The environment's ``MLFLOW_TRACKING_URI`` goes before a ``tracking_uri`` with ``RUN``.
    Loggers with versions are named after the job under SLURM, like Lightning's default one, so that
    ``configs/slurm/fit.sbatch`` finds their checkpoints.

    Args:
        trainer: settings of the Trainer; they are not changed.
    """
    trainer = trainer.clone()
    for logger in _loggers(trainer):
        arguments = logger.get("init_args") or {}
        folder = Path(trainer.get("default_root_dir") or ".")
        address = str(arguments.get("tracking_uri") or "")
        if f"/{RUN}/" in address:
            folder.mkdir(parents=True, exist_ok=True)  # a database needs it from the start
            own = address.replace(f"/{RUN}/", f"/{folder}/")
            arguments["tracking_uri"] = os.environ.get("MLFLOW_TRACKING_URI") or own
        first, *rest = Path(str(arguments.get("save_dir") or "")).parts or ("",)
        if first == RUN:
            arguments["save_dir"] = str(folder.joinpath(*rest))
            if _name(logger) in _WITH_VERSIONS and arguments.get("version") is None and SLURMEnvironment.detect():
                arguments["version"] = SLURMEnvironment.job_id()
    return trainer


def _loggers(trainer: Namespace) -> Iterator[Any]:
    value = trainer.get("logger")
    for logger in value if isinstance(value, list) else [value]:
        if isinstance(logger, Namespace) and logger.get("class_path"):
            yield logger


def _name(logger: Any) -> str:
    return str(logger["class_path"]).rpartition(".")[2]
