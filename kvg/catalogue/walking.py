"""Lists the files below a folder. Files of the operating system and of programs are skipped and listed apart."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PICTURE_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_SYSTEM: Final = frozenset(
    {
        "__macosx", "@eadir", "#recycle", "@recycle", "#snapshot", "$recycle.bin", "recycler", "lost+found",
        "system volume information", "__pycache__", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Walk:
    """The files below a folder.

    Attributes:
        files: files that are not hidden, sorted.
        hidden: files and folders of systems and programs, sorted; the content of such a folder is not listed.
        closed: folders that cannot be read, sorted.
    """

    files: Sequence[Path]
    hidden: Sequence[Path]
    closed: Sequence[Path]

    def pictures(self, suffixes: Sequence[str] = PICTURE_SUFFIXES) -> Iterator[Path]:
        """Yields the files whose suffix is that of a picture."""
        yield from (path for path in self.files if path.suffix.lower() in suffixes)


def is_hidden(name: str) -> bool:
    """Returns whether a file or folder of this name belongs to a system or a program, not to a set of pictures.

    >>> [is_hidden(name) for name in (".ipynb_checkpoints", "._x.jpg", "@eaDir", "Thumbs.db", "St. Bernard", "_x.jpg")]
    [True, True, True, True, False, False]
    """
    return name.startswith(".") or name.casefold() in _SYSTEM


def walk(folder: Path) -> Walk:
    """Lists all files below a folder, which may itself have a hidden name. Does not follow links to folders."""
    files: list[Path] = []
    hidden: list[Path] = []
    closed: list[Path] = []

    def add_closed(error: OSError) -> None:
        closed.append(Path(error.filename))

    for place, folders, names in os.walk(folder, onerror=add_closed):
        at = Path(place)
        hidden += [at / name for name in (*folders, *names) if is_hidden(name)]
        folders[:] = [name for name in folders if not is_hidden(name)]
        files += [at / name for name in names if not is_hidden(name)]
    return Walk(sorted(files), sorted(hidden), sorted(closed))


def subfolders(folder: Path) -> list[str]:
    """Returns the sorted names of the folders in a folder, without those of systems and programs."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))
