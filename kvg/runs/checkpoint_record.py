"""Records in checkpoints which training they belong to, so that another training cannot resume from them."""

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
_SHARDED: Final = "meta.pt"  # file in a sharded checkpoint: all but weights and optimizer state


@dataclass(frozen=True)
class RunRecord:
    """The training that a checkpoint belongs to.

    Attributes:
        module: class of the LightningModule, which is the stage.
        data: class of the data module.
        backbone: ``model_type`` of the backbone's family.
        target: ``data.target`` (``rationale``, ``answer``); '' if the stage has none.
        mode: prompt mode; '' if unknown.
        tensors: shapes of the model's tensors by name.
        base: identity of the model below what is trained, whose frozen weights are not saved; '' if none are frozen.
    """

    module: str
    data: str
    backbone: str
    target: str = ""
    mode: str = ""
    tensors: Mapping[str, tuple[int, ...]] | None = None
    base: str = ""

    @property
    def stage(self) -> str:
        """Returns the stage in words."""
        return f"{_short(self.module)}" + (f" with data.target {self.target}" if self.target else "")


@dataclass(frozen=True)
class Saved:
    """A checkpoint without its weights.

    Attributes:
        path: file or folder.
        record: record of the training; None if an older version or another program has written it.
        tensors: shapes of the model's tensors by name; empty if unknown.
        steps: number of optimizer steps.
        epochs: number of finished epochs.
        data: class name of the data module.
        mode: prompt mode; '' if unknown.
        sharded: whether it is a folder with a part from every FSDP process.
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
        """Returns the run's folder, derived from the path."""
        places = [place for place in self.path.absolute().parents if has_export(place)]
        named = [place.parent for place in self.path.absolute().parents if place.name == "lightning_logs"]
        return (places or named or [self.path.absolute().parent])[0]


def record_of(
    module: Any, data: Any, family: str, tensors: Mapping[str, tuple[int, ...]] | None = None, base: str = ""
) -> RunRecord:
    """Makes the record of a training.

    Args:
        module: the LightningModule.
        data: its data module; None if there is none.
        family: ``model_type`` of the backbone.
        tensors: shapes by name; None leaves them out.
        base: see ``RunRecord``.
    """
    recipe = getattr(data, "recipe", None)
    return RunRecord(
        _name(type(module)),
        _name(type(data)),
        family,
        str(getattr(recipe, "target", None) or ""),
        str(getattr(data, "mode", None) or ""),
        tensors,
        base,
    )


def to_plain(record: RunRecord) -> dict[str, Any]:
    """Converts a record to plain types, which ``torch.load`` can read with ``weights_only``."""
    return asdict(record)


def check_exists(path: str | Path) -> Path:
    """Returns the path of a checkpoint.

    Raises:
        ConfigError: the path does not exist.
    """
    if not Path(path).exists():
        raise ConfigError("ckpt_path", f"'{path}' does not exist; checkpoints are in RUN/lightning_logs/version_N")
    return Path(path)


