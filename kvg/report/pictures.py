"""Reads the pictures of the shown cases from their sets, and reduces them for a page."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from PIL import Image

from kvg.errors import DataError
from kvg.evaluation.records.prediction import Prediction
from kvg.formats.stores import open_store
from kvg.formats.written_boxes import Reading
from kvg.pictures import read_rgb
from kvg.shards.reader import Tally
from kvg.shards.schema import image_extension
from kvg.types import Sample
from kvg.work.progress import with_progress

SIDE: Final = 640  # pixels of the longer side that are shown
QUALITY: Final = 80
_LIGHT: Final = 60_000  # bytes; smaller files of small pictures are embedded unchanged
_SMALL: Final = 320  # pixels of the longer side; smaller pictures are enlarged without smoothing


@dataclass(frozen=True)
class PagePicture:
    """A picture of the page.

    Attributes:
        mark: checksum of the stored picture.
        uri: the picture as a data URI; '' if it cannot be opened.
        width: of the stored picture, in pixels.
        height: of the stored picture, in pixels.
    """

    mark: str
    uri: str
    width: int
    height: int

    @property
    def is_small(self) -> bool:
        """Whether to enlarge the picture without smoothing."""
        return max(self.width, self.height) < _SMALL


@dataclass(frozen=True)
class PictureRequest:
    """A picture to look for.

    Attributes:
        id: name of the request.
        key: of the sample.
        set: name of its set; '' for any.
        image: checksum of the picture; '' for any.
    """

    id: str
    key: str
    set: str = ""
    image: str = ""


@dataclass(frozen=True)
class FoundPictures:
    """The pictures that were found.

    Attributes:
        by_case: pictures by ``id`` of the request.
        num_missing: number of requests whose key is in no set.
        num_other: number of requests whose key is in a set with a different picture.
    """

    by_case: Mapping[str, PagePicture]
    num_missing: int = 0
    num_other: int = 0


def read_pictures(
    sets: Sequence[tuple[str, str]],
    requests: Sequence[PictureRequest | Prediction],
    reading: Reading | None = None,
    required: bool = True,
) -> FoundPictures:
    """Finds pictures by key; those whose checksum differs from the request's are skipped.

    Args:
        sets: name and path of each; a set without a name may hold the pictures of any set.
        requests: pictures to look for; cases on corrupted pictures are skipped.
        reading: declared format of the sets' boxes.
        required: whether it is an error if no set holds any of them.

    Raises:
        DataError: a set cannot be opened, or no set holds any of them.
    """
    wanted: dict[str, list[PictureRequest | Prediction]] = {}
    for request in requests:
        if not (isinstance(request, Prediction) and request.artifact):
            wanted.setdefault(request.key, []).append(request)
    matches: dict[str, PagePicture] = {}
    made: dict[str, PagePicture] = {}
    others: set[str] = set()
    problems: list[str] = []
    for name, path in sets:
        parts, tally = open_store(path, reading=reading).parts(), Tally(log_problems=False)
        samples = (sample for part in parts for _, sample in part.read(tally))
        for sample in with_progress(samples, f"pictures of {path}", sum(part.num_samples for part in parts)):
            for request in wanted.get(sample.key, ()):
                if name and request.set != name:
                    continue
                mark = hashlib.sha256(sample.image).hexdigest()[:16]
                if request.image and request.image != mark:
                    others.add(request.id)
                    continue
                if mark not in made:
                    made[mark] = picture_of(sample, mark)
                matches[request.id] = made[mark]
        problems += tally.problems
    wanted_ids = {request.id for some in wanted.values() for request in some}
    others -= matches.keys()
    if wanted_ids and not matches and required:
        reason = "same keys, but other pictures" if others else "none of the keys occurs"
        reason += f"; some samples cannot be read: {problems[0]}" if problems else ""
        remedy = f"these sets are not the sets of the runs ({reason}); give the sets that were used for inference"
        raise DataError(", ".join(path for _, path in sets), "key", remedy)
    return FoundPictures(matches, len(wanted_ids) - len(matches) - len(others), len(others))


def picture_of(sample: Sample, mark: str) -> PagePicture:
    """The picture of a sample for the page; large pictures and files are reduced to a smaller JPEG."""
    light = max(sample.width, sample.height) <= SIDE and len(sample.image) <= _LIGHT
    try:
        kind = {"jpg": "jpeg", "png": "png"}[image_extension(sample.image)]
        data = sample.image
        image = read_rgb(data, sample.key)  # the card reports unreadable pictures; browsers would show nothing
        if not light:
            kind, data = "jpeg", _smaller(image)
    except DataError:
        return PagePicture(mark, "", sample.width, sample.height)
    uri = f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
    return PagePicture(mark, uri, sample.width, sample.height)


def _smaller(image: Image.Image) -> bytes:
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()
