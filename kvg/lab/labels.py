"""Dense labels of visual tokens and words, as auxiliary targets for the lab's base model."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from kvg.benchmark import CATEGORIES
from kvg.boxes import cell_owners
from kvg.lab.traits import BUILDS, COLOURS, PARTS, PATTERNS
from kvg.text.prompts import REF_END, REF_START
from kvg.types import Sample

ALL_PARTS = tuple(dict.fromkeys(part for parts in PARTS.values() for part in parts))
TRAIT_CLASSES = {
    "category": len(CATEGORIES),
    "colour": len(COLOURS),
    "pattern": len(PATTERNS),
    "accent": len(COLOURS),
    "part": len(ALL_PARTS),
    "build": len(BUILDS),
}
_MENTION = re.compile(r"<box:(?P<box>\d+)>[^;.]*|(?P<verdict>\d+) no[^;.]*")
_REQUEST = re.compile(f"{re.escape(REF_START)}(.+?){re.escape(REF_END)}")
_PLAN = re.compile(r"(?:Plan: |^The ).+? is ([^.]+)\.")
Looks = tuple[int, ...]  # a class for each of TRAIT_CLASSES, -100 = unspecified
UNSAID: Looks = (-100,) * len(TRAIT_CLASSES)
EDGE_CLASSES = 21  # a box edge on the lab's canvas falls on one of 21 multiples of the snapping step


def wanted_looks(request: str) -> Looks:
    """Returns the classes of the traits that a request for a box names, or a plan or card in it; -100 = unspecified.

    >>> wanted_looks("Find <|object_ref_start|>red, white spots, slim<|object_ref_end|>")
    (-100, 3, 2, 0, -100, 0)
    """
    classes = dict.fromkeys(TRAIT_CLASSES, -100)
    match = _PLAN.search(request) or _REQUEST.search(request)
    for words in match[1].split(", ") if match else ():
        accent, _, pattern = words.rpartition(" ")
        if pattern in PATTERNS and (accent in COLOURS or words == "plain"):
            classes["pattern"] = PATTERNS.index(pattern)
            classes["accent"] = list(COLOURS).index(accent) if accent else -100
        elif words in COLOURS:
            classes["colour"] = list(COLOURS).index(words)
        elif words in BUILDS:
            classes["build"] = BUILDS.index(words)
        else:
            classes["part"] = ALL_PARTS.index(words)
    return tuple(classes.values())


def mentions(request: str, answer: str) -> list[tuple[str, int]]:
    """Splits an answer into parts, each with the index of the object that it describes (-1 = none).

    A part describes an object from its box to the end of the clause, and in its verdict, where objects are counted from
    1. An answer without either describes the box in the question.

    >>> mentions("", "Look: 1 <box:0> red; 2 <box:1> blue.")
    [('Look: 1 ', -1), ('<box:0> red', 0), ('; 2 ', -1), ('<box:1> blue', 1), ('.', -1)]
    >>> mentions("", "Compare: <box:1> yes; 1 no, red.")
    [('Compare: ', -1), ('<box:1> yes', 1), ('; ', -1), ('1 no, red', 0), ('.', -1)]
    >>> mentions("What is at <box:2>?", "red, plain")
    [('red, plain', 2)]
    """
    parts, end = [], 0
    for match in _MENTION.finditer(answer):
        number = int(match["box"]) if match["box"] else int(match["verdict"]) - 1
        parts += [(answer[end : match.start()], -1), (match[0], number)]
        end = match.end()
    if not end and (named := _MENTION.search(request)):
        return [(answer, int(named["box"]))]
    return [part for part in (*parts, (answer[end:], -1)) if part[0]]


def token_owners(sample: Sample, grid_thw: Tensor) -> Tensor:
    """Returns the index of the object under each merged visual token, ``[tokens]``; -1 = none. See ``cell_owners``."""
    boxes = [item.box_px for item in sample.objects]
    return cell_owners(boxes, sample.width, sample.height, int(grid_thw[1]) // 2, int(grid_thw[2]) // 2)


def token_labels(sample: Sample, owners: Tensor) -> dict[str, Tensor]:
    """Returns traits of the object under each merged visual token, and its box edges in snapping steps; -100 = none."""
    names = [*TRAIT_CLASSES, "x1", "y1", "x2", "y2"]
    out = {name: torch.full((len(owners),), -100) for name in names}
    vocabulary = [tuple(COLOURS), PATTERNS, tuple(COLOURS), ALL_PARTS, BUILDS]
    for token, owner in enumerate(owners.tolist()):
        if owner < 0:
            continue
        item = sample.objects[owner]
        colour, marking, part, build = item.traits
        accent, pattern = (None, "plain") if marking == "plain" else marking.split()
        out["category"][token] = CATEGORIES.index(sample.category)
        for name, words, word in zip(
            list(TRAIT_CLASSES)[1:], vocabulary, (colour, pattern, accent, part, build), strict=True
        ):
            if word is not None:
                out[name][token] = words.index(word)
        for name, edge in zip(("x1", "y1", "x2", "y2"), item.box_px, strict=True):
            out[name][token] = round(edge * (EDGE_CLASSES - 1) / sample.width)
    return out
