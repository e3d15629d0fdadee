"""Batches of questions that have no answers yet, for one of several processes that take turns."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, Protocol

from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from kvg.batches import Example, Processor
from kvg.errors import DataError
from kvg.evaluation.records.question import Question
from kvg.evaluation.records.question_sets import Pass, QuestionBatches
from kvg.text.prompts import DESCRIBE, PromptFormat
from kvg.types import Records, Sample, SceneObject


class AskingProcessor(Processor, Protocol):
    """A processor that also tokenises questions other than for a sample's box."""

    prompt_format: PromptFormat

    def encode_turns(self, sample: Sample, turns: Sequence[str]) -> Example:
        """A prompt of any text about the picture of a sample."""


class PreparedQuestions(IterableDataset[dict[str, Any]]):
    """Batches ready to be answered, made in as many workers as the loader has.

    A batch holds::

        inputs              the prompts, see ``kvg.batches.Batch``
        questions, samples  that can be asked about, in order
        faults              of each question of the batch: why it cannot be asked, or None
        number, due         of the batch, and whether its answers are wanted
        mode, describes     how it is asked, and whether in two turns
        examples            for two turns: the prompts before padding
        skip_bad            whether it is asked without what cannot be

    Where nothing is left to be asked there is one batch without a number, since Lightning leaves out the ends of loops
    that are empty.

    Args:
        batches: all questions.
        processor: tokenises them.
        mode: in which they are asked.
        share: numbers of batches, rising, and whether their answers are due; see ``kvg.work.batch_files.share_of``.
        skip_bad: see above.
    """

    def __init__(
        self,
        batches: QuestionBatches,
        processor: AskingProcessor,
        mode: str,
        share: Sequence[tuple[int, bool]],
        skip_bad: bool,
    ) -> None:
        self.batches, self.processor, self.mode = batches, processor, mode
        self.share, self.skip_bad = share, skip_bad

    def __len__(self) -> int:
        """Batches of this process."""
        return max(1, len(self.share))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """See the class."""
        info = get_worker_info()
        share = self.share[info.id :: info.num_workers] if info else self.share
        if not self.share and (info is None or info.id == 0):
            yield {"number": None}
        dues = [(number, [due for _, due in group]) for number, group in groupby(share, key=lambda one: one[0])]
        found = self.batches.read([number for number, _ in dues])
        for (number, wanted), (_, going, samples) in zip(dues, found, strict=True):
            prepared = self._prepared(going, samples)
            for due in wanted:
                yield {**prepared, "number": number, "due": due}

    def _prepared(self, going: Pass, samples: Sequence[tuple[int, Sample]]) -> dict[str, Any]:
        examples: list[Example] = []
        questions: list[Question] = []
        faults: list[DataError | None] = []
        for row, sample in samples:
            try:
                question = going.question(sample)
                first = question.turns(self.mode, self.processor.prompt_format)[:1]
                examples.append(self.processor.encode_turns(question.sample, first))
            except DataError as error:
                faults.append(DataError(f"{going.set.path} row {row} ({sample.key})", error.field, error.remedy))
                continue
            questions.append(question)
            faults.append(None)
        if not examples:  # other processes count on this one to take the step, through the vision tower as well
            examples.append(self.processor.encode_turns(_blank(), ["-"]))
        known = [question.sample for question in questions]
        return {
            "inputs": self.processor.collate(examples, known, pad_left=True),
            "samples": Records(known),
            "questions": Records(questions),
            "faults": Records(faults),
            "mode": self.mode,
            "describes": self.mode == DESCRIBE,
            "examples": Records(examples if self.mode == DESCRIBE else ()),
            "skip_bad": self.skip_bad,
        }


def question_loader(prepared: PreparedQuestions, num_workers: int) -> DataLoader[dict[str, Any]]:
    """Gives the batches out in their order.

    Args:
        prepared: makes them.
        num_workers: processes that do; 0 makes them in this one.
    """
    return DataLoader(prepared, batch_size=None, num_workers=min(num_workers, len(prepared)))


def _blank() -> Sample:
    file = io.BytesIO()
    Image.new("RGB", (56, 56)).save(file, "PNG")
    return Sample("blank", file.getvalue(), 56, 56, "", "", (SceneObject("", (0.0, 0.0, 56.0, 56.0)),), 0)
