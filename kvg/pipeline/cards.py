"""Writes the lab's trait cards as text. Stage 1 replays them, so that the model does not forget them."""

from __future__ import annotations

import json
import random
from pathlib import Path

from kvg.errors import ConfigError
from kvg.lab.skills import card_text
from kvg.lab.traits import load_cards
from kvg.work.files import atomic_write, disk_errors


def write_cards(out: Path, knowledge: str = "known", seed: int = 0, repeats: int = 8) -> tuple[int, int]:
    """Writes one JSON object per line: ``{"text"}``, or ``{"prompt", "completion"}``.

    Args:
        out: the file.
        knowledge: knowledge level of the cards: ``known``, ``unknown`` or ``all``.
        seed: seed of the phrasings.
        repeats: number of texts of each card.

    Returns:
        The numbers of texts and of cards.

    Raises:
        ConfigError: ``repeats`` is below 1.
        DataError: the disk cannot be written.
    """
    if repeats < 1:
        raise ConfigError("--repeats", f"{repeats} must be at least 1")
    cards = [card for card in load_cards() if knowledge in ("all", card.knowledge)]
    rng, lines = random.Random(seed), list[str]()
    for card in cards * repeats:
        prompt, text = card_text(card, rng)
        lines.append(json.dumps({"text": text} if prompt is None else {"prompt": prompt, "completion": text}))
    with disk_errors(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(out, "\n".join(lines) + "\n")
    return len(lines), len(cards)
