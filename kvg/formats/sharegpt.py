"""Stage 1 as published: LLaMA-Factory's ShareGPT JSON (``cot-sft-*.json``) beside a folder or ``images.zip``."""

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

    The older spelling ``conversations`` with ``from`` and ``value`` is read too, and ``images`` as one path. A record
    is one question about one picture, with its answer; one of another make is bad, since a part of it would be lost.

    Args:
        path: the JSON file.
        category: of all samples; by default the part of the file name after ``cot-sft-``.
        images: folder of the pictures; by default that of the file. What is not there may stand in an ``images.zip``.
        reading: what is declared of the boxes.

    Raises:
        DataError: the file is missing, is no JSON list, or is empty.
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
            raise DataError(str(self.path), "records", "there are none; give a file that holds some")

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
        user_turn = {"role": "user", "content": f"<image>{prompt(sample.entity, mode)}"}
        assistant_turn = {"role": "assistant", "content": completion_text(sample)}
        records.append({"messages": [user_turn, assistant_turn], "images": [name]})
    path.write_text(json.dumps(records, ensure_ascii=False, indent=1), "utf-8")
    return len(records)


def _turns(where: str, record: Mapping[str, Any]) -> tuple[str, str]:
    """The question and its answer; what a system turn says is not part of a sample.

    Raises:
        DataError: a turn is of another make, or it is not one question and then its answer.
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
            raise DataError(where, field, f"no {role} turn; add it")
    if roles != ["user", "assistant"]:
        remedy = f"hold the turns {', '.join(roles)}; give each question with its answer a record of its own"
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
