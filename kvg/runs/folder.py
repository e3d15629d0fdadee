"""What the folder of a training holds: checkpoints, logs, the export, and what of it another run would mix with."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from kvg.errors import ConfigError

EXPORT: Final = "export"  # the trained model
REQUEUED: Final = "requeue-step*.ckpt"  # saved before the job went back into the queue
INTERRUPTED: Final = "interrupted-step*.ckpt"  # saved when the run was asked to end
_SAVED: Final = (REQUEUED, INTERRUPTED, "hpc_ckpt_*.ckpt", "checkpoints/*.ckpt", "*/version_*/checkpoints/*.ckpt")
_LAST: Final = (REQUEUED, INTERRUPTED, "checkpoints/last.ckpt", "*/version_*/checkpoints/last.ckpt")
_EVENTS: Final = "*/version_*/events.out.tfevents.*"
_NO_STEP: Final = 200  # bytes of an event file that holds nothing yet
_OWN: Final = (EXPORT, f"{EXPORT}.partial", "failed", "lightning_logs", "checkpoints", "*.ckpt", "*.ckpt.partial")


def checkpoints(folder: Path, pattern: str) -> list[Path]:
    """Checkpoints that were saved on a signal, by name."""
    return sorted(folder.glob(pattern))


def newest_checkpoint(folder: str | Path) -> Path | None:
    """The checkpoint that a run goes on from; None where it has saved none."""
    saved = [path for pattern in _LAST for path in Path(folder).glob(pattern) if path.exists()]  # no broken link
    return max(saved, key=lambda path: path.stat().st_mtime) if saved else None


def remove(paths: Iterable[Path]) -> None:
    """Removes files, links and folders that are there."""
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def replaced(folder: Path, writes: bool) -> Iterator[Path]:
    """A place for the new content of a folder, which takes its name when the block has ended without an error.

    Args:
        folder: of that name; whole at any moment.
        writes: whether this process writes; the others only take part.
    """
    new = folder.with_name(f"{folder.name}.partial")
    if writes:
        remove([new])
    yield new
    if writes:
        remove([folder])
        os.replace(new, folder)


def has_export(folder: Path) -> bool:
    """Whether a run has come to its end there."""
    return (folder / EXPORT / "config.json").is_file()


def lies_in(path: Path, folder: Path) -> bool:
    """Whether a path leads into a folder, by its name or by where a link leads."""
    outer = {folder.absolute(), folder.resolve()}
    return any(not outer.isdisjoint({one, *one.parents}) for one in (path.absolute(), path.resolve()))


def check_run_folder(folder: Path, ckpt_path: str | None, overwrite: bool, reads: Iterable[str] = ()) -> bool:
    """Whether a training may write into a folder.

    Args:
        folder: ``trainer.default_root_dir``.
        ckpt_path: that the training goes on from.
        overwrite: remove an earlier run.
        reads: paths that the training reads.

    Returns:
        Whether there is an earlier run to remove.

    Raises:
        ConfigError: the folder holds a run that this one would mix with or replace, or cannot be written to.
    """
    _check_writable(folder)
    run = _earlier_run(folder)
    if not run or (ckpt_path and lies_in(Path(ckpt_path), folder)):  # which is to go on
        return False
    if not overwrite:
        raise ConfigError("trainer.default_root_dir", f"{folder} holds {run}; {_ways_out(folder)}")
    own = [path for pattern in _OWN for path in folder.glob(pattern)]
    for path in reads:
        if any(lies_in(Path(path), place) for place in own):
            remedy = f"would remove {path}, which this run starts from; choose another trainer.default_root_dir"
            raise ConfigError("overwrite", remedy)
    return True


def clear_run(folder: Path) -> None:
    """Removes what a training has left; other files stay."""
    remove(path for pattern in _OWN for path in sorted(folder.glob(pattern)))


def _earlier_run(folder: Path) -> str:
    """What there is of an earlier run, in words; '' where it is nothing that could be lost or mixed with."""
    if has_export(folder):
        return f"the result of an earlier run ({EXPORT})"
    saved = next((path for pattern in _SAVED for path in sorted(folder.glob(pattern))), None)
    if saved is not None:
        return f"a run that has not come to its end ({saved.relative_to(folder)})"
    logs = next((path for path in sorted(folder.glob(_EVENTS)) if path.stat().st_size > _NO_STEP), None)
    return f"the curves of an earlier run ({logs.parent.relative_to(folder)})" if logs else ""


def _ways_out(folder: Path) -> str:
    newest = newest_checkpoint(folder)
    further = " (with a higher max_epochs or max_steps)" if has_export(folder) else ""
    resume = "" if newest is None else f"--ckpt_path {newest} to go on with it{further}, "
    return f"give {resume}another trainer.default_root_dir, or --overwrite to remove it"


def _check_writable(folder: Path) -> None:
    place = folder
    while not place.exists() and place.parent != place:
        place = place.parent
    if not place.is_dir():
        raise ConfigError("trainer.default_root_dir", f"{place} is no folder; choose another")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ConfigError("trainer.default_root_dir", f"{place} cannot be written to; choose another")
