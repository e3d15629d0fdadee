"""A big model as the writer of rationales: what it is told and asked, and what of its words can be used.

The paper (v3, appendix B.1) shows the teacher the composite, all entities with their boxes and the box of the one that
is meant, asks how one would find it, and gives three notes. It describes no check of the answers; this one takes an
answer apart and refuses what would teach the wrong thing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from kvg.boxes import iou
from kvg.errors import ConfigError, DataError
from kvg.text.box_codec import BoxCodec, ImageSize
from kvg.text.prompts import REF_END, REF_START
from kvg.types import Box, Sample

PARTS = ("Plan", "Look", "Compare", "Conclusion")
UNKNOWN = "[Unknown]"  # what an object without a name is called

_TITLES = {
    "Plan": r"plan(?:ning)?",
    "Look": r"look|visual analysis|analysis",
    "Compare": r"compar(?:e|ison)",
    "Conclusion": r"conclu(?:sion|de)",
}
_HEADINGS = re.compile(
    r"(?:^|(?<=[.;:!?)>\]\n]))[ \t]*[#*\d. \t]*(?:"
    + "|".join(f"(?P<{part}>{words})" for part, words in _TITLES.items())
    + r")\b[ \t]*\**[ \t]*:[ \t]*\**",
    re.IGNORECASE | re.MULTILINE,
)
_LEAKS = re.compile(
    r"\b(?:(?:given|provided|supplied|stated|known|true|correct) (?:bounding )?box(?:es)?"
    r"|(?:bounding )?box(?:es)? (?:is|are|was|were|that is|which is) (?:already )?(?:given|provided|supplied|known)"
    r"|as (?:given|provided|stated|told)|i (?:was|am|have been) (?:told|given)|you (?:told|gave|provided|have given)"
    r"|ground[- ]truth|the (?:hint|prompt|notes?) (?:says|said|states|tells))\b",
    re.IGNORECASE,
)
_BOX = re.compile(
    r"(?:<\|object_ref_start\|>[^<]*<\|object_ref_end\|>\s*)?(?:<\|box_start\|>)?\s*"
    r"(?:\(\s*-?[\d.]+\s*,\s*-?[\d.]+\s*\)\s*,\s*\(\s*-?[\d.]+\s*,\s*-?[\d.]+\s*\)"
    r"|[\[(]\s*-?[\d.]+(?:\s*,\s*-?[\d.]+){3}\s*[\])])"
    r"\s*(?:<\|box_end\|>)?"
)
_PLACEHOLDER = re.compile(r"<box:(\d+)>")
_NUMBERED = re.compile(r"\b(\d{1,2})\b[^<>\d]{0,24}<box:(\d+)>")
_OBJECT = re.compile(r"\b(?:object|number|no\.|#)\s*(\d{1,2})\b", re.IGNORECASE)
_TAGS = re.compile(r"</?(?:think|answer)>|<\|[^|<>]*\|>")


@dataclass(frozen=True)
class LessonSettings:
    """What a rationale has to be.

    Attributes:
        min_iou: a quoted box means the object that it overlaps most, by at least this.
        min_words: shorter ones are refused.
        max_words: and longer ones.
        all_boxes: whether the box of every object has to be quoted, not only that of the target.
    """

    min_iou: float = 0.5
    min_words: int = 20
    max_words: int = 600
    all_boxes: bool = False

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ConfigError: one cannot work.
        """
        if not 0 < self.min_iou <= 1:
            raise ConfigError("rationalize.lesson.min_iou", f"{self.min_iou} is not within 0-1")
        if not 0 <= self.min_words < self.max_words:
            numbers = f"{self.min_words} to {self.max_words}"
            raise ConfigError("rationalize.lesson.min_words, max_words", f"{numbers} is no range")


def lesson(sample: Sample, codec: BoxCodec, size: ImageSize) -> str:
    """What the teacher is told and asked about a composite; the picture goes with it.

    Args:
        sample: objects with boxes, and which is meant.
        codec: of the teacher.
        size: of the picture as the teacher sees it.
    """
    shown = ", ".join(f"{o.entity or UNKNOWN} ({codec.encode(o.box_px, size)})" for o in sample.objects)
    name = sample.entity
    return (
        f"This image shows {shown}. The bounding box of {name} is {codec.encode(sample.box_px, size)}.\n\n"
        f"Write down how someone who is only shown the image and asked for the bounding box of {name} would find it, "
        "from what is to be seen and from knowledge of such things. Write as that person, who finds the box and does "
        "not have it: never mention that boxes or names were given.\n\n"
        "Notes:\n"
        "1. Compare in detail with the other objects of the same kind.\n"
        "2. First analyse what is to be seen of each object, then compare.\n"
        f"3. An object called {UNKNOWN} has no known name, but its looks can be compared like any other's.\n\n"
        "Use exactly these four parts, each begun by its title:\n"
        f"Plan: what marks a {name}, from knowledge, and what to look for. No box here.\n"
        "Look: the objects by number, each with its bounding box as written above, and what is seen of it.\n"
        f"Compare: how what was seen of each object agrees with a {name} or does not.\n"
        f"Conclusion: which object is the {name}."
    )


