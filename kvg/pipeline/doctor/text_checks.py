"""Checks that need no answer: special tokens, names, pictures, and lengths."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from kvg.backbones.processor import ChatProcessor
from kvg.errors import DataError
from kvg.report.doctor_page import Check
from kvg.text.names import caseless
from kvg.text.prompts import prompt
from kvg.types import Sample

FEW: Final = 0.01  # share of samples up to which a fault is only noted
_SPECIAL = re.compile(r"<\|[^<>|\s]{1,64}\|>")
_IN_PLACEHOLDERS = re.compile(r"<[^<>\s]{1,64}>")
_MOST: Final = 5  # examples of a fault that are listed


@dataclass(frozen=True)
class Lengths:
    """Tokens of one sample.

    Attributes:
        key: of the sample.
        prompt: with its visual tokens.
        visual: visual tokens.
        completion: what stage 1 trains on, 0 in stage 2.
        reduced: area of the picture that the model gets, as a share of the stored one; 1 if it is not reduced.
        side: shorter side of the target's box, in sides of a visual token.
    """

    key: str
    prompt: int
    visual: int
    completion: int
    reduced: float
    side: float


def measure(
    processor: ChatProcessor, samples: Sequence[Sample], mode: str, target: str | None
) -> tuple[list[Lengths], list[str]]:
    """Tokenises samples as the training does.

    Args:
        processor: of the backbone.
        samples: to measure.
        mode: prompt mode.
        target: see ``kvg.batches.Processor.encode``.

    Returns:
        The lengths, and a message for each sample that cannot be used.
    """
    lengths, faults = [], []
    for sample in samples:
        try:
            example = processor.encode(sample, mode=mode, target=target)
        except DataError as error:
            faults.append(str(error))
            continue
        size = processor.image_size(sample.width, sample.height)
        across, down = size.resized_width / size.width, size.resized_height / size.height
        x1, y1, x2, y2 = sample.box_px
        learnt = int((example.labels >= 0).sum())
        visual = sum(picture.num_tokens for picture in example.pictures)
        token_side = math.sqrt(size.resized_width * size.resized_height / max(1, visual))
        lengths.append(
            Lengths(
                key=sample.key,
                prompt=len(example.input_ids) - learnt,
                visual=visual,
                completion=learnt,
                reduced=min(1.0, across * down),
                side=min((x2 - x1) * across, (y2 - y1) * down) / token_side,
            )
        )
    return lengths, faults


def token_check(processor: ChatProcessor, sample: Sample, mode: str, num_embeddings: int) -> Check:
    """Whether each special token of a prompt and of a box is one token with an embedding.

    Args:
        processor: of the backbone.
        sample: whose prompt and box are written.
        mode: prompt mode.
        num_embeddings: of the model.
    """
    family = processor.family
    form = processor.prompt_format
    text = processor.chat(prompt(sample.entity, mode, form)) + "".join(processor.box_texts(sample))
    spans = family.placeholders(processor.picture(processor.open(sample)))
    named = [family.image_token, family.turn_end, family.document_start, *form.marks, *processor.codec.marks]
    named += [name for span, _ in spans for name in _IN_PLACEHOLDERS.findall(span)]
    names = list(dict.fromkeys(name for name in (*named, *_SPECIAL.findall(text)) if name))
    split, without = [], []
    for name in names:
        ids = processor.ids(name)
        if len(ids) != 1:
            split.append(f"{name} is written as {len(ids)} tokens")
        elif ids[0] >= num_embeddings:
            without.append(f"{name} is token {ids[0]}, and the model has {num_embeddings} embeddings")
    if faults := [*split, *without]:
        remedy = "the model has never read them so: copy the tokenizer files of the checkpoint that it comes from"
        return Check("special tokens", "fault", f"{len(faults)} of {len(names)} are no single token; {remedy}", faults)
    return Check("special tokens", "ok", f"all {len(names)} are single tokens: {', '.join(names)}")


def name_check(processor: ChatProcessor, samples: Sequence[Sample], validation: Sequence[Sample], mode: str) -> Check:
    """Whether prompts contain the names of the data, and whether one name has one spelling.

    Args:
        processor: of the backbone.
        samples: of the training set.
        validation: of the validation set; empty for none.
        mode: prompt mode.
    """
    lost = [f"{s.key}: '{s.entity}' is not in its prompt" for s in samples if s.entity not in _read(processor, s, mode)]
    twice = [
        f"{s.key}: '{s.entity}' is on the picture {same} times"
        for s in samples
        if (same := sum(caseless(item.entity) == caseless(s.entity) for item in s.objects)) > 1
    ]
    names = sorted({item.entity for s in (*samples, *validation) for item in s.objects if item.entity})
    spellings: dict[str, list[str]] = {}
    for name in names:
        spellings.setdefault(caseless(name.replace("_", " ").replace("-", " ")), []).append(name)
    several = [f"one name, several spellings: {', '.join(map(repr, some))}" for some in spellings.values() if some[1:]]
    if faults := [*lost, *several, *twice]:
        parts = (
            (lost, "prompts without their name"),
            (several, "names with several spellings, each an entity of its own"),
            (twice, "questions whose name is on the picture twice"),
        )
        text = "; ".join(f"{what}: {len(some)}" for some, what in parts if some)
        few = not lost and not several and len(twice) <= FEW * len(samples)
        return Check("names", "note" if few else "fault", text, listed(faults))
    return Check("names", "ok", f"the prompts of {len(samples)} samples contain their names; {len(names)} entities")


def picture_check(lengths: Sequence[Lengths], faults: Sequence[str]) -> Check:
    """Whether pictures fit the budget of visual tokens.

    Args:
        lengths: see ``measure``; at least one.
        faults: see ``measure``.
    """
    most = max(one.visual for one in lengths)
    reduced = [one for one in lengths if one.reduced < 0.99]
    tiny = [one for one in lengths if one.side < 1]
    least_visual = min(one.visual for one in lengths)
    text = (
        f"{least_visual} to {most} visual tokens a picture"
        if least_visual < most
        else f"{most} visual tokens a picture"
    )
    if reduced:
        least = min(one.reduced for one in reduced)
        text += f"; {_of(reduced, lengths)} are reduced, at most to {least:.0%} of their area (backbone.max_pixels)"
    if tiny:
        text += f"; the target of {_of(tiny, lengths)} is narrower than a visual token"
    if faults:
        text += f"; {len(faults)} samples cannot be used"
    bad = len(faults) > FEW * (len(lengths) + len(faults)) or len(tiny) > 0.5 * len(lengths)
    details = [*faults, *(f"{one.key}: target of {one.side:.2f} visual tokens" for one in tiny)]
    return Check("pictures", "fault" if bad else "note" if reduced or tiny or faults else "ok", text, listed(details))


def length_check(
    lengths: Sequence[Lengths], max_tokens: int | None, max_new_tokens: int, max_positions: int | None
) -> Check:
    """Whether prompts, and completions of stage 1, are used whole.

    Args:
        lengths: see ``measure``; at least one.
        max_tokens: limit of the data module, beyond which samples are left out; None for no limit.
        max_new_tokens: longest completion in rollouts and validation.
        max_positions: positions of the language model; None if it names none.
    """
    longest = max(one.prompt + one.completion for one in lengths)
    left_out = [one for one in lengths if max_tokens is not None and one.prompt + one.completion > max_tokens]
    cut = [one for one in lengths if one.completion > max_new_tokens]
    beyond = [one for one in lengths if max_positions and one.prompt + max_new_tokens > max_positions]
    parts = (
        (left_out, f"are longer than data.max_tokens = {max_tokens}, and left out: raise it"),
        (cut, f"have answers longer than model.max_new_tokens = {max_new_tokens}, which validation cuts: raise it"),
        (beyond, f"with max_new_tokens = {max_new_tokens} exceed the {max_positions} positions of the model: lower it"),
    )
    text = "; ".join(f"{_of(some, lengths)} {what}" for some, what in parts if some)
    if not text:
        limit = f" (limit {max_tokens})" if max_tokens is not None else ""
        text = f"no prompt of {len(lengths)} is cut; the longest sample has {longest} tokens{limit}"
        return Check("lengths", "ok", text)
    rows = {one.key: f"{one.key}: {one.prompt} + {one.completion} tokens" for some, _ in parts for one in some}
    fault = any(len(some) > FEW * len(lengths) for some, _ in parts)
    return Check("lengths", "fault" if fault else "note", text, listed(list(rows.values())))


def listed(lines: Sequence[str]) -> list[str]:
    """The first lines, and how many there are beside them."""
    rest = len(lines) - _MOST
    return [*lines[:_MOST], *([f"and {rest} more"] if rest > 0 else [])]


def _read(processor: ChatProcessor, sample: Sample, mode: str) -> str:
    """The text of a prompt as its tokens say it."""
    text = processor.chat(prompt(sample.entity, mode, processor.prompt_format))
    return str(processor.tokenizer.decode(processor.ids(text)))


def _of(some: Iterable[object], every: Sequence[object]) -> str:
    return f"{len(list(some))} of {len(every)}"
