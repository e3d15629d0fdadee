"""The published format of stage 1: LLaMA-Factory's ShareGPT JSON (``cot-sft-*.json``), pictures in a folder or zip."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from kvg.errors import DataError
from kvg.formats.listed_pictures import PictureFolder, folder_of
from kvg.formats.published import category_of_file, completion_text, good_samples, make_sample, safe_key
from kvg.formats.written_boxes import Reading
from kvg.records import excerpt, list_of, object_of, read_json, text_of
from kvg.shards.reader import Tally
from kvg.shards.schema import image_extension
from kvg.text.prompts import prompt
from kvg.types import Sample

_ROLES: Final = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}


class ShareGPTFile:
    """A ShareGPT JSON as a store of one part: ``[{"messages": [{"role", "content"}], "images": [path]}]``.

    The older form ``conversations`` with ``from`` and ``value`` is also read, and ``images`` may be one path. A record
    must be one question about one picture and its answer. Other records are bad, since a part of them would be lost.

    Args:
        path: the JSON file.
        category: category of all samples; by default the part of the file name after ``cot-sft-``.
        images: folder of the pictures; by default that of the file. Other pictures may be in an ``images.zip`` there.
        reading: declared unit and frame of the boxes.

    Raises:
        DataError: the file is missing, empty, or not a JSON list.
    """

    def __init__(
        self,
        path: str | Path,
        category: str | None = None,
        images: str | Path | None = None,
        reading: Reading | None = None,
    ) -> None:
        self.path, self.reading = Path(path), reading or Reading()
        self.category = category or category_of_file(self.path, "cot-sft-", "sft-")
        self.num_samples = len(self._load())
        self._images = images
        if not self.num_samples:
            raise DataError(str(self.path), "records", "are missing; give a file with records")

    def parts(self) -> Sequence[ShareGPTFile]:
        """See ``SampleStore``."""
        return [self]

    def read(self, tally: Tally | None = None) -> Iterator[tuple[int, Sample]]:
        """See ``SamplePart``."""
        return good_samples(enumerate(self._load()), self._sample, tally)

    @cached_property
    def _pictures(self) -> PictureFolder:
        return PictureFolder(folder_of(self.path, self._images))

    def _load(self) -> list[Any]:
        records = read_json(self.path)
        if not isinstance(records, list):
            raise DataError(str(self.path), "json", "must be a list of records")
        return records

    def _sample(self, position: int, value: Any) -> Sample:
        where = f"{self.path} record {position}"
        record = object_of(where, "record", value)
        question, answer = _turns(where, record)
        name = _only_image(where, record)
        key = f"{safe_key(self.path.stem)}-{position:06d}"
        provenance = {"file": self.path.name, "image": name}
        data = self._pictures.read(where, "images", name)
        return make_sample(where, key, self.category, data, question, answer, provenance, self.reading)


def write_sharegpt(samples: Iterable[Sample], path: str | Path, mode: str = "think") -> int:
    """Writes a ShareGPT JSON, and its images to ``images/`` beside it.

    Args:
        samples: samples to write, boxes on the 0-1000 grid; a sample without a rationale gets only its answer.
        path: the JSON file.
        mode: prompt template of the user's turn.

    Returns:
        Number of records.
    """
    path = Path(path)
    (path.parent / "images").mkdir(parents=True, exist_ok=True)
    records = []
    for sample in samples:
        name = f"images/{sample.key}.{image_extension(sample.image)}"
        (path.parent / name).write_bytes(sample.image)
        user_turn = {"role": "user", "content": f"<image>{prompt(sample.entity, mode)}"}
        assistant_turn = {"role": "assistant", "content": completion_text(sample)}
        records.append({"messages": [user_turn, assistant_turn], "images": [name]})
    path.write_text(json.dumps(records, ensure_ascii=False, indent=1), "utf-8")
    return len(records)


def _turns(where: str, record: Mapping[str, Any]) -> tuple[str, str]:
    """Returns the question and its answer; ignores system turns.

    Raises:
        DataError: a turn has another form, or the turns are not one question and then its answer.
    """
    field = "messages" if "messages" in record else "conversations"
    if record.get(field) is None:
        raise DataError(where, "messages", "is missing; give a list of turns")
    roles, texts = [], []
    for number, value in enumerate(list_of(where, field, record[field])):
        turn = object_of(where, f"{field}[{number}]", value)
        names = ("role", "content") if "role" in turn or "content" in turn else ("from", "value")
        place = f"{where} {field}[{number}]"
        role = _ROLES.get(text_of(place, turn, names[0]).lower())
        if role is None:
            remedy = f"{excerpt(turn[names[0]])} is none of {', '.join(_ROLES)}; correct it"
            raise DataError(place, names[0], remedy)
        text = "" if turn.get(names[1]) == "" else text_of(place, turn, names[1])
        if role != "system":
            roles.append(role)
            texts.append(text)
    for role in ("user", "assistant"):
        if role not in roles or not texts[roles.index(role)]:
            raise DataError(where, field, f"has no {role} turn; add it")
    if roles != ["user", "assistant"]:
        remedy = f"has the turns {', '.join(roles)}; write each question and its answer as a record of its own"
        raise DataError(where, field, remedy)
    return texts[0], texts[1]


def _only_image(where: str, record: Mapping[str, Any]) -> str:
    images = record.get("images", record.get("image"))
    names = [images] if isinstance(images, str) else images
    if not isinstance(names, list) or len(names) != 1:
        raise DataError(where, "images", f"{excerpt(images)} must be a list of one path")
    for field in ("videos", "audios"):
        if record.get(field):
            raise DataError(where, field, f"{excerpt(record[field])} cannot be read; give records of one picture")
    return text_of(where, {"images": names[0]}, "images")