def template_of(text: str, sample: Sample, codec: BoxCodec, size: ImageSize, settings: LessonSettings) -> str:
    """Makes the template of a rationale from a teacher's answer.

    Args:
        text: the answer.
        sample: what it is about.
        codec: of the teacher.
        size: of the picture as the teacher saw it.
        settings: what is asked of it.

    Returns:
        Its four parts, with ``<box:N>`` where the box of object N was quoted.

    Raises:
        DataError: a part is missing, a box is nobody's, it concludes at another object, or tells that it was told.
    """
    where = f"sample {sample.key}"
    parts = _parts(_TAGS.sub("", _pointed(text, sample, codec, size, settings)), where)
    words = sum(len(part.split()) for part in parts.values())
    if not settings.min_words <= words <= settings.max_words:
        raise DataError(where, "length", f"{words} words, not {settings.min_words} to {settings.max_words}")
    whole = " ".join(parts.values())
    if sample.entity.casefold() not in whole.casefold():
        raise DataError(where, "target", f"{sample.entity} is not named")
    if leak := _LEAKS.search(whole):
        raise DataError(where, "leak", f"'{leak[0]}' tells that the answer was given")
    if _PLACEHOLDER.search(parts["Plan"]):
        raise DataError(where, "leak", "the plan has a box already, before anything was looked at")
    quoted = {int(number) for number in _PLACEHOLDER.findall(whole)}
    wanted = set(range(len(sample.objects))) if settings.all_boxes else {sample.target}
    if missing := sorted(wanted - quoted):
        raise DataError(where, "boxes", f"that of {sample.objects[missing[0]].entity or UNKNOWN} is not quoted")
    concluded = _pointed_at(parts["Look"], parts["Conclusion"])
    if concluded and concluded[-1] != sample.target:
        other = sample.objects[concluded[-1]].entity or UNKNOWN
        raise DataError(where, "target", f"it concludes at {other}, not at {sample.entity}")
    return " ".join(f"{title}: {parts[title]}" for title in PARTS)


def _pointed_at(look: str, words: str) -> list[int]:
    """The objects that words point at, by their boxes or by the numbers that they were looked at under."""
    numbered = {int(number): int(box) for number, box in _NUMBERED.findall(look)}
    boxes = [int(box) for box in _PLACEHOLDER.findall(words)]
    return boxes or [numbered[int(n)] for n in _OBJECT.findall(words) if int(n) in numbered]


def _pointed(text: str, sample: Sample, codec: BoxCodec, size: ImageSize, settings: LessonSettings) -> str:
    """The text with placeholders for its boxes."""
    if _PLACEHOLDER.search(text):
        raise DataError(f"sample {sample.key}", "boxes", "the answer holds <box:N> itself")
    truth = [o.box_px for o in sample.objects]

    def point(match: re.Match[str]) -> str:
        found = codec.decode(match[0], size)
        number = found and _whose(found, truth, settings.min_iou)
        if number is None:
            raise DataError(f"sample {sample.key}", "boxes", f"{match[0].strip()} is the box of no object")
        return f" <box:{number}> "

    pointed = _BOX.sub(point, text.replace("```json", "").replace("```", ""))
    return re.sub(rf"{re.escape(REF_START)}|{re.escape(REF_END)}", "", pointed)


def _whose(found: Box, truth: Sequence[Box], least: float) -> int | None:
    overlaps = iou(torch.tensor([found] * len(truth)), torch.tensor(truth))
    best = int(overlaps.argmax())
    return best if float(overlaps[best]) >= least else None


def _parts(text: str, where: str) -> dict[str, str]:
    """The text of each part, white space made single.

    Raises:
        DataError: one is missing or empty, or they come in another order.
    """
    found = [(str(match.lastgroup), match.start(), match.end()) for match in _HEADINGS.finditer(text)]
    titles = [title for title, _, _ in found]
    for title in PARTS:
        if titles.count(title) != 1:
            raise DataError(where, "parts", f"{title} is {'there twice' if title in titles else 'missing'}")
    if titles != list(PARTS):
        raise DataError(where, "parts", f"come in the order {', '.join(titles)}")
    ends = [start for _, start, _ in found[1:]] + [len(text)]
    parts = {}
    for (title, _, start), end in zip(found, ends, strict=True):
        words = re.sub(r"\s+([.,;:)])", r"\1", " ".join(text[start:end].split()))
        if not (words := words.replace("( <", "(<").strip("*# ")):
            raise DataError(where, "parts", f"{title} is empty")
        parts[title] = words
    return parts
