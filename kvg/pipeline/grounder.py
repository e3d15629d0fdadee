"""Finds an entity on a picture with a model in this process: ``kvg ground``, and ``kvg.Grounder`` in Python."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import torch
from PIL import Image

from kvg.backbones.answers import completions
from kvg.backbones.backbone import Backbone
from kvg.backbones.folders import PLAIN, trained_mode
from kvg.errors import ConfigError
from kvg.pipeline.grounding import Grounding, encoded_picture
from kvg.ranges import check_whole
from kvg.records import excerpt
from kvg.rl.rollout import rollout
from kvg.rl.sampling import SamplingSettings
from kvg.text.answer import read_answer
from kvg.text.box_codec import BoxCodec, ImageSize
from kvg.text.names import clean_name
from kvg.text.prompts import PROMPTS, prompt
from kvg.text.special_tokens import check_plain
from kvg.types import Completion

AUTO: Final = "auto"
MAX_NEW_TOKENS: Final = 512
_SPECIAL = re.compile(r"<\|[^<>|]*\|>")  # marks of names and boxes, and control tokens
_HALF_A_CHARACTER: Final = "�"  # what the tokenizer writes where the next token brings the rest


class Grounder:
    """A model that finds entities by name. Answers are greedy, so the same picture and name have the same answer.

    Args:
        checkpoint: a folder (``RUN/export``, LoRA adapters, any supported model), ``lab``, or a hub name. Only a hub
            name is looked up on the hub.
        mode: prompt mode; ``auto`` is the mode that the model was trained with, or ``direct`` if that is unknown.
        max_new_tokens: longest completion.
        min_pixels: smallest area of a resized picture; None = the checkpoint's.
        max_pixels: largest area; None = the checkpoint's.
        device: of torch; None = a GPU if there is one.

    Attributes:
        backbone: the model.
        mode: prompt mode.

    Raises:
        ConfigError: the model cannot be loaded, or a setting cannot work.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        mode: str = AUTO,
        max_new_tokens: int = MAX_NEW_TOKENS,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        device: str | None = None,
    ) -> None:
        check_whole("max_new_tokens", max_new_tokens, 1)
        self.mode = prompt_mode(str(checkpoint), mode)
        self.sampling = SamplingSettings(max_new_tokens, temperature=0.0)
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        backbone = Backbone(str(checkpoint), min_pixels=min_pixels, max_pixels=max_pixels)
        self.backbone = backbone.requires_grad_(False).eval().to(chosen)

    def ground(
        self,
        picture: str | Path | bytes | Image.Image,
        entity: str,
        on_text: Callable[[str], None] | None = None,
    ) -> Grounding:
        """Finds an entity on a picture.

        Args:
            picture: a path, the bytes of a file, or a PIL image. It is turned upright by its EXIF orientation.
            entity: a name, such as "Clumber Spaniel".
            on_text: is called with the text as it is written, without special tokens.

        Raises:
            ConfigError: the name is empty.
            DataError: the picture cannot be used, or the name holds a control token.
            TrainingError: the model's logits are not finite.
        """
        name = checked_entity(entity)
        origin, data = encoded_picture(picture)
        processor = self.backbone.processor
        text = prompt(name, self.mode, processor.prompt_format)
        example = processor.encode_question(origin, data, text)
        batch = processor.collate([example], [], pad_left=True).to(self.backbone.device)
        stream = None if on_text is None else _TextStream(self.backbone, on_text)
        out = rollout(self.backbone, batch, self.sampling, watch=stream)
        completion = completions(self.backbone, out, self.sampling.max_new_tokens)[0]
        size = processor.image_size(*processor.decode(data, origin).size)
        return read_grounding(completion, self.backbone.codec, size, name, origin, data)


def read_grounding(
    completion: Completion, codec: BoxCodec, size: ImageSize, entity: str, image: str, picture: bytes
) -> Grounding:
    """Reads a completion.

    Args:
        completion: of the model.
        codec: the model's box convention.
        size: both sizes of the picture.
        entity: name of the entity.
        image: name of the picture.
        picture: the file's bytes.
    """
    answer = read_answer(completion, codec, size)
    return Grounding(
        entity=entity,
        image=image,
        width=size.width,
        height=size.height,
        text=completion.text,
        rationale=answer.rationale,
        box_px=answer.box_px,
        finish_reason=completion.finish_reason,
        num_tokens=completion.num_tokens,
        picture=picture,
    )


def prompt_mode(checkpoint: str, mode: str) -> str:
    """The prompt mode to use, see ``Grounder``.

    Raises:
        ConfigError: there is no such mode, or the checkpoint's ``kvg.json`` is damaged.
    """
    if mode == AUTO:
        return trained_mode(checkpoint) or PLAIN
    if mode not in PROMPTS:
        raise ConfigError("mode", f"'{mode}' is not one of {', '.join((AUTO, *PROMPTS))}")
    return mode


def checked_entity(entity: str) -> str:
    """A name with single spaces.

    Raises:
        ConfigError: it is empty.
        DataError: it holds a control token or a tag.
    """
    name = clean_name(entity)
    if not name:
        raise ConfigError("entity", 'is empty; give a name, such as "Clumber Spaniel"')
    check_plain(name, excerpt(name), "entity")
    return name


def plain_text(text: str) -> str:
    """A completion as people read it, without special tokens.

    >>> plain_text("<think>1 <|box_start|>(5,10),(45,35)<|box_end|> grey")
    '<think>1 (5,10),(45,35) grey'
    """
    return _SPECIAL.sub("", text)


class _TextStream:
    """Turns the tokens of one completion to text, as they come."""

    def __init__(self, backbone: Backbone, on_text: Callable[[str], None]) -> None:
        self.backbone, self.on_text = backbone, on_text
        self.tokens: list[int] = []
        self.length = 0  # characters that were passed on

    def __call__(self, row: int, tokens: Sequence[int]) -> None:
        """Passes on the text that these tokens complete."""
        self.tokens += [token for token in tokens if token not in self.backbone.end_token_ids]
        text = plain_text(self.backbone.processor.tokenizer.decode(self.tokens))
        if len(text) > self.length and not text.endswith(_HALF_A_CHARACTER):
            self.on_text(text[self.length :])
            self.length = len(text)
