"""Pairs of a picture and a name for ``kvg ground``: from a folder, or from a list."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kvg.catalogue.walking import walk
from kvg.errors import ConfigError, DataError
from kvg.formats.listed_pictures import find_picture
from kvg.inference.request import Request
from kvg.pipeline.grounder import checked_entity
from kvg.pipeline.grounding import MARK, encoded_picture
from kvg.records import json_lines, object_of, parse_json, text_of


@dataclass(frozen=True)
class Pair:
    """A picture and a name; ``where`` names the pair in messages and is unique."""

    where: str
    image: Path
    entity: str


@dataclass
class PairRequests:
    """Requests about pairs. Each iteration reads the pictures anew, so that few are in memory.

    Attributes:
        pairs: pictures and names.
        prompts: of each pair.
        skipped: reasons why pictures cannot be read, by ``Pair.where``; filled during iteration.
    """

    pairs: Sequence[Pair]
    prompts: Sequence[str]
    skipped: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of pairs, with those that cannot be read."""
        return len(self.pairs)

    def __iter__(self) -> Iterator[Request]:
        """Yields the requests in order."""
        for pair, text in zip(self.pairs, self.prompts, strict=True):
            try:
                yield Request(pair.where, text, encoded_picture(pair.image)[1])
            except DataError as error:
                self.skipped[pair.where] = str(error)


def read_pairs(source: Path, entity: str | None) -> tuple[list[Pair], list[str]]:
    """The pairs of a folder or a list, and the reasons why others cannot be used.

    Args:
        source: a folder of pictures, or a list (JSON lines with ``image`` and ``entity``).
        entity: name for a folder; None for a list.

    Raises:
        ConfigError: there is a name too many, or none.
        DataError: there is no picture, or the list cannot be read.
    """
    if source.is_dir():
        if entity is None:
            raise ConfigError("NAME", f"is missing: what is to be found on the pictures of {source}?")
        name = checked_entity(entity)
        paths = [path for path in walk(source).pictures() if not path.stem.endswith(MARK)]
        if not paths:
            raise DataError(str(source), "pictures", "there are none in this folder; give another")
        return [Pair(str(path), path, name) for path in paths], []
    if entity is not None:
        raise ConfigError("NAME", f"'{entity}' is one too many: each line of {source} has its own `entity`")
    pairs, skipped = list[Pair](), list[str]()
    for number, line in json_lines(source):
        where = f"{source} line {number}"
        try:
            record = object_of(where, "record", parse_json(line, where))
            image = Path(text_of(where, record, "image"))
            if not image.is_absolute() or not image.is_file():  # a user may list own pictures anywhere
                image = find_picture(where, "image", str(image), source.parent)[0]
            pairs.append(Pair(where, image, checked_entity(text_of(where, record, "entity"))))
        except (DataError, ConfigError) as error:
            skipped.append(str(error))
    if not pairs:
        remedy = skipped[0] if skipped else 'is empty; write lines such as {"image": "dog.jpg", "entity": "Merlin"}'
        raise DataError(str(source), "lines", f"none can be used ({remedy})")
    return pairs, skipped
