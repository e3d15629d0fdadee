"""Converts the questions of an evaluation to requests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kvg.errors import DataError
from kvg.evaluation.records.forced_starts import ForcedStart
from kvg.evaluation.records.question import Question
from kvg.evaluation.records.question_sets import Pass, QuestionBatches
from kvg.inference.request import Request
from kvg.text.prompts import DESCRIBE, PromptFormat
from kvg.types import Sample


@dataclass(frozen=True, kw_only=True)
class QuestionRequest(Request):
    """A request with its question.

    Attributes:
        question: the question.
        where: file and row, for messages.
        forced: given start of the answer with what it was made of; None where the answer is free.
    """

    question: Question
    where: str
    forced: ForcedStart | None = None

    def fault(self, error: DataError) -> DataError:
        """The error with file and row."""
        return DataError(self.where, error.field, error.remedy)


@dataclass(frozen=True)
class QuestionRequests:
    """The requests of ``QuestionBatches``; see ``kvg.inference.request.RequestBatches``.

    Attributes:
        questions: all questions of an evaluation.
        mode: prompt mode.
        form: how names are marked.
    """

    questions: QuestionBatches
    mode: str
    form: PromptFormat

    @property
    def two_turns(self) -> bool:
        """Whether the mode describes the picture first."""
        return self.mode == DESCRIBE

    def read(self, numbers: Sequence[int]) -> Iterator[tuple[int, Sequence[Request | DataError]]]:
        """See ``RequestBatches.read``."""
        for number, one_pass, samples in self.questions.read(numbers):
            yield number, [self._request(one_pass, row, sample) for row, sample in samples]

    def _request(self, one_pass: Pass, row: int, sample: Sample) -> QuestionRequest | DataError:
        where = f"{one_pass.set.path} row {row} ({sample.key})"
        try:
            question = one_pass.question(sample)
            forced = self.questions.start_of(question)
            first, *rest = question.turns(self.mode, self.form, self.questions.card)
        except DataError as error:
            return DataError(where, error.field, error.remedy)
        sample = question.sample
        return QuestionRequest(
            sample.key,
            first,
            sample.image,
            second_turn="".join(rest),
            keep_truncated=True,
            sample=sample,
            start=forced.text if forced else "",
            question=question,
            forced=forced,
            where=where,
        )
