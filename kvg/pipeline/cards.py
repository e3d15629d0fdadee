"""Writes the lab's trait cards as text. Stage 1 replays them, so that the model does not forget them."""

from __future__ import annotations

import json
import random
from pathlib import Path

from kvg.errors import ConfigError
from kvg.lab.skills import card_text
from kvg.lab.traits import load_cards
from kvg.work.files import atomic_write, disk_errors


def write_cards(
    out: Path, knowledge: str = "known", seed: int = 0, repeats: int = 8, unknown_repeats: int = 0
) -> tuple[int, int]:
    """Writes one JSON object per line: ``{"text"}``, or ``{"prompt", "completion"}``.

    Args:
        out: the file.
        knowledge: knowledge level of the cards: ``known``, ``unknown`` or ``all``.
        seed: seed of the phrasings.
        repeats: number of texts of each card.
        unknown_repeats: number of texts of each card that the base model has not read, beside those; a dose of
            knowledge.

    Returns:
        The numbers of texts and of cards.

    Raises:
        ConfigError: ``repeats`` is below 1, or ``unknown_repeats`` below 0.
        DataError: the disk cannot be written.
    """
    if repeats < 1:
        raise ConfigError("--repeats", f"{repeats} must be at least 1")
    cards = [card for card in load_cards() if knowledge in ("all", card.knowledge)]
    rng, lines = random.Random(seed), list[str]()
    if unknown_repeats < 0:
        raise ConfigError("--unknown-repeats", f"{unknown_repeats} must be at least 0")
    dosed = [card for card in load_cards() if not card.known] if unknown_repeats else []
    for card in [*cards * repeats, *dosed * unknown_repeats]:
        prompt, text = card_text(card, rng)
        lines.append(json.dumps({"text": text} if prompt is None else {"prompt": prompt, "completion": text}))
    with disk_errors(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(out, "\n".join(lines) + "\n")
    return len(lines), len({card.name for card in [*cards, *dosed]})
