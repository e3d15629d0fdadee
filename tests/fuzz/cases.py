"""What each reader is fed: a folder that it reads without complaint, and the command that reads it."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image

from .damage import as_json, as_lines

Run = Callable[[Path], Any]  # reads the folder; may raise KVGError or return the exit code of a command


@dataclass(frozen=True)
class Case:
    """A reader under test.

    Attributes:
        made: content of each file by its path in the folder (see ``content``), or a function that makes it.
        damaged: paths of the files that are damaged; by default all.
        run: reads the folder.
    """

    made: Mapping[str, Any] | Callable[[], Mapping[str, Any]] = field(repr=False)
    damaged: tuple[str, ...]
    run: Run = field(repr=False)

    @property
    def files(self) -> Mapping[str, Any]:
        """Content of each file."""
        return self.made() if callable(self.made) else self.made

    @property
    def targets(self) -> tuple[str, ...]:
        """Paths of the files that are damaged."""
        return self.damaged or tuple(self.files)


def content(name: str, value: Any) -> bytes:
    """A file's bytes by its suffix."""
    suffix = Path(name).suffix
    if isinstance(value, bytes):
        return value
    if suffix == ".jsonl":
        return as_lines(value)
    if suffix == ".yaml":
        try:
            return yaml.safe_dump(value).encode()
        except (yaml.YAMLError, UnicodeEncodeError, RecursionError):
            return as_json(value)
    if suffix == ".csv":
        return _csv(value)
    if suffix == ".parquet":
        return _parquet(value)
    if suffix == ".tar":
        return _tar(value)
    return as_json(value)


def write(folder: Path, name: str, value: Any) -> None:
    """Writes a file."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content(name, value))


def picture(seed: int = 0, size: tuple[int, int] = (64, 48), kind: str = "JPEG") -> bytes:
    """A small photograph."""
    image = Image.new("RGB", size, (40 + seed * 37 % 200, 90, 160))
    image.paste((250, 250 - seed * 61 % 200, 30), (8, 8, 8 + size[0] // 3 + seed, 8 + size[1] // 2))
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def _csv(rows: Any) -> bytes:
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    rows = rows if isinstance(rows, list) else [rows]
    names = list(rows[0]) if rows and isinstance(rows[0], dict) else []
    writer.writerow(names)
    for row in rows:
        cells = list(row.values()) if isinstance(row, dict) else row if isinstance(row, list) else [row]
        writer.writerow([str(cell) for cell in cells])
    return file.getvalue().encode("utf-8", "replace")


def _parquet(columns: Any) -> bytes:
    file = io.BytesIO()
    try:
        table = pa.table(columns) if isinstance(columns, dict) else pa.Table.from_pylist(columns)
        pq.write_table(table, file)
    except (pa.ArrowException, TypeError, AttributeError, ValueError, OverflowError, KeyError, StopIteration):
        return as_json(str(type(columns)))  # what arrow cannot hold, nobody can have written
    return file.getvalue()


def _tar(members: Any) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, value in members.items() if isinstance(members, dict) else ():
            data = value if isinstance(value, bytes) else as_json(value)
            info = tarfile.TarInfo(str(name).encode("utf-8", "replace").decode())
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def tool(*args: str) -> Run:
    """A command of ``kvg-data``; ``{}`` in its arguments is the folder."""

    def run(folder: Path) -> int:
        from kvg.cli.kvg_data import main

        return main([arg.format(folder) for arg in args])

    return run


def source(class_path: str, **init_args: Any) -> Callable[[Path], int]:
    """``kvg-data scan`` of one source."""

    def run(folder: Path) -> int:
        from kvg.cli.kvg_data import main

        made = {
            name: str(folder / value[1:]) if str(value).startswith("@") else value for name, value in init_args.items()
        }
        project = {"out": str(folder / "out"), "sources": {"mine": {"class_path": class_path, "init_args": made}}}
        path = folder / "made-project.yaml"
        path.write_text(json.dumps(project))
        return main(["scan", str(path)])

    return run
