"""What is looked at before a command loads a model, which takes minutes where it is large: data, settings, paths."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import nn

from kvg.backbones.family import Family
from kvg.backbones.find_family import find_family
from kvg.errors import ConfigError
from kvg.modules.gradients import check_limit
from kvg.runs.checkpoint_record import (
    Saved,
    check_backbone,
    check_exists,
    check_same_training,
    nothing_left,
    read_saved,
    record_of,
)
from kvg.runs.folder import EXPORT, has_export, lies_in, newest_checkpoint

log = logging.getLogger(__name__)


class NoWeights(nn.Module):
    """Stands for a backbone while the arguments of the module around it are checked.

    Args:
        checkpoint: that it would load.
        family: as the config names it; None leaves it to the checkpoint.
    """

    def __init__(self, checkpoint: str, family: Family | None) -> None:
        super().__init__()
        self.checkpoint, self.given_family = checkpoint, family

    def __getattr__(self, name: str) -> Any:
        """Whoever needs more than this has to wait for the model."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            raise NeedsWeights(name) from None


class NeedsWeights(AttributeError):
    """A module uses its backbone as it is built."""


def first_cause(error: BaseException, kind: type[BaseException]) -> BaseException | None:
    """The error of a kind that an error was raised from; parsers wrap whatever a class raises as it is built."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, kind):
        cause = cause.__cause__ or cause.__context__
    return cause


@contextmanager
def trainer_errors() -> Iterator[None]:
    """For building the Trainer.

    Raises:
        ConfigError: its settings do not go together, or this machine lacks what they ask for.
    """
    try:
        yield
    except (MisconfigurationException, ValueError, RuntimeError, TypeError, ImportError) as error:
        raise ConfigError("trainer", f"{error}; change its settings") from error


def check_data(datamodule: Any, command: str) -> None:
    """Opens what the data module names.

    Raises:
        KVGError: it cannot be used, or has nothing for the command.
    """
    loader = {"fit": "train", "validate": "val"}.get(command, command) + "_dataloader"
    if datamodule is not None and not is_overridden(loader, datamodule):
        choice = (
            "the data of a stage" if command == "fit" else "an EvaluationDataModule (-c configs/data/lab_test.yaml)"
        )
        raise ConfigError("data", f"{type(datamodule).__name__} has nothing for kvg {command}; give {choice}")
    # Only those of this project are known to need neither the Trainer nor ``prepare_data`` for it.
    if datamodule is not None and hasattr(datamodule, "connect"):
        datamodule.setup(command)


def check_steps(trainer: L.Trainer, module: L.LightningModule) -> None:
    """Refuses settings of the Trainer that the stage cannot be trained with.

    Raises:
        ConfigError: the limit of gradients; steps of the Trainer for a stage that takes its own.
    """
    check_limit(trainer)
    if not module.automatic_optimization:
        refuse_trainer_steps(trainer.gradient_clip_val, trainer.accumulate_grad_batches)


def refuse_trainer_steps(gradient_clip_val: float | None, accumulate_grad_batches: int) -> None:
    """Refuses settings of the Trainer for a stage that takes its optimizer steps itself.

    Raises:
        ConfigError: one is set.
    """
    if gradient_clip_val:
        remedy = "this stage takes its steps itself; set it to null and give model.max_grad_norm"
        raise ConfigError("trainer.gradient_clip_val", remedy)
    if accumulate_grad_batches != 1:
        remedy = "this stage takes its steps itself; set it to 1, raise data.batch_size and give model.microbatch_size"
        raise ConfigError("trainer.accumulate_grad_batches", remedy)


def checkpoint_path(given: str | None, folder: Path, command: str) -> str | None:
    """The checkpoint that a command goes on from, where it is given by a word too.

    Args:
        given: ``ckpt_path`` as it is set.
        folder: of the run.
        command: ``fit`` and so on.

    Raises:
        ConfigError: there is none, or the word means nothing here.
    """
    if given == "best":
        remedy = "'best' is known only while the run goes on; name the file, or `last` for the newest"
        raise ConfigError("ckpt_path", remedy)
    if given == "last":
        newest = newest_checkpoint(folder)
        if newest is None:
            raise ConfigError("ckpt_path", f"there is no last checkpoint in {folder}; leave it out, or name a file")
        rank_zero_info("The last checkpoint is %s.", newest)
        return str(newest)
    if given == "hpc" or (given is None and command == "fit" and SLURMEnvironment.detect()):
        saved = sorted(folder.glob("hpc_ckpt_*.ckpt"), key=lambda path: int(path.stem.rpartition("_")[2]))
        if given and not saved:
            raise ConfigError("ckpt_path", f"there is no hpc_ckpt_*.ckpt in {folder}; leave it out, or name a file")
        return str(saved[-1]) if saved else None
    return given if given is None or given.startswith("registry:") else str(check_exists(given))


def check_checkpoint(
    path: str, command: str, trainer: L.Trainer, module: L.LightningModule, datamodule: Any, backbone: NoWeights
) -> Saved:
    """Looks at a checkpoint and whether this command can use it.

    Args:
        path: of the checkpoint.
        command: a fit goes on with the training, others take the weights.
        trainer: that would load it.
        module: built around ``backbone``.
        datamodule: of the command.
        backbone: names the model that it starts from.

    Raises:
        ConfigError: it is of another training, of another model, complete, damaged, or not for this strategy.
    """
    saved = read_saved(path)
    if saved.sharded and not isinstance(trainer.strategy, FSDPStrategy | ModelParallelStrategy):
        remedy = f"'{path}' was saved in parts by FSDP; use that strategy (-c configs/strategy/fsdp2.yaml)"
        raise ConfigError("ckpt_path", f"{remedy}, or start from the run's {EXPORT}")
    family = find_family(backbone.checkpoint, backbone.given_family).model_type
    if command != "fit":
        check_backbone(saved, family)
    else:
        check_same_training(saved, record_of(module, datamodule, family))
        _check_unfinished(saved, trainer, bool(getattr(module, "export", False)))
    _check_size(saved, backbone.checkpoint)
    return saved


def _check_unfinished(saved: Saved, trainer: L.Trainer, exports: bool) -> None:
    limit = nothing_left(saved, trainer.max_steps, trainer.max_epochs)
    if not limit:
        return
    folder = Path(trainer.default_root_dir)
    if exports and lies_in(saved.path, folder) and not has_export(folder):
        rank_zero_info("Nothing is left to train (%s); the model is exported.", limit)
        return
    export = saved.run / EXPORT
    model = f"its model is {export}" if has_export(saved.run) else "it has left no export"
    remedy = f"'{saved.path}' is complete ({limit}), so nothing is left to train; {model}; raise that limit to train on"
    raise ConfigError("ckpt_path", remedy)


def _check_size(saved: Saved, checkpoint: str) -> None:
    """Compares width and vocabulary with those of a model's folder, whose weights need not be read for that."""
    file = Path(checkpoint) / "config.json"
    embedding = next((shape for name, shape in saved.tensors.items() if name.endswith("embed_tokens.weight")), None)
    if embedding is None or not file.is_file():
        return
    try:
        config = json.loads(file.read_text("utf-8"))
        text: Mapping[str, Any] = {**config, **(config.get("text_config") or {})}
        here = (int(text["vocab_size"]), int(text["hidden_size"]))
    except (OSError, ValueError, KeyError, TypeError):
        return  # whoever loads the model says what is wrong with it
    if tuple(embedding) != here:
        remedy = f"'{saved.path}' holds a model with embeddings of {tuple(embedding)}, {checkpoint} one of {here}"
        raise ConfigError("ckpt_path", f"does not fit this model: {remedy}; choose the model it was trained from")
