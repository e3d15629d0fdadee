"""The weightless half of a Qwen-VL backbone: pictures to patches, samples to tokens, tokens to batches.

Transformers' own ``Qwen2VLProcessor`` cannot be built without torchvision, and its image part costs several times the
JPEG decode; this one is numpy on top of PIL and agrees with it exactly (tests/backbones).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from kvg.backbones.chat_template import CHAT_TEMPLATE, IMAGE_TOKEN, TURN_END, render_chat
from kvg.backbones.picture_settings import PictureSettings, check_areas
from kvg.errors import DataError
from kvg.pictures import as_rgb, read_rgb
from kvg.shards.schema import check_box
from kvg.text.box_codec import BoxCodec, ImageSize
from kvg.text.completion import write_completion
from kvg.text.prompts import fill_boxes, prompt
from kvg.text.special_tokens import ControlTokens
from kvg.types import Batch, Example, Records, Sample


class QwenVLProcessor:
    """Tokenises samples for Qwen2-VL, Qwen2.5-VL and their like. Picklable, holds no weights.

    Args:
        tokenizer: the checkpoint's.
        codec: its box convention.
        min_pixels: smallest area of the resized image.
        max_pixels: largest area of the resized image; 401408 in the paper.
        patch_size: side of one patch in pixels.
        merge_size: patches per side of one visual token.
        temporal_patch_size: frames per patch; a still image is repeated.
        image_mean: per channel, of values in 0-1.
        image_std: per channel.

    Raises:
        ConfigError: no picture can be resized into these areas.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        codec: BoxCodec,
        min_pixels: int = 56 * 56,
        max_pixels: int = 401_408,
        patch_size: int = 14,
        merge_size: int = 2,
        temporal_patch_size: int = 2,
        image_mean: Sequence[float] = (0.48145466, 0.4578275, 0.40821073),
        image_std: Sequence[float] = (0.26862954, 0.26130258, 0.27577711),
    ) -> None:
        check_areas(PictureSettings(min_pixels, max_pixels, patch_size, merge_size))
        if tokenizer.chat_template is None:
            tokenizer.chat_template = CHAT_TEMPLATE
        self.tokenizer, self.codec = tokenizer, codec
        self.min_pixels, self.max_pixels = min_pixels, max_pixels
        self.patch_size, self.merge_size, self.temporal_patch_size = patch_size, merge_size, temporal_patch_size
        self.image_mean, self.image_std = tuple(image_mean), tuple(image_std)
        mean, std = (torch.tensor(values, dtype=torch.float64) for values in (image_mean, image_std))
        self._scale, self._shift = (1 / (255 * std)).float().view(3, 1, 1), (mean / std).float().view(3, 1, 1)
        self.image_token_id = int(tokenizer.convert_tokens_to_ids(IMAGE_TOKEN))
        self.pad_token_id = int(tokenizer.pad_token_id or 0)
        self.control_tokens = ControlTokens.of_tokenizer(tokenizer)

    # -- pictures --------------------------------------------------------------------------------------------------
    def image_size(self, width: int, height: int) -> ImageSize:
        """Both sizes of a picture: as stored, and as this processor resizes it."""
        factor = self.patch_size * self.merge_size
        resized_h, resized_w = smart_resize(height, width, factor, self.min_pixels, self.max_pixels)
        return ImageSize(width, height, resized_w, resized_h)

    def patches(self, image: Image.Image) -> tuple[Tensor, Tensor]:
        """Cuts a picture into patches, which stay bytes: an eighth of what the tower takes has to travel and be kept.

        Returns:
            ``patches`` ``[P, 3 * patch * patch]`` uint8 and ``image_grid_thw`` ``[3]``.
        """
        size = self.image_size(*image.size)
        image = as_rgb(image)
        if image.size != (size.resized_width, size.resized_height):
            image = image.resize((size.resized_width, size.resized_height), Image.Resampling.BICUBIC)
        p, m = self.patch_size, self.merge_size
        rows, columns = size.resized_height // p, size.resized_width // p
        cut = np.array(image).reshape(rows // m, m, p, columns // m, m, p, 3).transpose(0, 3, 1, 4, 6, 2, 5)
        return torch.from_numpy(cut.reshape(rows * columns, -1)), torch.tensor([1, rows, columns])

    def pixel_values(self, patches: Tensor) -> Tensor:
        """What the vision tower takes: patches normalised, and repeated as the frames of a still picture.

        Args:
            patches: ``[P, 3 * patch * patch]`` uint8, on any device.

        Returns:
            ``[P, 3 * temporal * patch * patch]`` float32.
        """
        scale, shift = self._scale.to(patches.device), self._shift.to(patches.device)
        # In place, since most of the time goes into memory that is touched for the first time.
        pixels = patches.view(len(patches), 3, 1, -1).to(torch.float32, copy=True).mul_(scale).sub_(shift)
        return pixels.expand(-1, -1, self.temporal_patch_size, -1).reshape(len(patches), -1)

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
            found = f"the picture is {image.width}x{image.height}, the record says {sample.width}x{sample.height}"
            raise DataError(sample.key, "width, height", f"{found}; write the size of the stored picture")
        for number, thing in enumerate(sample.objects):
            check_box(thing.box_px, *image.size, sample.key, f"objects[{number}].box_px")
        return image

    # -- tokens ----------------------------------------------------------------------------------------------------
    def chat(self, *texts: str, image: bool = True) -> str:
        """The prompt in the model's chat format, with one unexpanded image placeholder where there is an image.

        Args:
            texts: the user's turn; or turns of the user and the model alternately, the user's first and last.
            image: whether a picture stands at the start of the first.
        """
        return render_chat(self.tokenizer, texts, image)

    def ids(self, text: str) -> list[int]:
        """Token ids of a text, special tokens recognised, none added."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def expand(self, text: str, grid_thw: Tensor) -> str:
        """Repeats the image placeholder once for each merged visual token."""
        return text.replace(IMAGE_TOKEN, IMAGE_TOKEN * (int(grid_thw.prod()) // self.merge_size**2), 1)

    def box_texts(self, sample: Sample) -> list[str]:
        """The boxes of all objects as this backbone writes them."""
        size = self.image_size(sample.width, sample.height)
        return [self.codec.encode(o.box_px, size) for o in sample.objects]

    def completion(self, sample: Sample, target: str) -> str:
        """What the model should say: ``rationale`` = think and answer, ``answer`` = the box alone."""
        boxes = self.box_texts(sample)
        if target == "answer":
            return boxes[sample.target]
        if not sample.rationale:
            raise DataError(sample.key, "rationale", "it is empty; run `kvg-data rationalize` on these shards first")
        try:
            return write_completion(fill_boxes(sample.rationale, boxes), boxes[sample.target])
        except DataError as error:
            raise DataError(sample.key, "rationale", f"{error.field}: {error.remedy}") from error

    def encode(self, sample: Sample, *, mode: str, target: str | None) -> Example:
        """See ``kvg.types.Processor.encode``."""
        image = self.open(sample)
        completion = None if target is None else self.completion(sample, target)
        return self._pictured(
            sample.key, "entity, rationale", self.patches(image), [prompt(sample.entity, mode)], completion
        )

    def encode_turns(self, sample: Sample, turns: Sequence[str]) -> Example:
        """A prompt of any text about the picture of a sample, whose target need not be asked for.

        Args:
            sample: brings the picture.
            turns: see ``chat``.

        Raises:
            DataError: the picture cannot be used, see ``open``, or a text holds a control token.
        """
        return self._pictured(sample.key, "text", self.patches(self.open(sample)), turns, None)

    def further_turn(self, key: str, asked: Example, turns: Sequence[str]) -> Example:
        """The prompt of a longer conversation about a picture that has been cut into patches.

        Args:
            key: what errors call it.
            asked: the prompt before.
            turns: all, see ``chat``.

        Raises:
            DataError: a text holds a control token.
        """
        return self._pictured(key, "text", (asked["patches"], asked["image_grid_thw"]), turns, None)

    def encode_question(self, key: str, image: bytes, asked: str, completion: str | None = None) -> Example:
        """An example of any text with a picture.

        Args:
            key: what errors call it.
            image: an encoded JPEG or PNG.
            asked: the whole text of the user's turn.
            completion: what the model should say; None for a prompt alone.

        Raises:
            DataError: the picture cannot be used, or a text holds a control token.
        """
        return self._pictured(key, "text", self.patches(self.decode(image, key)), [asked], completion)

    def _pictured(
        self, key: str, field: str, picture: tuple[Tensor, Tensor], turns: Sequence[str], completion: str | None
    ) -> Example:
        for text in (*turns, completion or ""):
            self.control_tokens.check(text, key, field)
        patches, grid = picture
        head = self.ids(self.chat(*turns))
        if self.image_token_id in head:  # the same as tokenising ``expand``, without hundreds of equal tokens to find
            at = head.index(self.image_token_id)
            head[at : at + 1] = [self.image_token_id] * (int(grid.prod()) // self.merge_size**2)
        answer = [] if completion is None else self.ids(completion + TURN_END)
        if (head + answer).count(self.image_token_id) != len(patches) // self.merge_size**2:
            raise DataError(key, field, f"may not hold {IMAGE_TOKEN}; remove it")
        return {**self._example(head, answer), "patches": patches, "image_grid_thw": grid}

    def encode_text(self, asked: str | None, completion: str) -> Example:
        """A text-only example: a question with its answer, or running text that is learnt from its start.

        Raises:
            DataError: a text holds a control token.
        """
        for text in (asked or "", completion):
            self.control_tokens.check(text, "text", "prompt, completion")
        head = self.ids("<|endoftext|>" if asked is None else self.chat(asked, image=False))
        return self._example(head, self.ids(completion + TURN_END))

    def _example(self, asked: list[int], answer: list[int]) -> Example:
        return {
            "input_ids": torch.tensor(asked + answer),
            "labels": torch.tensor([-100] * len(asked) + answer),
        }

    def collate(self, examples: Sequence[Example], samples: Sequence[Sample], *, pad_left: bool = False) -> Batch:
        """See ``kvg.types.Processor.collate``. Examples without a picture may be mixed in."""
        length = max(len(e["input_ids"]) for e in examples)
        shape = (len(examples), length)
        ids, labels = torch.full(shape, self.pad_token_id), torch.full(shape, -100)
        mask = torch.zeros(shape, dtype=torch.long)
        for row, example in enumerate(examples):
            num = len(example["input_ids"])
            span = slice(length - num, length) if pad_left else slice(0, num)
            ids[row, span], labels[row, span], mask[row, span] = example["input_ids"], example["labels"], 1
        batch: Batch = {"input_ids": ids, "labels": labels, "attention_mask": mask, "samples": Records(samples)}
        if pictures := [e for e in examples if "patches" in e]:
            batch["patches"] = torch.cat([e["patches"] for e in pictures])
            batch["image_grid_thw"] = torch.stack([e["image_grid_thw"] for e in pictures])
        return batch
