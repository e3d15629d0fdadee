"""Checks of data, settings and paths before a command loads a model, which takes minutes for a large one."""

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
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import nn

from kvg.backbones.family import Family
from kvg.backbones.find_family import find_family
from kvg.backbones.fingerprint import identity, same_model
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
    """Placeholder for a backbone while the module's other arguments are checked.

    Args:
        checkpoint: the checkpoint that the backbone would load.
        family: as the config names it; None reads it from the checkpoint.
    """

    def __init__(self, checkpoint: str, family: Family | None) -> None:
        super().__init__()
        self.checkpoint, self.given_family = checkpoint, family

    def __getattr__(self, name: str) -> Any:
        """Raises ``NeedsWeights`` for every attribute of a loaded backbone."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            raise NeedsWeights(name) from None


class NeedsWeights(AttributeError):
    """A module uses its backbone in its constructor."""


def first_cause(error: BaseException, kind: type[BaseException]) -> BaseException | None:
    """The first error of a kind in the chain of causes; parsers wrap errors of constructors."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, kind):
        cause = cause.__cause__ or cause.__context__
    return cause


@contextmanager
def trainer_errors() -> Iterator[None]:
    """Converts errors of the Trainer's constructor.

    Raises:
        ConfigError: the Trainer's settings conflict, or this machine does not support them.
    """
    try:
        yield
    except (MisconfigurationException, ValueError, RuntimeError, TypeError, ImportError) as error:
        raise ConfigError("trainer", f"{str(error).rstrip('.!')}; change its settings") from error


def check_data(datamodule: Any, command: str) -> None:
    """Opens the sets that the data module names.

    Raises:
        KVGError: a set cannot be used, or the data module has no data for the command.
    """
    loader = {"fit": "train", "validate": "val"}.get(command, command) + "_dataloader"
    if datamodule is not None and not is_overridden(loader, datamodule):
        choice = (
            "the data of a stage" if command == "fit" else "an EvaluationDataModule (-c configs/data/test_sets.yaml)"
        )
        raise ConfigError("data", f"{type(datamodule).__name__} has no data for kvg {command}; give {choice}")
    # Only this project's data modules are known to work without the Trainer and ``prepare_data``.
    if datamodule is not None and hasattr(datamodule, "connect"):
        datamodule.setup(command)


def check_strategy(strategy: Any) -> None:
    """Refuses FSDP1, whose processes would wait for each other where completions differ in length.

    Args:
        strategy: ``trainer.strategy`` as configured.

    Raises:
        ConfigError: it is Lightning's ``FSDPStrategy``.
    """
    name = strategy if isinstance(strategy, str) else getattr(strategy, "class_path", "")
    if str(name).startswith("fsdp") or str(name).endswith(".FSDPStrategy"):
        remedy = f"'{name}' is FSDP1, which cannot sample; use configs/strategy/fsdp2.yaml"
        raise ConfigError("trainer.strategy", remedy)


def check_steps(trainer: L.Trainer, module: L.LightningModule) -> None:
    """Checks the Trainer's gradient clipping and accumulation against the stage.

    Raises:
        ConfigError: the clipping value is invalid, or a setting conflicts with manual optimization.
    """
    check_limit(trainer)
    if not module.automatic_optimization:
        refuse_trainer_steps(trainer.gradient_clip_val, trainer.accumulate_grad_batches)


def refuse_trainer_steps(gradient_clip_val: float | None, accumulate_grad_batches: int) -> None:
    """Refuses Trainer settings that have no effect in a stage with manual optimization.

    Raises:
        ConfigError: one is set.
    """
    if gradient_clip_val:
        remedy = "this stage optimizes manually; set it to null and set model.max_grad_norm"
        raise ConfigError("trainer.gradient_clip_val", remedy)
    if accumulate_grad_batches != 1:
        remedy = "this stage optimizes manually; set it to 1, raise data.batch_size and set model.microbatch_size"
        raise ConfigError("trainer.accumulate_grad_batches", remedy)


