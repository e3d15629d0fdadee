"""A large model as the writer of rationales: its prompt, and the rules for its rationales.

The paper (v3, appendix B.1) gives the teacher the composite, all entities with their boxes and the box of the target,
asks how to find the target, and adds three notes. It describes no check of the answers. Here an answer is parsed, and
rejected if training on it would teach something wrong.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch

from kvg.boxes import iou
from kvg.errors import DataError
from kvg.rationales.rules import RationaleRules
from kvg.text.box_codec import BoxCodec, ImageSize
from kvg.text.box_refs import LAST, PLACEHOLDER, nouns_of, with_placeholders
from kvg.text.conclusions import pointed_at, with_name
from kvg.text.prompts import REF_END, REF_START
from kvg.text.special_tokens import check_rationale
from kvg.types import Box, Sample

PARTS = ("Plan", "Look", "Compare", "Conclusion")
UNKNOWN = "[Unknown]"  # name of an object without a name

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
_LIKE_A_BOX = re.compile(r"[\[({<]\s*-?\d[\d.]*\s*,\s*-?\d[\d.]*(?:\s*,\s*|\W{2,8})-?\d[\d.]*\s*,\s*-?\d[\d.]*|bbox")
_TAGS = re.compile(r"</?(?:think|answer)>|<\|[^|<>]*\|>")


def teacher_prompt(sample: Sample, codec: BoxCodec, size: ImageSize) -> str:
    """Returns the teacher's prompt about a composite; the picture is sent with it.

    Args:
        sample: the composite.
        codec: box codec of the teacher.
        size: size of the picture as the teacher gets it.
    """
    listed = ", ".join(f"{o.entity or UNKNOWN} ({codec.encode(o.box_px, size)})" for o in sample.objects)
    name = sample.entity
    return (
        f"This image shows {listed}. The bounding box of {name} is {codec.encode(sample.box_px, size)}.\n\n"
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


def template_of(text: str, sample: Sample, codec: BoxCodec, size: ImageSize, settings: RationaleRules) -> str:
    """Makes the template of a rationale from a teacher's answer.

    Args:
        text: the answer.
        sample: the composite.
        codec: box codec of the teacher.
        size: size of the picture as the teacher got it.
        settings: rules for the rationale.

    Returns:
        Its four parts, with ``<box:N>`` instead of the box of object N.

    Raises:
        DataError: a part is missing, a box belongs to no object, the conclusion is another object, or the text reveals
            that the answer was given.
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
    if PLACEHOLDER.search(parts["Plan"]):
        raise DataError(where, "leak", "the plan has a box already, before anything was looked at")
    quoted = {int(number) for number in PLACEHOLDER.findall(whole)}
    wanted = set(range(len(sample.objects))) if settings.all_boxes else {sample.target}
    if missing := sorted(wanted - quoted):
        raise DataError(where, "boxes", f"that of {sample.objects[missing[0]].entity or UNKNOWN} is not quoted")
    _check_conclusion(parts, sample, where)
    template = " ".join(f"{title}: {parts[title]}" for title in PARTS)
    check_rationale(template, where, "tokens")
    return template


def _check_conclusion(parts: Mapping[str, str], sample: Sample, where: str) -> None:
    """Checks that the conclusion points at the target, if it can be parsed.

    Raises:
        DataError: it points at another object, or names a number that was never beside a box.
    """
    before, nouns = f"{parts['Look']}\n{parts['Compare']}", nouns_of(sample.category)
    pointed = pointed_at(before, with_name(parts["Conclusion"], sample.entity), nouns)
    if pointed.contradicted is not None:
        raise DataError(where, "target", f"object {pointed.contradicted} has another box in the conclusion than before")
    if pointed.box is not None and pointed.box != sample.target:
        other = sample.objects[pointed.box].entity or UNKNOWN
        raise DataError(where, "target", f"it concludes at {other}, not at {sample.entity}")
    if pointed.box is None and pointed.unknown is not None:
        number = "the last object" if pointed.unknown == LAST else f"object {pointed.unknown}"
        raise DataError(where, "target", f"it concludes at {number}, a number that stands beside no box")


def _pointed(text: str, sample: Sample, codec: BoxCodec, size: ImageSize, settings: RationaleRules) -> str:
    """Replaces the boxes of a text by placeholders."""
    if PLACEHOLDER.search(text):
        raise DataError(f"sample {sample.key}", "boxes", "the answer holds <box:N> itself")
    truth = [o.box_px for o in sample.objects]

    def place(written: str) -> int:
        box = codec.decode(written, size)
        number = box and _whose(box, truth, settings.min_iou)
        if number is None:
            raise DataError(f"sample {sample.key}", "boxes", f"{written} is the box of no object")
        return number

    placed = with_placeholders(text.replace("```json", "").replace("```", ""), place)
    if rest := _LIKE_A_BOX.search(placed):
        remedy = f"'{placed[rest.start() : rest.start() + 40]}' is no box that can be read"
        raise DataError(f"sample {sample.key}", "boxes", remedy)
    spaced = PLACEHOLDER.sub(r" \g<0> ", placed)
    return re.sub(rf"{re.escape(REF_START)}|{re.escape(REF_END)}", "", spaced)


def _whose(box: Box, truth: Sequence[Box], least: float) -> int | None:
    overlaps = iou(torch.tensor([box] * len(truth)), torch.tensor(truth))
    best = int(overlaps.argmax())
    return best if float(overlaps[best]) >= least else None


def _parts(text: str, where: str) -> dict[str, str]:
    """Returns the text of each part, with single spaces.

    Raises:
        DataError: a part is missing or empty, or the order is wrong.
    """
    headings = [(str(match.lastgroup), match.start(), match.end()) for match in _HEADINGS.finditer(text)]
    titles = [title for title, _, _ in headings]
    for title in PARTS:
        if titles.count(title) != 1:
            raise DataError(where, "parts", f"{title} is {'there twice' if title in titles else 'missing'}")
    if titles != list(PARTS):
        raise DataError(where, "parts", f"come in the order {', '.join(titles)}")
    ends = [start for _, start, _ in headings[1:]] + [len(text)]
    parts = {}
    for (title, _, start), end in zip(headings, ends, strict=True):
        words = re.sub(r"\s+([.,;:)])", r"\1", " ".join(text[start:end].split()))
        if not (words := words.replace("( <", "(<").strip("*# ")):
            raise DataError(where, "parts", f"{title} is empty")
        parts[title] = words
    return parts
