"""Stage 1 as published: LLaMA-Factory's ShareGPT JSON (``cot-sft-*.json``) beside a folder or ``images.zip``."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from kvg.errors import DataError
from kvg.formats.published import category_of_file, completion_text, good_samples, make_sample, safe_key
from kvg.shards.reader import Tally
from kvg.shards.schema import image_extension
from kvg.text.prompts import prompt
from kvg.types import Sample

_ROLES = {"human": "user", "gpt": "assistant"}


class ShareGPTFile:
    """A ShareGPT JSON as a store of one part: ``[{"messages": [{"role", "content"}], "images": [path]}]``.

    The older spelling ``conversations`` with ``from`` and ``value`` is read too.

    Args:
        path: the JSON file; image paths are relative to its folder, or stand in an ``images.zip`` beside it.
        category: of all samples; by default the part of the file name after ``cot-sft-``.

    Raises:
        DataError: the file is missing, is no JSON list, or is empty.
    """

    def __init__(self, path: str | Path, category: str | None = None) -> None:
        self.path = Path(path)
        self.category = category or category_of_file(self.path, "cot-sft-", "sft-")
        self.num_samples = len(self._load())
        if not self.num_samples:
            raise DataError(str(self.path), "records", "there are none; give a file that holds some")

    def parts(self) -> Sequence[ShareGPTFile]:
        """See ``SampleStore``."""
        return [self]

    def read(self, tally: Tally | None = None) -> Iterator[tuple[int, Sample]]:
        """See ``SamplePart``."""
        return good_samples(enumerate(self._load()), self._sample, tally)

    def _load(self) -> list[Any]:
        try:
            records = json.loads(self.path.read_text("utf-8"))
        except OSError as error:
            raise DataError(str(self.path), "file", f"cannot be opened ({error.strerror}); correct the path") from error
        except ValueError as error:
            raise DataError(str(self.path), "json", f"cannot be read ({error}); correct it") from error
        if not isinstance(records, list):
            raise DataError(str(self.path), "json", "must be a list of records")
        return records

    def _sample(self, position: int, record: Any) -> Sample:
        where = f"{self.path} record {position}"
        if not isinstance(record, Mapping):
            raise DataError(where, "record", "must be an object with messages and images")
        turns = _turns(where, record)
        images = record.get("images")
        if not isinstance(images, list) or len(images) != 1 or not isinstance(images[0], str):
            raise DataError(where, "images", f"{images!r} must be a list of one path")
        key = f"{safe_key(self.path.stem)}-{position:06d}"
        provenance = {"file": self.path.name, "image": images[0]}
        data = self._image(where, images[0])
        return make_sample(where, key, self.category, data, turns["user"], turns["assistant"], provenance)

    def _image(self, where: str, name: str) -> bytes:
        try:
            return (self.path.parent / name).read_bytes()
        except OSError as error:
            if self._zip_names.get(name):
                with zipfile.ZipFile(self._zip_path) as archive:
                    return archive.read(self._zip_names[name])
            remedy = f"{name} is neither beside the file nor in images.zip; copy the images there"
            raise DataError(where, "images", remedy) from error

    @property
    def _zip_path(self) -> Path:
        return self.path.parent / "images.zip"

    @cached_property
    def _zip_names(self) -> dict[str, str]:
        if not self._zip_path.is_file():
            return {}
        with zipfile.ZipFile(self._zip_path) as archive:
            names = archive.namelist()
        # Archives are packed with and without their top folder.
        return {n: n for n in names} | {f"images/{n}": n for n in names if not n.startswith("images/")}


def write_sharegpt(samples: Iterable[Sample], path: str | Path, mode: str = "think") -> int:
    """Writes a ShareGPT JSON, and its images to ``images/`` beside it.

    Args:
        samples: boxes are written on the 0-1000 grid; samples without a rationale get the answer alone.
        path: the JSON file.
        mode: prompt of the user's turn.

    Returns:
        Number of records.
    """
    path = Path(path)
    (path.parent / "images").mkdir(parents=True, exist_ok=True)
    records = []
    for sample in samples:
        name = f"images/{sample.key}.{image_extension(sample.image)}"
        (path.parent / name).write_bytes(sample.image)
        asked = {"role": "user", "content": f"<image>{prompt(sample.entity, mode)}"}
        told = {"role": "assistant", "content": completion_text(sample)}
        records.append({"messages": [asked, told], "images": [name]})
    path.write_text(json.dumps(records, ensure_ascii=False, indent=1), "utf-8")
    return len(records)


def _turns(where: str, record: Mapping[str, Any]) -> dict[str, str]:
    messages = record.get("messages", record.get("conversations"))
    if not isinstance(messages, list):
        raise DataError(where, "messages", "is missing; give a list of turns")
    turns: dict[str, str] = {}
    for message in messages:
        role = str(message.get("role", message.get("from", "")))
        turns.setdefault(_ROLES.get(role, role), str(message.get("content", message.get("value", ""))))
    for role in ("user", "assistant"):
        if not turns.get(role):
            raise DataError(where, "messages", f"no {role} turn; add it")
    return turns
