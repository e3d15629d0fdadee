"""The records that flow through every package: scenes, samples and completions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

Box = tuple[float, float, float, float]  # x1, y1, x2, y2
Item = TypeVar("Item")


def traits_of(description: str) -> tuple[str, ...]:
    """The traits of a description, as shards hold it.

    >>> traits_of("white, black spots"), traits_of("")
    (('white', 'black spots'), ())
    """
    return tuple(description.split(", ")) if description else ()


@dataclass(frozen=True)
class SceneObject:
    """One entity in a composite. ``traits`` are its looks in words, one trait each, where they are known."""

    entity: str
    box_px: Box  # in pixels of the stored image
    traits: tuple[str, ...] = ()

    @property
    def description(self) -> str:
        """The traits as one text, for example ``white, black spots``; '' without any."""
        return ", ".join(self.traits)


@dataclass(frozen=True)
class Sample:
    """One record of a shard: a composite, the objects on it, and which of them is the target.

    ``rationale`` is a template: ``<box:N>`` stands for the box of object ``N`` (0-based), which the backbone's codec
    writes at collate time, so that shards fit every backbone. ``knowledge`` is ``known``, ``unknown`` or ''. With
    ``options`` (names, the entity among them) the sample is a question of several choices; without, it asks for a box.
    Without a box (``has_box``) it can be answered, but neither measured nor trained on.
    ``provenance`` is free: nothing is decided by it but whether a composite's seams can be shown (``layout``).
    """

    key: str
    image: bytes  # an encoded JPEG or PNG
    width: int
    height: int
    category: str
    split: str  # seen | unseen
    objects: tuple[SceneObject, ...]
    target: int  # index into objects
    rationale: str = ""
    knowledge: str = ""
    options: tuple[str, ...] = ()
    licences: tuple[str, ...] = ()  # of the pictures that it was made of, as far as they are known
    question_id: str = ""  # of the published benchmark
    pair: str = ""  # the same for two composites of a pair, which lie next to each other; '' for all others
    has_box: bool = True  # False: nobody knows the box; that of the only object is the whole picture
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def entity(self) -> str:
        """Name of the target's entity."""
        return self.objects[self.target].entity

    @property
    def box_px(self) -> Box:
        """True box of the target, in pixels of the stored image."""
        return self.objects[self.target].box_px


@dataclass(frozen=True)
class Completion:
    """What a model generated after one prompt."""

    text: str
    num_tokens: int | None  # None where a server does not tell
    finish_reason: str  # stop | length; '' where it is not known
    max_tokens: int | None = None  # the longest that could be sampled, where that is known


class Records(Generic[Item]):
    """The records of a batch in order, as one object that libraries do not look into.

    Lightning walks through a batch to convert its tensors (``precision: bf16-true``): through mappings, sequences and
    dataclasses, each of which it copies. It cannot copy a frozen dataclass and ends the run. This class behaves like a
    list that nobody writes to, and is no ``collections.abc.Sequence`` on purpose.

    Args:
        items: the records.

    >>> Records("ab")[1], len(Records("ab")), list(Records("ab")), Records("ab") == ["a", "b"]
    ('b', 2, ['a', 'b'], True)
    """

    __slots__ = ("_items",)

    def __init__(self, items: Iterable[Item] = ()) -> None:
        self._items = tuple(items)

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def __getitem__(self, index: int) -> Item:
        return self._items[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Records | list | tuple) and self._items == tuple(other)

    __hash__ = None  # type: ignore[assignment]  # as a list

    def __repr__(self) -> str:
        return f"Records({list(self._items)!r})"
