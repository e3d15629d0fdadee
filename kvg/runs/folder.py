"""The folder of a training: its checkpoints, logs and export, and checks that runs do not mix in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from kvg.errors import ConfigError

EXPORT: Final = "export"  # the trained model
PREDICTIONS: Final = "predictions.jsonl"  # see kvg.evaluation.records.prediction
REQUEUED: Final = "requeue-step*.ckpt"  # saved before the job was requeued
INTERRUPTED: Final = "interrupted-step*.ckpt"  # saved on a signal
_SAVED: Final = (REQUEUED, INTERRUPTED, "hpc_ckpt_*.ckpt", "checkpoints/*.ckpt", "*/version_*/checkpoints/*.ckpt")
_LAST: Final = (REQUEUED, INTERRUPTED, "checkpoints/last.ckpt", "*/version_*/checkpoints/last.ckpt")
_CURVES: Final = ("*/version_*/events.out.tfevents.*", "*/version_*/metrics.csv")
_NO_STEP: Final = 200  # maximum size in bytes of an event file without events
LOGS: Final = "lightning_logs"  # Lightning's name
ROLLOUTS: Final = "rollouts"  # see kvg.formats.rollout_files
_OWN: Final = (
    *(EXPORT, f"{EXPORT}.partial", "failed", ROLLOUTS, LOGS, "checkpoints"),
    *("*.ckpt", "*.ckpt.partial"),
)


def checkpoints(folder: Path, pattern: str) -> list[Path]:
    """Returns the checkpoints that match a pattern, sorted by name."""
    return sorted(folder.glob(pattern))


def newest_checkpoint(folder: str | Path) -> Path | None:
    """Returns the newest checkpoint of a run, to resume it; None if there is none."""
    saved = [path for pattern in _LAST for path in Path(folder).glob(pattern) if path.exists()]  # skips broken links
    return max(saved, key=lambda path: path.stat().st_mtime) if saved else None


def remove(paths: Iterable[Path]) -> None:
    """Removes files, links and folders; missing ones are ignored."""
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def replaced(folder: Path, writes: bool) -> Iterator[Path]:
    """Yields a temporary folder, which replaces ``folder`` when the block ends without an error.

    Args:
        folder: the folder; it is complete at any time.
        writes: whether this process renames and removes folders; others only enter the block.
    """
    new = folder.with_name(f"{folder.name}.partial")
    if writes:
        remove([new])
    yield new
    if writes:
        remove([folder])
        os.replace(new, folder)


def has_export(folder: Path) -> bool:
    """Returns whether a folder contains a finished run."""
    return (folder / EXPORT / "config.json").is_file()


def lies_in(path: Path, folder: Path) -> bool:
    """Returns whether a path is in a folder, by its name or after following links."""
    outer = {folder.absolute(), folder.resolve()}
    return any(not outer.isdisjoint({one, *one.parents}) for one in (path.absolute(), path.resolve()))


def check_run_folder(folder: Path, ckpt_path: str | None, overwrite: bool, reads: Iterable[str] = ()) -> bool:
    """Checks that a training may write into a folder.

    Args:
        folder: ``trainer.default_root_dir``.
        ckpt_path: checkpoint that the training resumes; None for none.
        overwrite: whether an earlier run may be removed.
        reads: paths that the training reads.

    Returns:
        Whether there is an earlier run to remove.

    Raises:
        ConfigError: the folder contains another run, or cannot be written to.
    """
    _check_writable(folder)
    run = _earlier_run(folder)
    if not run or (ckpt_path and lies_in(Path(ckpt_path), folder)):  # the earlier run is resumed
        return False
    if not overwrite:
        raise ConfigError("trainer.default_root_dir", f"{folder} contains {run}; {_ways_out(folder)}")
    own = [path for pattern in _OWN for path in folder.glob(pattern)]
    for path in reads:
        if any(lies_in(Path(path), place) for place in own):
            remedy = f"would remove {path}, which this run starts from; choose another trainer.default_root_dir"
            raise ConfigError("overwrite", remedy)
    return True


def clear_run(folder: Path) -> None:
    """Removes the files of a training; other files stay."""
    remove(path for pattern in _OWN for path in sorted(folder.glob(pattern)))


def _earlier_run(folder: Path) -> str:
    """Describes the earlier run in a folder; returns '' if there is none."""
    if has_export(folder):
        return f"the result of an earlier run ({EXPORT})"
    saved = next((path for pattern in _SAVED for path in sorted(folder.glob(pattern))), None)
    if saved is not None:
        return f"an unfinished run ({saved.relative_to(folder)})"
    curves = (path for pattern in _CURVES for path in sorted(folder.glob(pattern)))
    logs = next((path for path in curves if path.stat().st_size > _NO_STEP), None)
    return f"the curves of an earlier run ({logs.parent.relative_to(folder)})" if logs else ""


def _ways_out(folder: Path) -> str:
    newest = newest_checkpoint(folder)
    further = " (with a higher max_epochs or max_steps)" if has_export(folder) else ""
    resume = "" if newest is None else f"--ckpt_path {newest} to resume it{further}, "
    return f"give {resume}another trainer.default_root_dir, or --overwrite to remove it"


def _check_writable(folder: Path) -> None:
    place = folder
    while not place.exists() and place.parent != place:
        place = place.parent
    if not place.is_dir():
        raise ConfigError("trainer.default_root_dir", f"{place} is not a folder; choose another")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ConfigError("trainer.default_root_dir", f"{place} cannot be written to; choose another")
