"""One question of an evaluation: the box of a named object, or a multiple-choice question."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from kvg.errors import DataError
from kvg.evaluation.records.fields import DIGITS
from kvg.evaluation.records.prediction import Prediction
from kvg.text.box_codec import BoxCodec, ImageSize, to_norm
from kvg.text.prompts import DESCRIBE, PUBLISHED, PromptFormat, choice_prompt, describe_prompts, prompt, with_card
from kvg.types import Box, Sample


@dataclass(frozen=True)
class Question:
    """One question of an evaluation.

    A sample with ``options`` is a multiple-choice question; any other is a box question.

    Attributes:
        sample: the picture, its objects and the target.
        set_name: name of its set.
        artifact: kind of the corruption; '' for a clean picture.
        strength: of the corruption.
    """

    sample: Sample
    set_name: str = ""
    artifact: str = ""
    strength: int = 0

    @property
    def options(self) -> list[str]:
        """Names to choose from; empty for a box question."""
        return list(self.sample.options)

    @property
    def image_mark(self) -> str:
        """Checksum of the picture, as prediction lines contain it."""
        return hashlib.sha256(self.sample.image).hexdigest()[:16]

    def boxes(self, where: str) -> list[Box]:
        """The boxes of all objects on the 0-1000 grid, as in prediction lines.

        Args:
            where: file and row, for messages.

        Raises:
            DataError: a box lies within 0-1 there, where it could be mistaken for a box in another unit.
        """
        sample = self.sample
        plain = ImageSize(sample.width, sample.height, sample.width, sample.height)
        boxes = []
        for number, item in enumerate(sample.objects):
            x1, y1, x2, y2 = to_norm(item.box_px, plain)
            box = round(x1, DIGITS), round(y1, DIGITS), round(x2, DIGITS), round(y2, DIGITS)
            if max(box) <= 1:
                remedy = f"{list(item.box_px)} is less than a thousandth of its picture; correct it"
                raise DataError(where, f"objects[{number}].box_px", remedy)
            boxes.append(box)
        return boxes

    def turns(self, mode: str, form: PromptFormat = PUBLISHED, card: bool = False) -> tuple[str, ...]:
        """The user's turns: one, or two in mode ``describe``, with the model's description between them.

        Args:
            mode: prompt mode.
            form: marks around names.
            card: whether the traits of the entity stand before the question.

        Raises:
            DataError: its traits are not known.
        """
        if card:
            traits = self.sample.objects[self.sample.target].description
            if not traits:
                raise DataError(self.sample.key, "traits", "are not known of its entity; leave data.card false")
            first, *rest = self.turns(mode, form)
            return (with_card(self.sample.entity, traits, first), *rest)
        if self.options:
            return (choice_prompt(self.sample.category, self.options, mode),)
        if mode == DESCRIBE:
            return describe_prompts(self.sample.entity, form)
        return (prompt(self.sample.entity, mode, form),)

    def line(
        self,
        answer: str,
        mode: str,
        codec: BoxCodec,
        size: ImageSize,
        num_tokens: int | None = None,
        finish_reason: str | None = None,
        description: str | None = None,
    ) -> dict[str, Any]:
        """The line of ``predictions.jsonl``, scored by the strict parser; see ``kvg.evaluation.records.prediction``.

        Args:
            answer: the model's text.
            mode: prompt mode.
            codec: the model's box convention.
            size: both sizes of the picture.
            num_tokens: length of the answer.
            finish_reason: ``stop`` or ``length``.
            description: the model's first turn, in mode ``describe``.
        """
        sample = self.sample
        record: dict[str, Any] = {
            "key": sample.key,
            "set": self.set_name,
            "question_id": sample.question_id or None,
            "category": sample.category,
            "split": sample.split,
            "knowledge": sample.knowledge,
            "entity": sample.entity,
            "mode": mode,
            "artifact": self.artifact or None,
            "strength": self.strength or None,
            "answer": answer,
            "description": description,
            "num_tokens": num_tokens,
            "finish_reason": finish_reason,
            "image": self.image_mark,
            "codec": codec.name,
            "size": [size.width, size.height, size.resized_width, size.resized_height],
        }
        if self.options:
            record |= {"options": self.options, "right": self.options.index(sample.entity)}
        elif sample.has_box:
            boxes = [list(box) for box in self.boxes(sample.key)]
            record |= {"gt_bbox": [boxes[sample.target]], "target": sample.target}
            record["objects"] = [
                {"entity": o.entity, "box": box, **({"note": o.description} if o.traits else {})}
                for o, box in zip(sample.objects, boxes, strict=True)
            ]
        record = {name: value for name, value in record.items() if value is not None}
        if not sample.has_box:
            record["gt_bbox"] = None  # says that it is not known, and was not forgotten
        return Prediction.from_line(record, sample.key).to_line()
