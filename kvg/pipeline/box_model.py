"""A grounding model that locates entities: its requests, its codec, and its answer for each picture."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from kvg.catalogue.box_rules import BoxSettings, named_fault, read_box, sent_size, wording
from kvg.catalogue.boxing import PICTURE, open_on_white
from kvg.catalogue.entry import Entry
from kvg.catalogue.listing import PictureSource
from kvg.config.settings import instantiate
from kvg.errors import ConfigError, DataError
from kvg.inference.request import Client, Request
from kvg.text.box_codec import BoxCodec
from kvg.types import Box
from kvg.work.progress import with_progress

T = TypeVar("T")
QUALITY = 95  # quality of the JPEG that is sent


@dataclass(frozen=True)
class BoxAnswer:
    """The answer of a model about a picture: boxes, or the rule and reason why there are none."""

    boxes: tuple[Box, ...] = ()
    rule: str = ""
    reason: str = ""


@dataclass
class Pictures:
    """Pictures of a project for requests.

    Attributes:
        sources: sources that read the pictures.
        settings: settings of section ``box``.
        max_opened: maximum width times height of a picture that is opened.
    """

    sources: Mapping[str, PictureSource]
    settings: BoxSettings
    max_opened: int


@dataclass(frozen=True)
class BoxModel:
    """A model with its box codec and its question."""

    client: Client
    codec: BoxCodec
    text: str
    num_answers: int

    @classmethod
    def of(cls, settings: BoxSettings) -> BoxModel:
        """Builds the first model of the settings.

        Raises:
            ConfigError: a class does not exist, or a setting does not fit it.
        """
        client, codec = _build(settings.client, settings.codec, "client", "codec")
        return cls(client, codec, settings.question, settings.samples)

    @classmethod
    def second_of(cls, settings: BoxSettings) -> BoxModel | None:
        """Builds the second model of the settings; returns None if there is none.

        Raises:
            ConfigError: a class does not exist, or a setting does not fit it.
        """
        if settings.second is None:
            return None
        client, codec = _build(settings.second, settings.second_codec or settings.codec, "second", "second_codec")
        return cls(client, codec, settings.second_question or settings.question, 1)

    def answers(self, entries: Sequence[Entry], pictures: Pictures, work: Path) -> list[BoxAnswer]:
        """Returns one answer for each picture, in order.

        Args:
            entries: the pictures.
            pictures: how they are read and sent.
            work: folder for the raw answers.

        Raises:
            DataError: the model no longer answers.
        """
        settings = pictures.settings
        requests = BoxRequests(entries, pictures, self.text, self.num_answers)
        limits = settings.max_pixels, settings.size_multiple
        sizes = {key_of(e): sent_size(e.width, e.height, *limits) for e in entries}

        def validate(request: Request, answer: str) -> Box:
            return read_box(answer, sizes[request.key], self.codec, settings)

        answers: dict[str, BoxAnswer] = {}
        for outcome in _with_bar(self.client.ask(requests, validate, work, settings.max_attempts), len(entries)):
            fault = ("", "") if outcome.complete else named_fault(outcome.faults)
            answers[outcome.request.key] = BoxAnswer(outcome.values, *fault)
        for key, reason in requests.unreadable.items():
            answers[key] = BoxAnswer((), PICTURE, reason)
        return [answers[key_of(entry)] for entry in entries]


@dataclass
class BoxRequests:
    """Requests about pictures. Each iteration makes them anew, so that few are in memory.

    Attributes:
        entries: the pictures.
        pictures: how they are read and sent.
        text: text of the question, with placeholders.
        num_answers: number of answers for each picture.
        unreadable: reasons why pictures cannot be read, by key; filled during iteration.
    """

    entries: Sequence[Entry]
    pictures: Pictures
    text: str
    num_answers: int
    unreadable: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of pictures, with those that cannot be read."""
        return len(self.entries)

    def __iter__(self) -> Iterator[Request]:
        """Yields requests in the order of the pictures, without those that cannot be read."""
        for entry in self.entries:
            try:
                image = open_on_white(self.pictures.sources, entry, self.pictures.max_opened)
            except DataError as error:
                self.unreadable[key_of(entry)] = str(error)
                continue
            text, data = _sendable(wording(self.text, entry)), encoded(image, self.pictures.settings)
            yield Request(key_of(entry), text, data, self.num_answers)


def encoded(image: Image.Image, settings: BoxSettings) -> bytes:
    """Encodes a picture as JPEG in a size that the model does not change."""
    size = sent_size(*image.size, settings.max_pixels, settings.size_multiple)
    resized = image.resize((size.resized_width, size.resized_height), Image.Resampling.BICUBIC, reducing_gap=3.0)
    file = io.BytesIO()
    resized.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def key_of(entry: Entry) -> str:
    """Returns the key of a picture. The checksum distinguishes "a/b" of source "c" from "b" of source "c/a"."""
    return _sendable(f"{entry.source}/{entry.ref} {entry.sha256[:12]}")


def _sendable(text: str) -> str:
    """Escapes bytes that are not valid UTF-8, which file names may contain."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _with_bar(outcomes: Iterator[T], total: int) -> Iterator[T]:
    """Adds a progress bar from the first outcome on. Before that, a model in this process shows its own bar."""
    for first in outcomes:
        yield from with_progress(chain([first], outcomes), "boxes", total)


def _build(client: Any, codec: Any, name: str, codec_name: str) -> tuple[Client, BoxCodec]:
    """Builds codec and client. The codec comes first: an error in it should not cost the loading of a model."""
    built_codec = instantiate(codec, f"box.{codec_name}")
    if not isinstance(built_codec, BoxCodec):
        raise ConfigError(f"box.{codec_name}", "is not a box codec; use one of kvg.text.box_codec")
    built = instantiate(client, f"box.{name}")
    if not callable(getattr(built, "ask", None)):
        raise ConfigError(f"box.{name}", "is not a client; use kvg.inference.server.Server, for example")
    return built, built_codec
