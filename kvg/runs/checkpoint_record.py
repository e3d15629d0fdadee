"""What a checkpoint of a training says about itself, so that another training does not go on from it."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

import torch

from kvg.errors import ConfigError
from kvg.runs.folder import EXPORT, has_export

RECORD: Final = "kvg_run"  # key in a checkpoint
_SHARDED: Final = "meta.pt"  # of a folder: all but weights and the optimizer's state


@dataclass(frozen=True)
class RunRecord:
    """Which training a checkpoint belongs to.

    Attributes:
        module: class of the LightningModule, that is the stage.
        data: class of the data module.
        backbone: ``model_type`` of the backbone's family.
        target: what is learnt of a sample (``rationale``, ``answer``); '' where the stage has no such choice.
        mode: prompt mode; '' where that is not known.
        tensors: shapes of the model's tensors by name.
    """

    module: str
    data: str
    backbone: str
    target: str = ""
    mode: str = ""
    tensors: Mapping[str, tuple[int, ...]] | None = None

    @property
    def stage(self) -> str:
        """The stage in words."""
        return f"{_short(self.module)}" + (f" with data.target {self.target}" if self.target else "")


@dataclass(frozen=True)
class Saved:
    """A checkpoint without its weights.

    Attributes:
        path: file or folder.
        record: of the training; None where an older version has written it, or another program.
        tensors: shapes of the model's tensors by name; empty where they are not known.
        steps: optimizer steps that have been taken.
        epochs: epochs that have come to their end.
        data: class name of the data module.
        mode: prompt mode; '' where that is not known.
        sharded: whether every process of FSDP has written a part.
    """

    path: Path
    record: RunRecord | None
    tensors: Mapping[str, tuple[int, ...]]
    steps: int
    epochs: int
    data: str
    mode: str
    sharded: bool

    @property
    def run(self) -> Path:
        """The run's folder, as far as the path tells it."""
        places = [place for place in self.path.absolute().parents if has_export(place)]
        named = [place.parent for place in self.path.absolute().parents if place.name == "lightning_logs"]
        return (places or named or [self.path.absolute().parent])[0]


def record_of(
    module: Any, data: Any, family: str, tensors: Mapping[str, tuple[int, ...]] | None = None
) -> RunRecord:
    """The record of a training.

    Args:
        module: the LightningModule.
        data: its data module; None where there is none.
        family: ``model_type`` of the backbone.
        tensors: shapes by name; None leaves them out.
    """
    recipe = getattr(data, "recipe", None)
    return RunRecord(
        _name(type(module)),
        _name(type(data)),
        family,
        str(getattr(recipe, "target", None) or ""),
        str(getattr(data, "mode", None) or ""),
        tensors,
    )


def to_plain(record: RunRecord) -> dict[str, Any]:
    """As ``torch.load`` with ``weights_only`` can read it back."""
    return asdict(record)


def check_exists(path: str | Path) -> Path:
    """The path of a checkpoint.

    Raises:
        ConfigError: there is nothing.
    """
    if not Path(path).exists():
        raise ConfigError("ckpt_path", f"'{path}' does not exist; checkpoints lie in RUN/lightning_logs/version_N")
    return Path(path)


def read_saved(path: str | Path) -> Saved:
    """Looks into a checkpoint: one file, or the folder that FSDP leaves. Its weights are not read.

    Raises:
        ConfigError: it is not there, is damaged, or no checkpoint of a training.
    """
    path = check_exists(path)
    sharded = path.is_dir()
    model = path if sharded else path.parent
    if (model / "config.json").is_file():
        remedy = f"'{path}' is a model, not the state of a training; start from it: --model.backbone.checkpoint {model}"
        raise ConfigError("ckpt_path", remedy)
    file = path / _SHARDED if sharded else path
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
        return _saved(path, content, sharded)
    except (
        RuntimeError,
        OSError,
        ValueError,
        pickle.UnpicklingError,
        EOFError,
        KeyError,
        TypeError,
        AttributeError,
    ) as error:
        remedy = f"'{path}' is damaged or no checkpoint of this project; choose another"
        raise ConfigError("ckpt_path", remedy) from error


def _saved(path: Path, content: Mapping[str, Any], sharded: bool) -> Saved:
    plain = content.get(RECORD)
    known = {field.name for field in fields(RunRecord)}
    record = RunRecord(**{k: v for k, v in plain.items() if k in known}) if isinstance(plain, dict) else None
    tensors = {str(name): tuple(value.shape) for name, value in content.get("state_dict", {}).items()}
    if not sharded and "state_dict" not in content:
        raise KeyError("state_dict")
    if not tensors and record is not None and record.tensors:
        tensors = {name: tuple(shape) for name, shape in record.tensors.items()}
    old_data = next((name for name in content if name.endswith("DataModule")), "")
    return Saved(
        path,
        record,
        tensors,
        int(content.get("global_step", 0)),
        _epochs(content),
        _short(record.data) if record else old_data,
        record.mode if record else str(content.get("kvg_mode") or ""),
        sharded,
    )