def read_saved(path: str | Path) -> Saved:
    """Reads a checkpoint without its weights: a file, or the folder of an FSDP run.

    Raises:
        ConfigError: the checkpoint does not exist, is damaged, or is not that of a training.
    """
    path = check_exists(path)
    sharded = path.is_dir()
    model = path if sharded else path.parent
    if (model / "config.json").is_file():
        remedy = f"'{path}' is a model, not the state of a training; start from it: --model.backbone.checkpoint {model}"
        raise ConfigError("ckpt_path", remedy)
    try:
        return _saved(path, read_metadata(path), sharded)
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
        remedy = f"'{path}' is damaged or not a checkpoint of this project; choose another"
        raise ConfigError("ckpt_path", remedy) from error


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Content of a checkpoint: a file, whose weights are mapped and not read; of a folder, all but weights and moments.

    Raises:
        RuntimeError, OSError, ValueError, pickle.UnpicklingError, EOFError: it is damaged.
    """
    file = Path(path) / _SHARDED if Path(path).is_dir() else Path(path)
    content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    return content


def _saved(path: Path, content: Mapping[str, Any], sharded: bool) -> Saved:
    plain = content.get(RECORD)
    known = {field.name for field in fields(RunRecord)}
    record = RunRecord(**{k: v for k, v in plain.items() if k in known}) if isinstance(plain, dict) else None
    tensors = {str(name): tuple(value.shape) for name, value in content.get("state_dict", {}).items()}
    if not sharded and "state_dict" not in content:
        raise KeyError("state_dict")
    if record is not None and record.tensors:  # frozen ones, and those in other files of a sharded checkpoint
        tensors = {**{name: tuple(shape) for name, shape in record.tensors.items()}, **tensors}
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
    """Returns the number of finished epochs. An epoch counts if its last batch has been trained on."""
    loops = (content.get("loops") or {}).get("fit_loop")
    if not loops:
        return int(content.get("epoch", 0))
    epochs, batches = loops["epoch_progress"]["current"], loops["epoch_loop.batch_progress"]
    over = bool(batches["is_last_batch"]) and batches["current"]["processed"] == batches["current"]["ready"] > 0
    return max(int(epochs["processed"]), int(epochs["started"]) if over else 0)


def keep_epoch_open(checkpoint: Mapping[str, Any]) -> None:
    """Marks an epoch that ``max_steps`` has interrupted as started but not finished, so that it can be resumed.

    Lightning marks it as finished, so a resumed run with more steps would skip the rest of its batches.

    Args:
        checkpoint: the checkpoint before it is written; it is changed in place.
    """
    loops = (checkpoint.get("loops") or {}).get("fit_loop")
    if not loops or loops["epoch_loop.batch_progress"]["is_last_batch"]:
        return
    if not loops["epoch_loop.batch_progress"]["current"]["ready"]:
        return  # between two epochs
    for counts in loops["epoch_progress"].values():
        counts.update(processed=counts["started"] - 1, completed=counts["started"] - 1)


def check_same_training(saved: Saved, here: RunRecord) -> None:
    """Checks that a checkpoint belongs to this training.

    Args:
        saved: the checkpoint.
        here: the training that would be resumed.

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
    """Checks that a checkpoint belongs to this family of models.

    Raises:
        ConfigError: its family is another one.
    """
    there = saved.record.backbone if saved.record else family
    if there != family:
        remedy = f"'{saved.path}' contains a {there} model, not a {family} model; choose that backbone's config"
        raise ConfigError("ckpt_path", remedy)


def check_fit(saved: Mapping[str, tuple[int, ...]], model: Mapping[str, tuple[int, ...]]) -> None:
    """Checks that the tensors of a checkpoint fit the model. It may lack tensors, since frozen parts are not saved.

    Args:
        saved: shapes by name in the checkpoint.
        model: shapes by name in the model.

    Raises:
        ConfigError: a tensor has another shape, or the model has none of that name.
    """
    misfits = [name for name, shape in saved.items() if model.get(name) != shape]
    if misfits:
        remedy = (
            f"does not fit this model: {len(misfits)} of its tensors are missing or of another shape "
            f"({misfits[0]}, ...); choose the backbone and settings it was trained with"
        )
        raise ConfigError("ckpt_path", remedy)


def nothing_left(saved: Saved, max_steps: int, max_epochs: int | None) -> str:
    """Returns the limit that a checkpoint has reached, in words; '' if training can continue.

    Args:
        saved: the checkpoint.
        max_steps: limit of the Trainer; -1 for none.
        max_epochs: limit of the Trainer; None or -1 for none.
    """
    if 0 <= max_steps <= saved.steps:
        return f"step {saved.steps} of trainer.max_steps {max_steps}"
    if max_epochs is not None and 0 <= max_epochs <= saved.epochs:
        return f"epoch {saved.epochs} of trainer.max_epochs {max_epochs}"
    return ""


def _check_old(saved: Saved, here: RunRecord) -> None:
    """Checks a checkpoint without a record; its data module identifies the stage."""
    if saved.data and saved.data != _short(here.data):
        raise _other_stage(saved, f"a stage with {saved.data}", f"{here.stage} with {_short(here.data)}")
    if saved.mode and here.mode and saved.mode != here.mode:
        remedy = f"'{saved.path}' was trained with data.mode {saved.mode}, not {here.mode}; {_start(saved)}"
        raise ConfigError("ckpt_path", remedy)


def _other_stage(saved: Saved, there: str, here: str) -> ConfigError:
    remedy = f"'{saved.path}' was written by another stage ({there}), and this is {here}"
    return ConfigError("ckpt_path", f"{remedy}: a checkpoint can only resume its own training; {_start(saved)}")


def _start(saved: Saved) -> str:
    export = saved.run / EXPORT
    how = f"--model.backbone.checkpoint {export}"
    if has_export(saved.run):
        return f"to start from its model leave ckpt_path out and give {how}"
    return f"to start from its model finish that run, then give {how}"


def _name(kind: type[Any]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _short(name: str) -> str:
    return name.rpartition(".")[2]
