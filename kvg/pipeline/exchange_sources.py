"""Pictures with boxes from any source: shards, published files, a catalogue, predictions, or an exchange format."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from kvg.catalogue.boxing import boxed_entries
from kvg.catalogue.entry import Entry, cut_out
from kvg.catalogue.listing import PictureSource
from kvg.catalogue.project import CatalogueProject, read_project
from kvg.errors import ConfigError, DataError
from kvg.evaluation.records.fields import DIGITS
from kvg.evaluation.records.prediction import Prediction, read_predictions
from kvg.evaluation.records.question import Question
from kvg.formats.exchange.base import Keys, Source
from kvg.formats.exchange.picture import AnnotatedPicture, LabelledBox
from kvg.formats.exchange.registry import FORMATS
from kvg.formats.exchange.samples import SampleMaker, picture_of
from kvg.formats.stores import open_store
from kvg.formats.written_boxes import Reading
from kvg.pictures import read_picture, standard_picture
from kvg.shards.reader import SampleStore, Tally
from kvg.text.box_codec import from_norm
from kvg.types import Box, Sample
from kvg.work.progress import with_progress

CATALOGUE_FORM, PREDICTIONS_FORM = "catalogue", "predictions"
SOURCE_FORMS: Final = (*FORMATS, CATALOGUE_FORM, PREDICTIONS_FORM)


@dataclass
class Input:
    """What to read, and what was read so far.

    Attributes:
        path: folder or file.
        form: one of ``SOURCE_FORMS``; '' for shards, published files and lists, whose content decides.
        images: folder of the pictures that a list names; None for the form's own place.
        pictures: set that predictions belong to; only for predictions.
        category: category of boxes that have none.
        seed: seed of the options of labels.
        reading: declared unit and frame of the boxes.
        tally: counts entries.
        num_clipped: number of boxes that were clipped, of the exchange formats.
        num_rationales_lost: see ``SampleMaker``.

    Raises:
        ConfigError: an option is missing, or does not fit the form.
    """

    path: Path
    form: str = ""
    images: str | None = None
    pictures: str | None = None
    category: str = ""
    seed: int = 0
    reading: Reading = field(default_factory=Reading)
    tally: Tally = field(default_factory=Tally)
    num_clipped: int = 0
    num_rationales_lost: int = 0
    _num_listed: int | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.form and self.form not in SOURCE_FORMS:
            raise ConfigError("from", f"'{self.form}' is not one of {', '.join(SOURCE_FORMS)}")
        if bool(self.pictures) != (self.form == PREDICTIONS_FORM):
            raise ConfigError("pictures", "is the set that predictions belong to; give it with --from predictions only")
        if self.form in (CATALOGUE_FORM, PREDICTIONS_FORM) and (self.images or self.category):
            raise ConfigError("images", f"and category are not for --from {self.form}; leave them out")
        if self.form in FORMATS and FORMATS[self.form].has_fixed_unit and self.reading.box_unit:
            raise ConfigError("box_unit", f"must not be declared: {self.form} defines the unit of its boxes")
        if self.form == CATALOGUE_FORM and self.reading.settings:
            raise ConfigError("box_unit", "of a catalogue is known; leave it out")

    def annotated(self) -> Iterator[AnnotatedPicture]:
        """Yields pictures with a progress bar; entries that cannot be used are counted.

        Raises:
            DataError: nothing can be read.
        """
        return with_progress(self._pictures(), "convert", self.num_expected)

    def _pictures(self) -> Iterator[AnnotatedPicture]:
        if self.form == CATALOGUE_FORM:
            project = read_project(self.path, CatalogueProject)
            entries = list(boxed_entries(project))
            self._num_listed = len(entries)
            yield from _catalogue(project, entries, self.tally)
        elif self.form == PREDICTIONS_FORM:
            yield from self._predictions()
        elif self.form:
            source = Source(self.path, Path(self.images) if self.images else None, self.reading)
            for picture in FORMATS[self.form].read(source, self.tally):
                self.num_clipped, self._num_listed = source.num_clipped, source.num_listed
                yield picture if not self.category else _with_category(picture, self.category)
        else:
            for sample in _read(self.store, self.tally):
                if sample.options:
                    raise ConfigError("to", "a multiple-choice question has no box to exchange; use shards")
                self.num_clipped += "clipped" in sample.provenance
                yield picture_of(sample)

    def samples(self) -> Iterator[Sample]:
        """Yields samples; see ``annotated``."""
        if not self.form:
            for sample in with_progress(_read(self.store, self.tally), "convert", self.num_expected):
                self.num_clipped += "clipped" in sample.provenance
                yield sample
            return
        maker = SampleMaker(self.category, self.tally)
        for picture in self.annotated():
            yield from maker.samples(picture)
            self.num_rationales_lost = maker.num_rationales_lost

    @cached_property
    def store(self) -> SampleStore:
        """Shards, a published file or a list, opened when it is first needed.

        Raises:
            DataError: see ``open_store``.
        """
        return open_store(self.path, self.images, self.category, self.seed, self.reading)

    def num_expected(self) -> int | None:
        """Returns the number of samples or pictures, for a progress bar; None if they have not been counted yet."""
        return self._num_listed if self.form else sum(part.num_samples for part in self.store.parts())

    def _predictions(self) -> Iterator[AnnotatedPicture]:
        """Yields the pictures of predictions; those of choices and of corrupted pictures are skipped."""
        lines: dict[str, list[Prediction]] = {}
        for line in read_predictions(self.path):
            where = f"{self.path} {line.id}"
            if line.is_choice or line.artifact:
                self.tally.note(DataError(where, "options", "has no box on a clean picture, and cannot be exchanged"))
            else:
                lines.setdefault(line.key, []).append(line)
        self._num_listed = sum(map(len, lines.values()))
        for sample in _read(open_store(str(self.pictures), reading=self.reading), self.tally):
            for line in lines.pop(sample.key, []):
                try:
                    yield _predicted(sample, line)
                except DataError as error:
                    self.tally.note(error)
        for key in lines:
            self.tally.note(DataError(f"{self.path} {key}", "key", f"is not in {self.pictures}; give the right set"))


def _read(store: SampleStore, tally: Tally) -> Iterator[Sample]:
    for part in store.parts():
        yield from (sample for _, sample in part.read(tally))


def _with_category(picture: AnnotatedPicture, category: str) -> AnnotatedPicture:
    boxes = tuple(box if box.category else replace(box, category=category) for box in picture.boxes)
    return replace(picture, boxes=boxes)


def _catalogue(project: CatalogueProject, entries: Sequence[Entry], tally: Tally) -> Iterator[AnnotatedPicture]:
    """Yields the pictures of a scanned project with the boxes that later steps use, and those without a box."""
    sources, keys = project.build_sources(), Keys()
    for entry in entries:
        try:
            image, width, height = _picture(sources, entry, project.scan.max_pixels)
        except DataError as error:
            tally.note(error)
            continue
        boxes = () if entry.box_px is None else (LabelledBox(entry.entity, entry.box_px, entry.category),)
        facts: dict[str, Any] = {"split": entry.split, **({"licences": [entry.licence]} if entry.licence else {})}
        facts["catalogue"] = {
            "source": entry.source,
            "ref": entry.ref,
            "sha256": entry.sha256,
            "entity": entry.entity,
            "box_px": None if entry.box_px is None else list(entry.box_px),
        }
        yield AnnotatedPicture(keys.key(entry.ref), image, width, height, boxes, facts=facts)


def _picture(sources: dict[str, PictureSource], entry: Entry, max_pixels: int) -> tuple[bytes, int, int]:
    """Returns the picture of an entry as JPEG or PNG with its size; a cut is written as PNG, without loss.

    Raises:
        DataError: it cannot be read.
    """
    data = sources[entry.source].read(entry.ref)
    if entry.cut_px is None:
        return standard_picture(data, entry.ref, max_pixels)
    image, buffer = cut_out(read_picture(data, entry.ref, max_pixels), entry.cut_px), io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue(), image.width, image.height


def _predicted(sample: Sample, line: Prediction) -> AnnotatedPicture:
    """Returns the picture of a prediction.

    Raises:
        DataError: the picture has changed, or the predicted box has no area.
    """
    if line.image and line.image != Question(sample).image_mark:
        raise DataError(sample.key, "image", "is another picture than the one that was asked about; give the right set")
    picture = picture_of(sample)
    if line.box is None:
        return picture
    x1, y1, x2, y2 = (round(value, DIGITS) for value in from_norm(line.box, sample.width, sample.height))
    if x1 >= x2 or y1 >= y2:
        raise DataError(sample.key, "box", f"{list(line.box)} has no area; it counts as a miss and cannot be exchanged")
    box: Box = x1, y1, x2, y2
    return replace(picture, predictions=(LabelledBox(sample.entity, box, sample.category),))
