"""Exposure of each entity in training: pictures, text, both or neither; the novel-entity test uses the last group.

*Pictures*: the entity was an object of a training picture, as target or distractor. *Texts*: its name occurs in a
rationale or in a training text; its name in a question does not count. Names are compared word by word, without case
and punctuation. Of overlapping names only the longest counts. Doubtful cases count as exposed, so that *novel* is
conservative.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from kvg.errors import DataError
from kvg.evaluation.records.prediction import Prediction
from kvg.formats.stores import open_store
from kvg.formats.written_boxes import Reading
from kvg.lab.traits import load_cards
from kvg.records import json_lines, parse_json, read_json, read_text, text_of
from kvg.shards.reader import Tally
from kvg.work.progress import with_progress

EXPOSURES: Final = ("pictures and texts", "pictures only", "texts only", "novel")
Words = tuple[str, ...]  # a name, word by word

_WORD = re.compile(r"[^\W_]+")


@dataclass
class Exposure:
    """Entities that occur in training data.

    Attributes:
        pictured: names of objects of training pictures.
        mentioned: names that occur in texts.
        num_samples: number of training samples that were read.
        num_bad: number of samples that neither this search nor training can use.
        num_unnamed: number of objects without a name; published files name only the target.
        problems: the first errors.
    """

    pictured: set[Words] = field(default_factory=set)
    mentioned: set[Words] = field(default_factory=set)
    num_samples: int = 0
    num_bad: int = 0
    num_unnamed: int = 0
    problems: list[str] = field(default_factory=list)

    def of(self, entity: str) -> str:
        """One of ``EXPOSURES``."""
        name = words_of(entity)
        return EXPOSURES[2 * (name not in self.pictured) + (name not in self.mentioned)]

    def by_case(self, cases: Iterable[Prediction]) -> dict[str, str]:
        """The exposure of each case's entity, by ``Prediction.id``; cases without an entity are skipped."""
        return {case.id: self.of(case.entity) for case in cases if case.entity}


def exposure_of(
    names: Iterable[str],
    trained: Sequence[str | Path],
    texts: Sequence[str | Path] = (),
    lab: bool = False,
    reading: Reading | None = None,
) -> Exposure:
    """Searches a model's training data for entities.

    Args:
        names: entities of the evaluation.
        trained: training sets: shards or published files (pictures are not decoded), or a JSON list of objects with
            ``entity_name``, as the published ``all_entities_train.json``.
        texts: further training texts: JSON lines (the file of `kvg-data cards`), JSON or YAML (facts), or any other
            file as plain text.
        lab: whether the model starts from the lab's base model, which was trained on the cards of the known entities.
        reading: declared format of the training sets' boxes.

    Raises:
        DataError: a set or a file cannot be read.
    """
    exposure, rationales = Exposure(), list[str]()
    for path in trained:
        names_listed = _listed(Path(path))
        if names_listed is None:
            rationales += _read_set(path, exposure, reading)
        else:
            exposure.pictured |= {words_of(name) for name in names_listed}
    search = NameSearch([*map(words_of, names), *exposure.pictured])
    for text in rationales:
        exposure.mentioned |= search.names_in(text)
    for path in texts:
        for text in texts_of(Path(path)):
            exposure.mentioned |= search.names_in(text)
    if lab:
        exposure.mentioned |= {words_of(card.name) for card in load_cards() if card.known}
    return exposure


def words_of(name: str) -> Words:
    """The normalized words of a name.

    >>> words_of("St. Basil's Cathedral"), words_of("Sukhoi Su-30")
    (('st', 'basil', 's', 'cathedral'), ('sukhoi', 'su', '30'))
    """
    return tuple(_WORD.findall(unicodedata.normalize("NFKC", name).casefold()))


class NameSearch:
    """Finds many names in a text in one pass.

    Args:
        names: as words. At each position the longest match counts, and the search continues after it.

    >>> search = NameSearch([words_of("Boeing 737"), words_of("Boeing 737-800")])
    >>> sorted(search.names_in("A Boeing 737-800, and the boeing-737."))
    [('boeing', '737'), ('boeing', '737', '800')]
    >>> search.names_in("A Boeing 737-800.")
    {('boeing', '737', '800')}
    """

    def __init__(self, names: Iterable[Words]) -> None:
        self._by_first: dict[str, list[Words]] = {}
        for name in sorted(set(names), key=len, reverse=True):
            if name:
                self._by_first.setdefault(name[0], []).append(name)

    def names_in(self, text: str) -> set[Words]:
        """The names that occur in a text."""
        words, exposure, at = words_of(text), set[Words](), 0
        while at < len(words):
            name = next((n for n in self._by_first.get(words[at], ()) if words[at : at + len(n)] == n), None)
            if name:
                exposure.add(name)
            at += len(name) if name else 1
        return exposure


def texts_of(path: Path) -> Iterator[str]:
    """The texts of a file, see ``exposure_of``.

    Raises:
        DataError: it cannot be read.
    """
    if path.suffix == ".jsonl":
        for number, line in json_lines(path):
            yield from _strings(parse_json(line, f"{path} line {number}"))
    elif path.suffix == ".json":
        yield from _strings(read_json(path))
    elif path.suffix in (".yaml", ".yml"):
        yield from _strings(_yaml(path))
    else:
        yield read_text(path)


def _yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(read_text(path))
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        text = " ".join(str(error).split())
        raise DataError(str(path), "yaml", f"cannot be read ({text}); correct it") from error


def _strings(value: Any) -> Iterator[str]:
    """All strings in parsed JSON or YAML, including field names, because facts are keyed by entity."""
    waiting, seen = [value], set[int]()  # YAML aliases may be recursive
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict | list) and id(value) not in seen:
            seen.add(id(value))
            inner = [p for k, v in value.items() for p in (str(k), v)] if isinstance(value, dict) else value
            waiting.extend(reversed(inner))


def _listed(path: Path) -> list[str] | None:
    """Names of a published list of entities; None if the file has another format."""
    if path.suffix != ".json" or not path.is_file():
        return None
    rows = read_json(path)
    if not isinstance(rows, list) or not rows or not all(isinstance(r, dict) and "entity_name" in r for r in rows):
        return None
    return [text_of(f"{path} record {number}", row, "entity_name") for number, row in enumerate(rows)]


def _read_set(path: str | Path, exposure: Exposure, reading: Reading | None) -> list[str]:
    """Adds the objects of a training set, and returns its rationales."""
    parts, tally, rationales = open_store(path, reading=reading).parts(), Tally(log_problems=False), list[str]()
    samples = (sample for part in parts for _, sample in part.read(tally))
    for sample in with_progress(samples, f"entities of {path}", sum(part.num_samples for part in parts)):
        names = [item.entity for item in sample.objects]
        exposure.pictured |= {words_of(name) for name in names if name}
        exposure.num_unnamed += names.count("")
        if sample.rationale:
            rationales.append(sample.rationale)
    exposure.num_samples += tally.num_read
    exposure.num_bad += tally.num_bad + tally.num_cut
    exposure.problems += tally.problems
    return rationales
