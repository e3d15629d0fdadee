"""Writes shards whose rationales are changed on purpose, or are a model's own right answers."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kvg.errors import DataError
from kvg.evaluation.diagnostics.pointing import object_at
from kvg.evaluation.diagnostics.reasoning import rationale_of
from kvg.evaluation.records.prediction import Prediction, read_predictions
from kvg.evaluation.records.scoring import PARSERS, STRICT
from kvg.pipeline.rationale_shards import RationaleShard
from kvg.rationales.variants import rationales
from kvg.shards.reader import SamplePart
from kvg.text.box_refs import with_placeholders

_BOX_MARKS = re.compile(r"<\|box_(?:start|end)\|>")


@dataclasses.dataclass(frozen=True)
class WriteVariant:
    """Writes the rationales of a unit in one variant.

    Attributes:
        out: folder of the new set.
        variant: see ``kvg.rationales.variants``.
        seed: decides all choices.
    """

    out: Path
    variant: str
    seed: int

    def __call__(self, unit: tuple[int, SamplePart]) -> dict[str, Any]:
        """Writes the shard of a unit (number, part)."""
        number, part = unit
        shard = RationaleShard(self.out, number)
        samples = [sample for _, sample in part.read(shard.tally)]
        try:
            for sample, text in zip(samples, rationales(samples, self.variant, self.seed), strict=True):
                shard.write(dataclasses.replace(sample, rationale=text))
            return shard.close()
        except BaseException:
            shard.discard()
            raise


@dataclasses.dataclass(frozen=True)
class WriteOwnAnswers:
    """Writes the rationales with which a model was right (rejection sampling); other samples are set aside.

    Attributes:
        out: folder of the new set.
        answers: folder or file of the model's predictions on the same samples.
    """

    out: Path
    answers: Path

    def __call__(self, unit: tuple[int, SamplePart]) -> dict[str, Any]:
        """Writes the shard of a unit (number, part)."""
        number, part = unit
        by_key: Mapping[str, Prediction] = {case.key: case for case in read_predictions(self.answers)}
        shard = RationaleShard(self.out, number)
        try:
            for _, sample in part.read(shard.tally):
                case = by_key.get(sample.key)
                try:
                    text = own_rationale(case) if case else ""
                except DataError as error:
                    shard.set_aside(sample, [f"{error.field}: {error.remedy}"])
                    continue
                if text:
                    shard.write(dataclasses.replace(sample, rationale=text))
                else:
                    shard.set_aside(sample, ["answer: is wrong, or without a rationale"])
            return shard.close()
        except BaseException:
            shard.discard()
            raise


def own_rationale(case: Prediction) -> str:
    """Returns the rationale of a right answer with ``<box:N>`` for the boxes of objects; '' if the answer is wrong.

    Raises:
        DataError: it quotes a box that is the box of no object.
    """
    if not case.correct:
        return ""

    def place(written: str) -> int:
        box, _ = PARSERS[STRICT](written, case.raw, case.id)
        number = object_at(box, case.objects)
        if number is None:
            raise DataError(case.id, "boxes", f"{written} is the box of no object")
        return number

    return with_placeholders(_BOX_MARKS.sub("", rationale_of(case)), place)
