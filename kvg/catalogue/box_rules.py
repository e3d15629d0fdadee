"""Settings of the ``box`` command, and the rules that reject a box."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from kvg.catalogue.entry import Entry
from kvg.errors import ConfigError, DataError
from kvg.text.box_codec import BoxCodec, ImageSize
from kvg.text.prompts import question
from kvg.types import Box

MIN_TOKENS: Final = 4  # least number of visual tokens of a picture that is sent to a model
BORDER: Final = 0.01  # a box touches a border if its distance is at most this share of the side
# Each fault begins with one of these texts. So faults can be counted in the messages of any client.
RULES: Final = {
    "unreadable": "no box can be read",
    "empty": "the box has no area",
    "border": "the box touches all four borders",
    "small": "the box is too small",
    "large": "the box is too large",
    "thin": "the box is too thin",
}
UNANSWERED: Final = "unanswered"
OWN: Final = ("alpha", "given", "picture")  # values of ``box_from`` for boxes that do not come from a model
_CODEC: Final = {"class_path": "kvg.text.box_codec.RelativeCodec"}
_BLANK = re.compile(r"\{(entity|category)\}")


@dataclass(frozen=True)
class BoxSettings:
    """Section ``box`` of a project file.

    Attributes:
        client: ``{class_path, init_args}`` of the client of the first model.
        codec: ``{class_path, init_args}`` of its box convention.
        question: text of the question; ``{entity}`` and ``{category}`` are filled in.
        second: client of another model that checks the boxes of the first model; None for no check.
        second_codec: box convention of the second model; by default that of the first.
        second_question: question for the second model; by default that of the first.
        samples: number of answers of the first model; more than one is useful only if the model samples.
        agreement: minimum IoU of the first answer's box with every other box.
        max_attempts: maximum number of attempts; the model is queried again if its answer breaks a rule.
        max_pixels: maximum size of a sent picture, in pixels. The model must not shrink the picture further:
            boxes in absolute pixels would be wrong.
        size_multiple: sides of sent pictures are multiples of this. It is the side of a visual token in pixels: 28
            for Qwen2-VL and Qwen2.5-VL, 32 for Qwen3-VL. Then the model does not resize the picture.
        min_area: minimum share of the picture that a box covers.
        max_area: maximum share.
        max_aspect: maximum ratio of the longer side to the shorter side.
        review: ``model`` shows only boxes of models on the review page; ``all`` also shows given boxes and boxes
            of cut-outs.
    """

    client: Mapping[str, Any] | None = None
    codec: Mapping[str, Any] = field(default_factory=lambda: _CODEC)
    question: str = question("{entity}")
    second: Mapping[str, Any] | None = None
    second_codec: Mapping[str, Any] | None = None
    second_question: str | None = None
    samples: int = 1
    agreement: float = 0.7
    max_attempts: int = 2
    max_pixels: int = 401_408
    size_multiple: int = 28
    min_area: float = 0.01
    max_area: float = 0.98
    max_aspect: float = 8.0
    review: str = "model"

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ConfigError: a value is outside its range.
        """
        for name in ("samples", "max_attempts", "size_multiple", "max_pixels"):
            least = MIN_TOKENS * self.size_multiple**2 if name == "max_pixels" else 1
            if type(getattr(self, name)) is not int or getattr(self, name) < least:
                raise ConfigError(f"box.{name}", f"{getattr(self, name)!r} is not a whole number of at least {least}")
        if not 0 <= self.agreement <= 1:
            raise ConfigError("box.agreement", f"{self.agreement} is not an IoU; give 0 to 1")
        if not 0 < self.min_area < self.max_area <= 1:
            limits = f"{self.min_area} and {self.max_area} are not 0 < min_area < max_area <= 1"
            raise ConfigError("box.min_area, max_area", limits)
        if not self.max_aspect > 1:
            raise ConfigError("box.max_aspect", f"{self.max_aspect} allows squares at most; give more than 1")
        if self.review not in ("model", "all"):
            raise ConfigError("box.review", f"'{self.review}' is neither model nor all")
        for name in ("question", "second_question"):
            text = getattr(self, name)
            if name == "second_question" and text is None:
                continue
            if not isinstance(text, str) or not _BLANK.search(text):
                raise ConfigError(f"box.{name}", f"{text!r} lacks a placeholder; add {{entity}} or {{category}}")


