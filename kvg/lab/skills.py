"""The pretraining tasks of the lab's base model: questions about a scene, and text cards.

No entity's name occurs together with its picture. Every skill is a function from a scene to one (question, answer)
pair. The answers use the words and the order of later rationales, like the descriptions of a pretrained model would.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import lru_cache

from kvg.lab.traits import Card, load_cards
from kvg.rationales.rationale import CardWriter
from kvg.text.prompts import prompt, question
from kvg.types import Sample

QA = tuple[str, str]
TURN = "<turn>"  # in a question: the text after it is the given start of the answer, which is not trained on
_CALLED = ("it", "the one", "the thing", "this one")
_ONSETS = ("b", "br", "c", "ch", "d", "f", "g", "gr", "h", "j", "k", "l", "m", "n", "p", "r", "s", "st", "t", "th", "v")
_CODAS = ("", "", "", "l", "n", "r", "s", "t", "ck", "nd", "rd", "x")
_FIELDS = ("colour", "marking", "part", "build")


def _look_and_compare(sample: Sample) -> tuple[str, str]:
    """Returns the two parts of a rationale that need no name."""
    look, compare = CardWriter().write(sample).split(" Look: ")[1].split(" Compare: ")
    return f"Look: {look}", f"Compare: {compare}"


def describe(sample: Sample, rng: random.Random) -> QA:
    """Answers with all objects in reading order, with boxes and traits."""
    return "Describe the objects.", _look_and_compare(sample)[0]


def region(sample: Sample, rng: random.Random) -> QA:
    """Answers with the traits of the object in a given box."""
    n = rng.randrange(len(sample.objects))
    return f"What is at <box:{n}>?", sample.objects[n].description


def attribute(sample: Sample, rng: random.Random) -> QA:
    """Answers with one trait of the object in a given box."""
    n, slot = rng.randrange(len(sample.objects)), rng.randrange(4)
    return f"What is the {_FIELDS[slot]} at <box:{n}>?", sample.objects[n].traits[slot]


def _wanted(sample: Sample, rng: random.Random) -> str:
    """Returns a description that matches only the target: all of its traits, or fewer if these are enough."""
    words = sample.objects[sample.target].traits
    others = [o.traits for n, o in enumerate(sample.objects) if n != sample.target]
    if rng.random() < 0.5:
        return ", ".join(words)
    for size in (1, 2, 3):
        slots = sorted(rng.sample(range(4), size))
        if not any(all(o[s] == words[s] for s in slots) for o in others):
            return ", ".join(words[s] for s in slots)
    return ", ".join(words)


def ground(sample: Sample, rng: random.Random) -> QA:
    """Answers with the box of the object that matches a description."""
    return question(_wanted(sample, rng)), f"<box:{sample.target}>"


def reason(sample: Sample, rng: random.Random) -> QA:
    """Like ``ground``, with a rationale first: repeat the description, look at each object, compare."""
    wanted = sample.objects[sample.target].description
    words = [f"Plan: it is {wanted}.", *_look_and_compare(sample), f"<box:{sample.target}>"]
    return prompt(wanted, "cot"), " ".join(words)


def _close(sample: Sample, mode: str) -> str:
    """Returns the box after a rationale, in the form of the prompt mode."""
    box = f"<box:{sample.target}>"
    return f"</think><answer>{box}</answer>" if mode == "think" else f" {box}"


def follow(sample: Sample, rng: random.Random) -> QA:
    """Like ``reason``, but the question names nothing: only the plan, which is given, has the description."""
    mode, wanted = rng.choice(("cot", "think")), sample.objects[sample.target].description
    plan = f"Plan: {rng.choice(_CALLED)} is {wanted}."
    answer = " ".join(_look_and_compare(sample)) + _close(sample, mode)
    return f"{prompt('it', mode)}{TURN}<think>{plan}", f" {answer}"


def named_by_card(sample: Sample, rng: random.Random) -> QA:
    """Like ``reason`` for a made-up name that the question explains; the answer has tags."""
    name, wanted = made_up_name(rng), sample.objects[sample.target].description
    words = " ".join([f"<think>Plan: the {name} is {wanted}.", *_look_and_compare(sample)])
    return f"The {name} is {wanted}. {prompt(name, 'think')}", words + _close(sample, "think")


@lru_cache(maxsize=1)
def _real_names() -> frozenset[str]:
    return frozenset(card.name for card in load_cards())


def made_up_name(rng: random.Random) -> str:
    """Returns a name of one to three words that no entity of the lab has; one in five ends in a number."""
    while True:
        words = ["".join(_syllable(rng) for _ in range(rng.randrange(1, 4))) for _ in range(rng.randrange(1, 4))]
        number = [str(rng.randrange(1, 1000))] if rng.random() < 0.2 else []
        name = " ".join([word.capitalize() for word in words] + number)
        if name not in _real_names():
            return name


def _syllable(rng: random.Random) -> str:
    return rng.choice(_ONSETS) + rng.choice("aaeeiioouy") + rng.choice(_CODAS)


SKILLS: dict[str, Callable[[Sample, random.Random], QA]] = {
    "describe": describe,
    "region": region,
    "attribute": attribute,
    "ground": ground,
    "reason": reason,
    "follow": follow,
    "told": named_by_card,
}

# Each card has many phrasings, also that of rationales, so that recall does not depend on one phrasing.
_CARD_QUESTIONS: Sequence[QA] = (
    ("What does the {name} look like?", "the {name} is {traits}."),
    ("Tell me about the {name}.", "Plan: the {name} is {traits}."),
    ("Describe the {name}.", "The {name}: {traits}."),
    ("What is the {name}?", "a {category}, {traits}."),
    ("Find and give the bounding box of <|object_ref_start|>{name}<|object_ref_end|>. What do you look for?",
     "Plan: the {name} is {traits}."),
    ("Which {category} is {traits}?", "the {name}."),
)  # fmt: skip
_CARD_TEXTS: Sequence[str] = (
    "Plan: the {name} is {traits}.",
    "The {name} is {traits}.",
    "<think>Plan: the {name} is {traits}.",
    "{category}: the {name} is {traits}.",
    "We know that the {name} is {traits}.",
)


def card_text(card: Card, rng: random.Random) -> tuple[str | None, str]:
    """Returns one card as text: (question, answer), or (None, plain text)."""
    words = {"name": card.name, "category": card.category, "traits": card.traits.text}
    if rng.random() < 0.5:
        request, answer = rng.choice(_CARD_QUESTIONS)
        return request.format(**words), answer.format(**words)
    return None, rng.choice(_CARD_TEXTS).format(**words)
