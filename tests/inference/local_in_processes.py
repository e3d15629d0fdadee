"""Asks a model under a strategy and prints what came of it; Lightning starts it again for each other process."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from kvg.errors import DataError
from kvg.inference.local import LocalClient
from kvg.inference.request import Request
from tests.catalogue.conftest import drawing, encoded


def requests() -> list[Request]:
    """Five batches of two, one of them of damaged pictures alone."""
    made = []
    for number in range(9):
        image = encoded(drawing(number, (56, 56)), "PNG")
        if number in (4, 5):
            image = image[:200] + bytes(40) + image[240:]
        made.append(Request(f"q{number}", f"What is on picture {number}?", image, 1 + number % 2))
    return made


def validator(request: Request, text: str) -> str:
    """Refuses about every second answer."""
    if sum(text.encode()) % 2:
        raise DataError(request.key, "answer", f"no {text}")
    return text


def main(work: str, trainer: str) -> None:
    """Asks up to three times."""
    client = LocalClient("tiny", max_tokens=6, batch_size=2, seed=5, trainer=json.loads(trainer))
    outcomes = list(client.ask(requests(), validator, Path(work), max_attempts=3))
    print(json.dumps([[o.request.key, o.values, o.faults] for o in outcomes]))


if __name__ == "__main__":
    main(*sys.argv[1:])
