"""The corpus of the lab's tokenizer: texts that the model will read and write, without unknown names."""

from __future__ import annotations

import random
from collections.abc import Iterator

from kvg.benchmark import CATEGORIES
from kvg.lab.skills import SKILLS, TURN, card_text
from kvg.lab.traits import BUILDS, COLOURS, PARTS, load_cards
from kvg.lab.world import change_one, random_traits
from kvg.rationales.rationale import CardWriter
from kvg.text.completion import write_completion
from kvg.text.prompts import PROMPTS, prompt
from kvg.types import Sample, SceneObject


def corpus(seed: int, scenes: int = 1500) -> Iterator[str]:
    """Yields lines of text; frequent words become tokens of their own.

    Names of unknown entities are left out, since they never occur before stage 1. They are tokenised as parts of words.
    """
    rng = random.Random(seed)
    known = [card for card in load_cards() if card.known]
    yield from ["system\nYou are a helpful assistant.\nuser\nassistant\n"] * 50
    for card in known:
        yield from (card_text(card, rng)[1] for _ in range(6))
        yield from (prompt(card.name, mode) for mode in PROMPTS)
    for parts in PARTS.values():
        yield from (f" {word}" for word in (*parts, *COLOURS, *BUILDS, *CATEGORIES) for _ in range(3))
    for n in range(scenes):
        base = random_traits(rng.choice(CATEGORIES), rng)
        looks = {t.text: t for t in (base, *(change_one(base, rng) for _ in range(rng.randrange(1, 4))))}
        objects = tuple(SceneObject(rng.choice(known).name, (0, 0, 1, 1), traits.words) for traits in looks.values())
        sample = Sample(str(n), b"", 1, 1, base.category, "seen", objects, rng.randrange(len(objects)))
        edges = [rng.randrange(21) * 50 for _ in range(4)]
        box = "<|box_start|>({},{}),({},{})<|box_end|>".format(*edges)
        for skill in SKILLS.values():
            yield from (_boxed(text.replace(TURN, "\n"), box) for text in skill(sample, rng))
        yield _boxed(write_completion(CardWriter().write(sample), box), box)


def _boxed(text: str, box: str) -> str:
    for n in range(6):
        text = text.replace(f"<box:{n}>", box)
    return text
