"""The engine that answers the questions of an evaluation with a client, such as a server."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import lightning as L

from kvg.errors import ConfigError, DataError
from kvg.inference.batch_runner import RequestJob
from kvg.inference.prepared import PreparedBatch
from kvg.inference.request import Answers, Client, Outcome, Request, RequestBatches
from kvg.inference.sent_pictures import SentSize, sent_picture
from kvg.text.box_codec import BoxCodec, ImageSize
from kvg.text.prompts import PromptFormat
from kvg.types import Records


class ClientEngine:
    """Sends all questions to a client as one stream, and returns its answers in batches.

    Args:
        client: the client that answers.
        codec: the box convention of its answers.
        prompt_format: marks around names in a question.
        sent_size: size limits for resizing pictures before sending; None sends pictures in their own size.

    Raises:
        ConfigError: boxes are in pixels and ``sent_size`` is missing.
    """

    takes_starts = False  # a server begins its own answers

    def __init__(
        self, client: Client, codec: BoxCodec, prompt_format: PromptFormat, sent_size: SentSize | None = None
    ) -> None:
        if codec.name == "absolute" and sent_size is None:
            remedy = "is needed for boxes in pixels: {max_pixels: ...} of the served model, and `cell` of its family"
            raise ConfigError("model.sent_size", remedy)
        self.client, self.sent_size = client, sent_size
        self.codec, self.prompt_format = codec, prompt_format

    def image_size(self, width: int, height: int) -> ImageSize:
        """Both sizes of a picture: as stored, and as sent."""
        return self.sent_size.of(width, height) if self.sent_size else ImageSize(width, height, width, height)

    def settings(self, trainer: L.Trainer) -> dict[str, Any]:
        """The settings that determine the answers, as JSON data."""
        return {
            "client": [f"{type(self.client).__module__}.{type(self.client).__qualname__}", self.client.identity()],
            "codec": [type(self.codec).__name__, vars(self.codec)],
            "prompt_format": asdict(self.prompt_format),
            "sent_size": asdict(self.sent_size) if self.sent_size else None,
        }

    def origin(self, trainer: L.Trainer) -> dict[str, Any]:
        """The client as metadata; it does not affect the answers."""
        return {"client": repr(self.client)}

    def summary(self) -> str:
        """Usage in one line."""
        return self.client.summary()

    def meets_alike(self) -> bool:
        """True: there is only one process."""
        return True

    def loader(self, job: RequestJob, share: Sequence[tuple[int, bool]]) -> AnsweredBatches:
        """The batches of a share, answered."""
        work = job.units.units / "answers"  # of batches that are not complete; goes with the units
        return AnsweredBatches(job.batches, [number for number, _ in share], self.client, work, self.sent_size)

    def answer(self, batch: PreparedBatch, seed: str) -> Iterator[Answers]:
        """The answers of a batch, which ``loader`` has already received."""
        outcome: Outcome[str]
        for outcome in batch["outcomes"]:
            fault = "" if outcome.completions else "; ".join(outcome.faults) or "no answer came"
            yield Answers(outcome.completions[:1], outcome.first_turn, fault)


@dataclass
class AnsweredBatches:
    """Batches with their outcomes, in order; the client works ahead on the next batches.

    The fields are those of ``kvg.inference.prepared.PreparedBatches``, with ``outcomes`` instead of ``inputs``.

    Attributes:
        batches: all requests.
        numbers: of the batches that are wanted, rising.
        client: that answers.
        work: folder of its answers.
        sent_size: of pictures.
    """

    batches: RequestBatches
    numbers: Sequence[int]
    client: Client
    work: Path
    sent_size: SentSize | None

    def __len__(self) -> int:
        """Number of batches; at least 1, for the placeholder without a number."""
        return max(1, len(self.numbers))

    def __iter__(self) -> Iterator[PreparedBatch]:
        """See the class.

        Raises:
            DataError: nothing more can be answered.
        """
        if not self.numbers:
            yield {"number": None}
            return
        waiting: deque[tuple[int, list[Request], list[DataError | None]]] = deque()
        outcomes = self.client.ask(self._requests(waiting), lambda _, text: text, self.work)
        early: list[Outcome[str]] = []  # of a later batch: the batches before it may have no usable request
        for _ in self.numbers:
            start = time.perf_counter()
            if not waiting:  # the next outcome makes the client read on
                early += islice(outcomes, 1)
            number, requests, faults = waiting.popleft()
            own = [early.pop() for _ in requests[:1] if early]
            own += islice(outcomes, len(requests) - len(own))
            yield {
                "number": number,
                "due": True,
                "requests": Records(requests),
                "samples": Records(request.sample for request in requests),
                "faults": Records(faults),
                "outcomes": Records(own),
                "seconds": time.perf_counter() - start,
            }

    def _requests(self, waiting: deque[tuple[int, list[Request], list[DataError | None]]]) -> Iterator[Request]:
        """All usable requests; appends each batch to ``waiting`` when it is read."""
        for number, batch in self.batches.read(self.numbers):
            requests: list[Request] = []
            faults: list[DataError | None] = []
            for request in batch:
                try:
                    if isinstance(request, DataError):
                        raise request
                    requests.append(replace(request, image=self._picture(request)))
                    faults.append(None)
                except DataError as error:
                    faults.append(error if isinstance(request, DataError) else request.fault(error))
            waiting.append((number, requests, faults))
            yield from requests

    def _picture(self, request: Request) -> bytes:
        return sent_picture(request.sample, self.sent_size) if request.sample else request.image
