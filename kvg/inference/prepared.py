"""Prepares batches of requests for a backbone, in the worker processes of a loader."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, Protocol

from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from kvg.batches import Example, Processor
from kvg.errors import DataError
from kvg.inference.request import Request, RequestBatches
from kvg.types import Records, Sample

PreparedBatch = dict[str, Any]


class AskingProcessor(Processor, Protocol):
    """A processor that can also tokenise any text about a picture."""

    def encode_turns(self, sample: Sample, turns: Sequence[str]) -> Example:
        """A prompt of any text about the picture of a sample, which is checked against the record."""

    def encode_question(self, key: str, image: bytes, text: str, completion: str | None = None) -> Example:
        """A prompt of any text about an encoded picture."""

    def begun(self, example: Example, start: str, key: str) -> Example:
        """A prompt whose answer has begun."""


class PreparedBatches(IterableDataset[PreparedBatch]):
    """The batches of one process, ready for a backbone.

    Their fields::

        number, due       number of the batch, and whether its answers are needed
        inputs            of the backbone, see ``kvg.batches.Batch``; padded on the left
        requests          the usable requests, in order
        samples           their records, if they have any
        faults            for each request of the batch: the error that makes it unusable, or None
        examples          for conversations of two turns: the prompts before padding; empty for one turn

    If no batch is left, there is one batch with the number None: Lightning skips the end hooks of an empty loop.

    Args:
        batches: all requests.
        processor: tokenises them.
        share: numbers of batches, rising, and whether their answers are due; see ``kvg.work.job.share_of``.
    """

    def __init__(self, batches: RequestBatches, processor: AskingProcessor, share: Sequence[tuple[int, bool]]) -> None:
        self.batches, self.processor, self.share = batches, processor, share

    def __len__(self) -> int:
        """Batches of this process."""
        return max(1, len(self.share))

    def __iter__(self) -> Iterator[PreparedBatch]:
        """See the class.

        Raises:
            DataError: the requests have changed since the batches were counted.
        """
        info = get_worker_info()
        share = self.share[info.id :: info.num_workers] if info else self.share
        if not self.share and (info is None or info.id == 0):
            yield {"number": None}
        due_flags = [(number, [due for _, due in group]) for number, group in groupby(share, key=lambda one: one[0])]
        batches = self.batches.read([number for number, _ in due_flags])
        for (number, flags), (_, requests) in zip(due_flags, batches, strict=True):
            prepared = self._prepared(requests)
            for due in flags:
                yield {**prepared, "number": number, "due": due}

    def loader(self, num_workers: int) -> DataLoader[PreparedBatch]:
        """Gives the batches out in their order.

        Args:
            num_workers: processes that make them; 0 makes them in this one.
        """
        return DataLoader(self, batch_size=None, num_workers=min(num_workers, len(self)))

    def _prepared(self, batch: Sequence[Request | DataError]) -> PreparedBatch:
        examples: list[Example] = []
        requests: list[Request] = []
        faults: list[DataError | None] = []
        for request in batch:
            if isinstance(request, DataError):
                faults.append(request)
                continue
            try:
                examples.append(self._encoded(request))
            except DataError as error:
                faults.append(request.fault(error))
                continue
            requests.append(request)
            faults.append(None)
        if not examples:  # a sharded model needs this process in the step, including the vision tower
            examples.append(self.processor.encode_question("blank", _blank(), "-"))
        samples = [request.sample for request in requests if request.sample]
        return {
            "inputs": self.processor.collate(examples, samples, pad_left=True),
            "requests": Records(requests),
            "samples": Records(samples),
            "faults": Records(faults),
            "examples": Records(examples if self.batches.two_turns else ()),
        }

    def _encoded(self, request: Request) -> Example:
        if request.sample is None:
            example = self.processor.encode_question(request.key, request.image, request.text)
        else:
            example = self.processor.encode_turns(request.sample, [request.text])
        return self.processor.begun(example, request.start, request.key) if request.start else example


def _blank() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (56, 56)).save(file, "PNG")
    return file.getvalue()
