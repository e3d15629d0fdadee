"""Identifies a model by its files, within a second however large they are."""

from __future__ import annotations

import hashlib
import json
from importlib import resources
from pathlib import Path

from kvg.backbones.adapter_files import adapter_base

_SAMPLES, _SAMPLE = 256, 2**16  # stretches of a file of weights that are looked at, and their bytes
_KINDS = (".json", ".jinja", ".txt", ".model", ".safetensors")


def fingerprint(checkpoint: str) -> list[list[str]]:
    """Identity of a model's folder: its small files whole; of its weights, the sizes and samples from start to end.

    Training changes nearly all weights, so samples tell models apart, and a folder of 15 GB is known in a second. A
    name on the hub stands for itself.
    """
    base = adapter_base(checkpoint)  # adapters are nothing without the model they belong to
    return _file_list(checkpoint) + (_file_list(base) if base else [])


def identity(checkpoint: str) -> str:
    """The fingerprint of a folder as a short text, ``files:...``; ``name:...`` where there are no files to look at."""
    files = fingerprint(checkpoint)
    if not files:
        return f"name:{checkpoint}"
    return f"files:{hashlib.sha256(json.dumps(files).encode()).hexdigest()[:32]}"


def same_model(one: str, other: str) -> bool:
    """Whether two identities may be of one model: a name on the hub and a folder cannot be compared.

    >>> same_model("name:a/b", "name:a/c"), same_model("name:a/b", "files:12"), same_model("name:tiny", "files:12")
    (False, True, False)
    """
    names = [text for text in (one, other) if text.startswith("name:")]
    return one == other or (len(names) == 1 and "/" in names[0])


def _file_list(checkpoint: str) -> list[list[str]]:
    folder = Path(checkpoint)
    if checkpoint == "lab" and not folder.is_dir():
        folder = Path(str(resources.files("kvg.lab") / "base"))
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return [[path.name, *sampled(path)] for path in paths if path.suffix in _KINDS and path.is_file()]


def saved_fingerprint(path: str) -> list[list[str]]:
    """The same of a checkpoint of Lightning: one file, or a folder to which every process wrote a part."""
    place = Path(path)
    files = sorted(file for file in place.rglob("*") if file.is_file()) if place.is_dir() else [place]
    return [[str(file.relative_to(place)), *sampled(file)] for file in files if file.is_file()]


def sampled(path: Path) -> tuple[str, str]:
    """Size of a file, and a checksum of stretches from its start to its end."""
    digest, size = hashlib.sha256(), path.stat().st_size
    with path.open("rb") as stream:
        for part in range(_SAMPLES):
            stream.seek(max(part * _SAMPLE, part * size // _SAMPLES))
            digest.update(stream.read(_SAMPLE))
    return str(size), digest.hexdigest()