def model_name(client: Mapping[str, Any]) -> str:
    """Returns the name of a model for files and messages: its name on a server, else its checkpoint, else its class.

    >>> model_name({"class_path": "kvg.inference.server.Server", "init_args": {"model": "Qwen2-VL-7B"}})
    'Qwen2-VL-7B'
    """
    init = client.get("init_args") or {}
    name = init.get("model") or init.get("backbone") or ""
    if isinstance(name, Mapping):
        name = (name.get("init_args") or {}).get("checkpoint", "")
    return str(name) if name not in ("", *OWN) else str(client.get("class_path", "")).rpartition(".")[2]


def wording(text: str, entry: Entry) -> str:
    """Replaces the placeholders of a question. Replaces them once only, because a name may contain braces.

    >>> wording("{entity}?", Entry("s", "r", "{category}", "bird", 1, 1, "", ""))
    '{category}?'
    """
    return _BLANK.sub(lambda blank: str(getattr(entry, blank[1])), text)


def sent_size(width: int, height: int, max_pixels: int, multiple: int = 28) -> ImageSize:
    """Returns the stored size of a picture and a size to send it in that the model does not resize.

    Args:
        width: width of the stored picture, in pixels.
        height: height of the stored picture, in pixels.
        max_pixels: see ``BoxSettings``.
        multiple: see ``BoxSettings.size_multiple``.

    >>> sent_size(1000, 500, 401_408)  # 35.7 and 17.9 tokens are 36 and 18: 508,032 pixels; shrunk by 1.116
    ImageSize(width=1000, height=500, resized_width=896, resized_height=448)
    """
    across, down = (max(1, round(side / multiple)) * multiple for side in (width, height))
    if across * down > max_pixels:
        by = math.sqrt(width * height / max_pixels)
        across, down = (max(1, math.floor(side / by / multiple)) * multiple for side in (width, height))
    elif across * down < MIN_TOKENS * multiple**2:
        by = math.sqrt(MIN_TOKENS * multiple**2 / (width * height))
        across, down = (math.ceil(side * by / multiple) * multiple for side in (width, height))
    return ImageSize(width, height, across, down)


def read_box(text: str, size: ImageSize, codec: BoxCodec, settings: BoxSettings) -> Box:
    """Reads the box of an answer, in pixels of the stored picture.

    Raises:
        DataError: the answer contains no box, or its box breaks a rule.
    """
    box = codec.decode(text, size)
    if box is None:
        raise DataError("answer", "box", f"{RULES['unreadable']} in {text[:120]!r}")
    rule, why = broken_rule(box, size.width, size.height, settings)
    if rule:
        raise DataError("answer", "box", f"{RULES[rule]}{why}")
    return box


def broken_rule(box: Box, width: int, height: int, settings: BoxSettings) -> tuple[str, str]:
    """Returns the first of ``RULES`` that a box breaks, and details; two empty texts if it breaks none."""
    x1, y1, x2, y2 = box
    across, down = x2 - x1, y2 - y1
    if not (across > 0 and down > 0):
        return "empty", f" ({x1:g}, {y1:g}, {x2:g}, {y2:g})"
    rims = (x1 / width, y1 / height, (width - x2) / width, (height - y2) / height)
    share, aspect = across * down / (width * height), max(across, down) / min(across, down)
    if max(rims) <= BORDER:
        return "border", ""
    if share < settings.min_area:
        return "small", f" ({share:.2%} of the picture, less than min_area {settings.min_area:g})"
    if share > settings.max_area:
        return "large", f" ({share:.2%} of the picture, more than max_area {settings.max_area:g})"
    if aspect > settings.max_aspect:
        return "thin", f" (sides as 1 to {aspect:.1f}, more than max_aspect {settings.max_aspect:g})"
    return "", ""


def named_fault(faults: Sequence[str]) -> tuple[str, str]:
    """Returns the rule that the last fault names, and the text of the fault from that rule on."""
    text = faults[-1] if faults else "no answer came"
    # The fault quotes the answer after the rule, so the first match is the rule.
    first_match = min(((text.find(start), rule) for rule, start in RULES.items() if start in text), default=None)
    return (UNANSWERED, text) if first_match is None else (first_match[1], text[first_match[0] :])