def checkpoint_path(given: str | None, folder: Path, command: str) -> str | None:
    """Resolves ``ckpt_path``, which is a path or one of Lightning's keywords.

    Args:
        given: ``ckpt_path`` as configured.
        folder: the run's folder.
        command: ``fit`` and so on.

    Returns:
        The path of the checkpoint; None to start without one.

    Raises:
        ConfigError: the checkpoint does not exist, or the keyword is not supported.
    """
    if given == "best":
        remedy = "'best' is available only within one run; name the file, or `last` for the newest"
        raise ConfigError("ckpt_path", remedy)
    if given == "last":
        newest = newest_checkpoint(folder)
        if newest is None:
            raise ConfigError("ckpt_path", f"there is no last checkpoint in {folder}; remove it, or name a file")
        rank_zero_info("The last checkpoint is %s.", newest)
        return str(newest)
    if given == "hpc" or (given is None and command == "fit" and SLURMEnvironment.detect()):
        saved = sorted(folder.glob("hpc_ckpt_*.ckpt"), key=lambda path: int(path.stem.rpartition("_")[2]))
        if given and not saved:
            raise ConfigError("ckpt_path", f"there is no hpc_ckpt_*.ckpt in {folder}; remove it, or name a file")
        return str(saved[-1]) if saved else None
    return given if given is None or given.startswith("registry:") else str(check_exists(given))


def check_checkpoint(
    path: str, command: str, trainer: L.Trainer, module: L.LightningModule, datamodule: Any, backbone: NoWeights
) -> Saved:
    """Reads a checkpoint's metadata and checks that this command can use it.

    Args:
        path: of the checkpoint.
        command: ``fit`` resumes the training; other commands load the weights.
        trainer: the Trainer that loads it.
        module: built with ``backbone``.
        datamodule: of the command.
        backbone: placeholder that names the initial model.

    Raises:
        ConfigError: the checkpoint belongs to another training or model, is complete or damaged, or needs another
            strategy.
    """
    saved = read_saved(path)
    if saved.sharded and not isinstance(trainer.strategy, ModelParallelStrategy):
        remedy = f"'{path}' is a sharded checkpoint of FSDP; use that strategy (-c configs/strategy/fsdp2.yaml)"
        raise ConfigError("ckpt_path", f"{remedy}, or start from the run's {EXPORT}")
    family = find_family(backbone.checkpoint, backbone.given_family).model_type
    if command != "fit":
        check_backbone(saved, family)
    else:
        check_same_training(saved, record_of(module, datamodule, family))
        _check_unfinished(saved, trainer, bool(getattr(module, "export", False)))
    _check_size(saved, backbone.checkpoint)
    if saved.record and saved.record.base and not same_model(saved.record.base, identity(backbone.checkpoint)):
        remedy = f"'{path}' holds trained weights alone, and its frozen ones are not those of {backbone.checkpoint}"
        raise ConfigError("ckpt_path", f"does not fit this model: {remedy}; choose the model it was trained from")
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
    """Compares hidden size and vocabulary with the model folder's config; the weights are not read."""
    file = Path(checkpoint) / "config.json"
    embedding = next((shape for name, shape in saved.tensors.items() if name.endswith("embed_tokens.weight")), None)
    if embedding is None or not file.is_file():
        return
    try:
        config = json.loads(file.read_text("utf-8"))
        text: Mapping[str, Any] = {**config, **(config.get("text_config") or {})}
        here = (int(text["vocab_size"]), int(text["hidden_size"]))
    except (OSError, ValueError, KeyError, TypeError):
        return  # loading the model reports the error
    if tuple(embedding) != here:
        remedy = f"'{saved.path}' holds a model with embeddings of {tuple(embedding)}, {checkpoint} one of {here}"
        raise ConfigError("ckpt_path", f"does not fit this model: {remedy}; choose the model it was trained from")
