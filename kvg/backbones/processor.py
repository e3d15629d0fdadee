"""The weightless half of a backbone: samples to tokens and pictures, and those to batches.

Transformers' own ``Qwen2VLProcessor`` cannot be built without torchvision; this one composes a tokenizer with what a
family says of prompts and pictures, and works for every family.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from PIL import Image
from transformers import PreTrainedTokenizerBase

from kvg.backbones.chat_template import render_chat
from kvg.backbones.family import Family
from kvg.backbones.picture_settings import PatchSettings, PictureSettings
from kvg.batches import Batch, Example, Picture, Pictures
from kvg.errors import DataError
from kvg.pictures import read_rgb
from kvg.shards.schema import check_box, check_has_box
from kvg.text.box_codec import ImageSize
from kvg.text.completion import answer_first, write_completion
from kvg.text.prompts import fill_boxes, prompt
from kvg.text.special_tokens import ControlTokens
from kvg.types import Records, Sample


class ChatProcessor:
    """Tokenises samples in the conversation format of a family. Picklable, holds no weights.

    Args:
        tokenizer: the checkpoint's.
        family: of the model.
        settings: of pictures; those of the paper for Qwen2-VL by default.

    Raises:
        ConfigError: no picture can be resized into these areas.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, family: Family, settings: PictureSettings | None = None
    ) -> None:
        if tokenizer.chat_template is None:
            tokenizer.chat_template = family.chat_template
        self.tokenizer, self.family, self.codec = tokenizer, family, family.codec
        self.prompt_format = family.prompt_format
        self.pictures = family.picture_processor(settings or PatchSettings(max_pixels=401_408))
        self.image_token_id = int(tokenizer.convert_tokens_to_ids(family.image_token))
        self.pad_token_id = int(tokenizer.pad_token_id or 0)
        self.control_tokens = ControlTokens.of_tokenizer(tokenizer, (*family.prompt_format.marks, *self.codec.marks))

    # -- pictures --------------------------------------------------------------------------------------------------
    @property
    def min_pixels(self) -> int:
        """Smallest area of a resized picture."""
        return self.pictures.settings.min_pixels

    @property
    def max_pixels(self) -> int:
        """Largest area of a resized picture."""
        return self.pictures.settings.max_pixels

    def image_size(self, width: int, height: int) -> ImageSize:
        """Both sizes of a picture: as stored, and as the model gets it."""
        return self.pictures.image_size(width, height)

    def decode(self, image: bytes, key: str) -> Image.Image:
        """Decodes a picture.

        Args:
            image: an encoded JPEG or PNG.
            key: what errors call it.

        Raises:
            DataError: it does not decode, or has a shape that the model cannot take.
        """
        decoded = read_rgb(image, key)
        try:
            self.image_size(*decoded.size)
        except ValueError as error:
            remedy = f"{decoded.width}x{decoded.height} cannot be resized ({error}); crop it"
            raise DataError(key, "image", remedy) from error
        return decoded

    def open(self, sample: Sample) -> Image.Image:
        """Decodes the picture of a sample and checks it against the record.

        Raises:
            DataError: it does not decode, has another size than the record says or a shape that the model cannot take,
                or a box lies outside of it.
        """
        image = self.decode(sample.image, sample.key)
        if image.size != (sample.width, sample.height):
            sizes = f"the picture is {image.width}x{image.height}, the record says {sample.width}x{sample.height}"
            raise DataError(sample.key, "width, height", f"{sizes}; write the size of the stored picture")
        for number, item in enumerate(sample.objects):
            check_box(item.box_px, *image.size, sample.key, f"objects[{number}].box_px")
        return image

    def picture(self, image: Image.Image, source: bytes = b"") -> Picture:
        """See ``kvg.backbones.picture_processor.PictureProcessor.picture``."""
        return self.pictures.picture(image, source)

    # -- tokens ----------------------------------------------------------------------------------------------------
    def chat(self, *texts: str, num_images: int = 1) -> str:
        """The prompt in the model's chat format, with one unexpanded placeholder for each picture.

        Args:
            texts: the user's turn; or turns of the user and the model alternately, the user's first and last.
            num_images: pictures that stand at the start of the first.
        """
        return render_chat(self.tokenizer, texts, num_images)

    def ids(self, text: str) -> list[int]:
        """Token ids of a text, special tokens recognised, none added."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def expand(self, text: str, picture: Picture) -> str:
        """Puts all that stands for a picture in the place of the first placeholder."""
        spans = self.family.placeholders(picture)
        return text.replace(self.family.image_token, "".join(span * num for span, num in spans), 1)

    def _picture_ids(self, picture: Picture) -> list[int]:
        """The same as token ids, without hundreds of equal tokens to find in a text."""
        return [token for span, num in self.family.placeholders(picture) for token in self.ids(span) * num]

    def box_texts(self, sample: Sample) -> list[str]:
        """The boxes of all objects as this backbone writes them."""
        size = self.image_size(sample.width, sample.height)
        return [self.codec.encode(o.box_px, size) for o in sample.objects]

    def completion(self, sample: Sample, target: str) -> str:
        """What the model should say.

        Args:
            sample: a sample.
            target: ``rationale`` (think and answer), ``answer_first`` (answer and think), or ``answer`` (the box).
        """
        boxes = self.box_texts(sample)
        if target == "answer":
            return boxes[sample.target]
        if not sample.rationale:
            raise DataError(sample.key, "rationale", "it is empty; run `kvg-data rationalize` on these shards first")
        try:
            write = answer_first if target == "answer_first" else write_completion
            return write(fill_boxes(sample.rationale, boxes), boxes[sample.target])
        except DataError as error:
            raise DataError(sample.key, "rationale", f"{error.field}: {error.remedy}") from error

    def encode(self, sample: Sample, *, mode: str, target: str | None) -> Example:
        """See ``kvg.batches.Processor.encode``."""
        check_has_box(sample)  # of training, validation and rollouts, which reward or measure it
        picture = self.picture(self.open(sample), sample.image)
        completion = None if target is None else self.completion(sample, target)
        turns = [prompt(sample.entity, mode, self.prompt_format)]
        return self.encode_chat(sample.key, [picture], turns, completion, "entity, rationale")

    def encode_turns(self, sample: Sample, turns: Sequence[str]) -> Example:
        """A prompt of any text about the picture of a sample, which need not name the target.

        Args:
            sample: brings the picture.
            turns: see ``chat``.

        Raises:
            DataError: the picture cannot be used, see ``open``, or a text holds a control token.
        """
        return self.encode_chat(sample.key, [self.picture(self.open(sample), sample.image)], turns)

    def encode_question(self, key: str, image: bytes, text: str, completion: str | None = None) -> Example:
        """An example of any text with a picture.

        Args:
            key: what errors call it.
            image: an encoded JPEG or PNG.
            text: the whole user's turn.
            completion: what the model should say; None for a prompt alone.

        Raises:
            DataError: the picture cannot be used, or a text holds a control token.
        """
        return self.encode_chat(key, [self.picture(self.decode(image, key), image)], [text], completion)

    def encode_chat(
        self,
        key: str,
        pictures: Sequence[Picture],
        turns: Sequence[str],
        completion: str | None = None,
        field: str = "text",
    ) -> Example:
        """An example of any conversation about any number of pictures, which stand at its start.

        Args:
            key: what errors call it.
            pictures: in order.
            turns: see ``chat``.
            completion: what the model should say; None for a prompt alone.
            field: what errors call the texts.

        Raises:
            DataError: a text holds a control token.
        """
        for text in (*turns, completion or ""):
            self.control_tokens.check(text, key, field)
        head, at = self.ids(self.chat(*turns, num_images=len(pictures))), 0
        for picture in pictures:
            if self.image_token_id in head[at:]:
                own, at = self._picture_ids(picture), head.index(self.image_token_id, at)
                head[at : at + 1] = own
                at += len(own)
        answer = [] if completion is None else self.ids(self.family.answer_start + completion + self.family.turn_end)
        if (head + answer).count(self.image_token_id) != sum(picture.num_tokens for picture in pictures):
            raise DataError(key, field, f"may not hold {self.family.image_token}; remove it")
        return _example(head, answer, pictures)

    def begun(self, example: Example, start: str, key: str) -> Example:
        """A prompt whose answer has begun with a given text; the model continues it.

        Args:
            example: a prompt alone.
            start: start of the answer.
            key: what errors call it.

        Raises:
            DataError: the text holds a control token.
        """
        self.control_tokens.check(start, key, "start")
        ids = torch.tensor(self.ids(start))
        labels = torch.full_like(ids, -100)
        return Example(torch.cat([example.input_ids, ids]), torch.cat([example.labels, labels]), example.pictures)

    def encode_text(self, question: str | None, completion: str) -> Example:
        """A text-only example: a question with its answer, or running text that is learnt from its start.

        Raises:
            DataError: a text holds a control token.
        """
        for text in (question or "", completion):
            self.control_tokens.check(text, "text", "prompt, completion")
        head = self.ids(self.family.document_start if question is None else self.chat(question, num_images=0))
        start = "" if question is None else self.family.answer_start
        return _example(head, self.ids(start + completion + self.family.turn_end))

    def collate(self, examples: Sequence[Example], samples: Iterable[Sample], *, pad_left: bool = False) -> Batch:
        """See ``kvg.batches.Processor.collate``. Examples may have one picture, several or none."""
        length = max(len(example.input_ids) for example in examples)
        shape = (len(examples), length)
        ids, labels = torch.full(shape, self.pad_token_id), torch.full(shape, -100)
        mask = torch.zeros(shape, dtype=torch.long)
        for row, example in enumerate(examples):
            num = len(example.input_ids)
            span = slice(length - num, length) if pad_left else slice(0, num)
            ids[row, span], labels[row, span], mask[row, span] = example.input_ids, example.labels, 1
        return Batch(ids, mask, labels, Records(samples), Pictures.pack([example.pictures for example in examples]))


def _example(prompt_ids: list[int], answer: list[int], pictures: Sequence[Picture] = ()) -> Example:
    labels = torch.tensor([-100] * len(prompt_ids) + answer)
    return Example(torch.tensor(prompt_ids + answer), labels, tuple(pictures))
