"""Pictures and the names to find on them: JSON lines, JSON or CSV with ``image`` (or ``path``) and ``entity``.

A row may have ``category``, and ``bbox``, the true box as x1, y1, x2, y2 in a unit that is declared (``box_unit``). A
row without ``bbox`` can be answered (``kvg predict``), but not measured, and no training takes it. Rows with
``options`` are questions of several choices, see ``kvg.formats.recognition``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from kvg.box_forms import RIM, BoxForm, pixel_frame
from kvg.errors import DataError
from kvg.formats.listed_pictures import find_picture, folder_of
from kvg.formats.one_object import one_object
from kvg.formats.published import good_samples
from kvg.formats.written_boxes import HOW_TO_STATE, Reading
from kvg.records import Row, load_list, numbered, object_of, optional_text, text_of
from kvg.shards.reader import Tally
from kvg.text.names import clean_name
from kvg.types import Box, Sample

BOX: Final = "bbox"
_IMAGES: Final = ("image", "path")
_OF_CHOICES: Final = ("options", "label", "groundtruth")


def is_entity_list(value: Any) -> bool:
    """Returns whether a file's content has this form; no row may be a question of several choices.

    >>> is_entity_list([("line 1", {"image": "a.jpg", "entity": "Merlin"})])
    True
    >>> is_entity_list([("line 1", {"image": "a.jpg", "entity": "Merlin", "options": ["Merlin", "Hobby"]})])
    False
    """
    rows = [one[1] if isinstance(one, tuple) else one for one in value] if isinstance(value, list) else []
    rows = [row for row in rows if isinstance(row, Mapping)]
    if not rows or any(row.get(name) not in (None, "") for row in rows for name in _OF_CHOICES):
        return False
    return "entity" in rows[0] and any(name in rows[0] for name in _IMAGES)


class EntityList:
    """Questions about pictures as a store of one part.

    Args:
        path: the list.
        images: folder of the pictures; by default that of the list.
        category: category of all samples; by default that of the row, else the file's name.
        reading: declared unit and frame of the boxes.

    Raises:
        DataError: the file is missing, damaged, empty, or of another form.
    """

    def __init__(
        self, path: str | Path, images: str | Path | None = None, category: str = "", reading: Reading | None = None
    ) -> None:
        self.path, self.category, self.reading = Path(path), category, reading or Reading()
        self.folder = folder_of(self.path, images)
        self.num_samples = len(self._load())

    def parts(self) -> Sequence[EntityList]:
        """See ``SampleStore``."""
        return [self]

    def read(self, tally: Tally | None = None) -> Iterator[tuple[int, Sample]]:
        """See ``SamplePart``."""
        return good_samples(enumerate(self._load()), self._sample, tally)

    def _load(self) -> list[Row]:
        value = load_list(self.path)
        if not is_entity_list(value):
            raise DataError(str(self.path), "form", "is no list of pictures and names; give image and entity")
        return value if isinstance(value[0], tuple) else numbered(self.path, value)

    def _sample(self, position: int, row: Row) -> Sample:
        where, record = row[0], object_of(row[0], "record", row[1])
        field = next((name for name in _IMAGES if name in record), _IMAGES[0])
        entity, name = clean_name(text_of(where, record, "entity")), text_of(where, record, field)
        data = find_picture(where, field, name, self.folder)[1]
        box = self._box(where, record, data)
        category = self.category or optional_text(where, record, "category") or self.path.stem
        return one_object(self.path, position, where, name, data, category, entity, box, has_box=box is not None)

    def _box(self, where: str, record: Mapping[str, Any], data: bytes) -> Box | None:
        value, unit = record.get(BOX), self.reading.box_unit
        if value in (None, ""):
            return None
        if unit is None:
            raise DataError(where, BOX, f"may be in any unit; {HOW_TO_STATE}")
        frame = pixel_frame(data, where, self.reading.boxes_of)
        rim = 0.0 if unit == "relative_1000" else RIM
        return frame.upright(BoxForm(unit).pixels(value, frame.width, frame.height, where, BOX, rim))