def _epochs(content: Mapping[str, Any]) -> int:
    """Epochs that are over; one whose last batch has been learnt from counts."""
    loops = (content.get("loops") or {}).get("fit_loop")
    if not loops:
        return int(content.get("epoch", 0))
    epochs, batches = loops["epoch_progress"]["current"], loops["epoch_loop.batch_progress"]
    over = bool(batches["is_last_batch"]) and batches["current"]["processed"] == batches["current"]["ready"] > 0
    return max(int(epochs["processed"]), int(epochs["started"]) if over else 0)


def keep_epoch_open(checkpoint: Mapping[str, Any]) -> None:
    """Marks the epoch that ``max_steps`` has ended in its midst as begun and not over, so that it can be gone on with.

    Lightning counts it as over, and a run that goes on with more steps would leave out all but the rest of the batches.

    Args:
        checkpoint: as it is about to be written; changed in place.
    """
    loops = (checkpoint.get("loops") or {}).get("fit_loop")
    if not loops or loops["epoch_loop.batch_progress"]["is_last_batch"]:
        return
    if not loops["epoch_loop.batch_progress"]["current"]["ready"]:
        return  # between two epochs
    for counts in loops["epoch_progress"].values():
        counts.update(processed=counts["started"] - 1, completed=counts["started"] - 1)


def check_same_training(saved: Saved, here: RunRecord) -> None:
    """Refuses to go on with a training from the checkpoint of another one.

    Args:
        saved: the checkpoint.
        here: the training that would go on.

    Raises:
        ConfigError: stage, target, prompt mode or backbone differ.
    """
    if saved.record is None:
        _check_old(saved, here)
        return
    there = saved.record
    if (there.module, there.target) != (here.module, here.target):
        raise _other_stage(saved, there.stage, here.stage)
    check_backbone(saved, here.backbone)
    for name in ("data", "mode"):
        old, new = getattr(there, name), getattr(here, name)
        if old and old != new:
            setting = "data" if name == "data" else f"data.{name}"
            raise ConfigError(
                "ckpt_path", f"'{saved.path}' was trained with {setting} {old}, not {new}; {_start(saved)}"
            )


def check_backbone(saved: Saved, family: str) -> None:
    """Refuses a checkpoint of another family of models.

    Raises:
        ConfigError: it is one.
    """
    there = saved.record.backbone if saved.record else family
    if there != family:
        remedy = f"'{saved.path}' holds a {there} model, not a {family} model; choose that backbone's config"
        raise ConfigError("ckpt_path", remedy)


def check_fit(saved: Mapping[str, tuple[int, ...]], model: Mapping[str, tuple[int, ...]]) -> None:
    """Refuses a checkpoint that holds other tensors than the model. It may hold fewer, as frozen parts are left out.

    Args:
        saved: shapes by name in the checkpoint.
        model: shapes by name in the model.

    Raises:
        ConfigError: a tensor is of another shape, or the model has none of that name.
    """
    misfits = [name for name, shape in saved.items() if model.get(name) != shape]
    if misfits:
        remedy = (
            f"does not fit this model: {len(misfits)} of its tensors are missing or of another shape "
            f"({misfits[0]}, ...); choose the backbone and settings it was trained with"
        )
        raise ConfigError("ckpt_path", remedy)


def nothing_left(saved: Saved, max_steps: int, max_epochs: int | None) -> str:
    """Which limit a checkpoint has reached; '' where there is something left to train.

    Args:
        saved: the checkpoint.
        max_steps: of the Trainer; -1 for no limit.
        max_epochs: of the Trainer; None or -1 for no limit.
    """
    if 0 <= max_steps <= saved.steps:
        return f"step {saved.steps} of trainer.max_steps {max_steps}"
    if max_epochs is not None and 0 <= max_epochs <= saved.epochs:
        return f"epoch {saved.epochs} of trainer.max_epochs {max_epochs}"
    return ""


def _check_old(saved: Saved, here: RunRecord) -> None:
    """Without a record the data module tells the stages apart."""
    if saved.data and saved.data != _short(here.data):
        raise _other_stage(saved, f"a stage with {saved.data}", f"{here.stage} with {_short(here.data)}")
    if saved.mode and here.mode and saved.mode != here.mode:
        remedy = f"'{saved.path}' was trained with data.mode {saved.mode}, not {here.mode}; {_start(saved)}"
        raise ConfigError("ckpt_path", remedy)


def _other_stage(saved: Saved, there: str, here: str) -> ConfigError:
    remedy = f"'{saved.path}' was written by another stage ({there}), and this is {here}"
    return ConfigError("ckpt_path", f"{remedy}: a checkpoint goes on with its own training; {_start(saved)}")


def _start(saved: Saved) -> str:
    export = saved.run / EXPORT
    how = f"--model.backbone.checkpoint {export}"
    if has_export(saved.run):
        return f"to start from its model leave ckpt_path out and give {how}"
    return f"to start from its model let that run come to its end, then give {how}"


def _name(kind: type[Any]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _short(name: str) -> str:
    return name.rpartition(".")[2]
