"""Pictures and names to try: from a set of samples, or composites of the lab that are made now."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from kvg.composites.compositor import Compositor
from kvg.errors import DataError
from kvg.formats.stores import open_store
from kvg.lab.world import LabSource, lab_canvas
from kvg.shards.schema import SPLITS
from kvg.text.names import clean_name
from kvg.types import Box, Sample

DEMO_SET: Final = Path("runs/demo/data/test")
_NUM: Final = 6  # of each split
_MAX_READ: Final = 500  # samples of a set


@dataclass(frozen=True)
class Example:
    """A picture, the name to ask for, its split (``seen`` or ``unseen``), and the true box in pixels."""

    picture: bytes
    entity: str
    split: str
    box_px: Box


def load_examples(path: Path | None) -> list[Example]:
    """Up to six examples of unseen entities, and six of seen ones.

    Args:
        path: set of samples, as ``kvg test`` reads it; None for that of the demo, or, where the demo has not run,
            composites of the lab.

    Raises:
        DataError: the set cannot be read, or has no boxes.
    """
    if path is None and not DEMO_SET.is_dir():
        compositor = Compositor(LabSource(pool="test"), lab_canvas(0, {2: 0.5, 3: 0.5}, 0.5))
        return _choose(compositor.sample(index) for index in range(_MAX_READ))
    chosen = _choose(_samples(path or DEMO_SET))
    if not chosen:
        raise DataError(str(path or DEMO_SET), "samples", "has no question for a box; choose another set (--examples)")
    return chosen


def true_boxes(examples: Sequence[Example]) -> dict[tuple[str, str], Box]:
    """The true boxes by ``question_key``."""
    return {question_key(one.picture, one.entity): one.box_px for one in examples}


def question_key(picture: bytes, entity: str) -> tuple[str, str]:
    """Identifies a picture and a name."""
    return hashlib.sha256(picture).hexdigest(), clean_name(entity)


def _samples(path: Path) -> Iterator[Sample]:
    for part in open_store(path).parts():
        for _, sample in part.read():
            yield sample


def _choose(samples: Iterable[Sample]) -> list[Example]:
    """The first samples of each split, unseen entities before seen ones, each entity once."""
    by_split: dict[str, dict[str, Example]] = {split: {} for split in reversed(SPLITS)}
    for sample in islice(samples, _MAX_READ):
        entities = by_split[sample.split]
        if not sample.options and len(entities) < _NUM:
            entities.setdefault(sample.entity, Example(sample.image, sample.entity, sample.split, sample.box_px))
        if all(len(chosen) == _NUM for chosen in by_split.values()):
            break
    return [example for entities in by_split.values() for example in entities.values()]
