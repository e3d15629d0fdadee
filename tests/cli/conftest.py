"""What several tests of commands read."""

from __future__ import annotations

from pathlib import Path


def outputs(folder: Path) -> dict[str, bytes]:
    """Contents of the files in a folder by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
