"""Samples of shards as annotated pictures, and back.

``facts`` of a picture holds the fields of a sample that other formats do not know: ``category``, ``split``,
``knowledge``, ``rationale``, ``licences``, ``question_id``, ``provenance``, ``target``, and ``labels``, the labels of
all boxes in order. If another tool has changed the labels, the rationale no longer fits its objects and is left out.
A question whose true box nobody knows has ``entity`` in place of ``target`` and ``labels``, and no boxes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from kvg.benchmark import split_of
from kvg.errors import DataError
from kvg.formats.exchange.picture import AnnotatedPicture, LabelledBox
from kvg.records import excerpt
from kvg.shards.reader import Tally
from kvg.shards.schema import check_sample
from kvg.text.names import clean_name
from kvg.types import Sample, SceneObject

_TEXTS: Final = ("category", "split", "knowledge", "rationale", "question_id")


def picture_of(sample: Sample) -> AnnotatedPicture:
    """Returns a sample as a picture; its options, if it has any, are left out. Without a true box it has no boxes."""
    facts: dict[str, Any] = {name: value for name in _TEXTS if (value := getattr(sample, name))}
    if sample.licences:
        facts["licences"] = list(sample.licences)
    if sample.provenance:
        facts["provenance"] = dict(sample.provenance)
    if not sample.has_box:
        facts |= {"entity": sample.entity}
        return AnnotatedPicture(sample.key, sample.image, sample.width, sample.height, facts=facts)
    facts |= {"target": sample.target, "labels": [o.entity for o in sample.objects]}
    boxes = tuple(LabelledBox(o.entity, o.box_px, sample.category, o.traits) for o in sample.objects)
    return AnnotatedPicture(
        sample.key, sample.image, sample.width, sample.height, boxes, target=sample.target, facts=facts
    )


def only_target(picture: AnnotatedPicture) -> AnnotatedPicture:
    """Returns a picture with the box of its question alone; all boxes if there is no question."""
    if picture.target is None:
        return picture
    box = picture.boxes[picture.target]
    facts = {name: value for name, value in picture.facts.items() if name != "rationale"}
    facts |= {"target": 0, "labels": [box.label]}
    return replace(picture, boxes=(box,), target=0, facts=facts)


def with_target(picture: AnnotatedPicture) -> AnnotatedPicture:
    """Sets the target of a picture that was read, from its facts or because it has a single box.

    If another tool changed the labels, the target is the only box with the target's old label.
    """
    target, labels = picture.facts.get("target"), picture.facts.get("labels")
    now = [box.label for box in picture.boxes]
    if isinstance(target, bool) or not isinstance(target, int) or not isinstance(labels, list):
        return replace(picture, target=0 if len(now) == 1 and not picture.unclear else None)
    if not 0 <= target < len(labels):
        raise DataError(picture.key, "target", f"{target} is not an index into {len(labels)} labels; correct it")
    if now == labels:
        return replace(picture, target=target)
    facts = {name: value for name, value in picture.facts.items() if name != "rationale"}
    same = [index for index, label in enumerate(now) if label == labels[target]]
    return replace(picture, target=same[0] if len(same) == 1 else None, facts=facts)


@dataclass
class SampleMaker:
    """Makes samples of pictures.

    Attributes:
        category: category of boxes that have none.
        tally: counts questions that cannot be asked.
        boxless: whether a question whose true box nobody knows is a sample, too.
        num_rationales_lost: number of rationales that were left out, since labels had changed.
    """

    category: str = ""
    tally: Tally = field(default_factory=Tally)
    boxless: bool = False
    num_rationales_lost: int = 0

    def samples(self, picture: AnnotatedPicture) -> Iterator[Sample]:
        """Yields one sample for the target, or, if there is none, for each label that only one box has."""
        try:
            aimed = with_target(picture)
            facts = _checked(aimed)
        except DataError as error:
            self.tally.note(error)
            return
        self.num_rationales_lost += "rationale" in picture.facts and "rationale" not in facts
        if self.boxless and not aimed.boxes and not aimed.unclear and facts.get("entity"):
            yield from self._boxless(aimed, facts)
            return
        if not aimed.boxes:
            self.tally.note(DataError(picture.key, "boxes", "has none that can be used; add one"))
            return
        labels = [clean_name(box.label) for box in aimed.boxes]
        counts = Counter(labels)
        counts.update(map(clean_name, picture.unclear))
        targets = range(len(labels)) if aimed.target is None else (aimed.target,)
        for target in targets:
            key = picture.key if len(targets) == 1 else f"{picture.key}-{target}"
            try:
                yield self._sample(aimed, facts, key, labels, target, counts)
            except DataError as error:
                self.tally.note(error)

    def _sample(
        self,
        picture: AnnotatedPicture,
        facts: Mapping[str, Any],
        key: str,
        labels: list[str],
        target: int,
        counts: Counter[str],
    ) -> Sample:
        if counts[labels[target]] > 1:
            remedy = f"{excerpt(labels[target])} stands at {counts[labels[target]]} boxes, so none is the right answer"
            raise DataError(key, "label", f"{remedy}; give each object its own name")
        objects = [SceneObject(label, box.box_px, box.traits) for label, box in zip(labels, picture.boxes, strict=True)]
        return self._made(picture, facts, key, objects, target, picture.boxes[target].category)

    def _boxless(self, picture: AnnotatedPicture, facts: Mapping[str, Any]) -> Iterator[Sample]:
        whole = SceneObject(clean_name(facts["entity"]), (0.0, 0.0, float(picture.width), float(picture.height)))
        try:
            yield replace(self._made(picture, facts, picture.key, [whole], 0, ""), has_box=False)
        except DataError as error:
            self.tally.note(error)

    def _made(
        self,
        picture: AnnotatedPicture,
        facts: Mapping[str, Any],
        key: str,
        objects: Sequence[SceneObject],
        target: int,
        category: str,
    ) -> Sample:
        category = category or facts.get("category") or self.category
        sample = Sample(
            key=key,
            image=picture.image,
            width=picture.width,
            height=picture.height,
            category=category,
            split=facts.get("split") or split_of(category),
            objects=tuple(objects),
            target=target,
            rationale=facts.get("rationale", ""),
            knowledge=facts.get("knowledge", ""),
            licences=tuple(facts.get("licences", ())),
            question_id=facts.get("question_id", ""),
            provenance=facts.get("provenance", {}),
        )
        check_sample(sample, key)
        return sample


def _checked(picture: AnnotatedPicture) -> dict[str, Any]:
    """Returns the facts with their types checked, since a file may have been edited."""
    facts = dict(picture.facts)
    for name in (*_TEXTS, "entity"):
        if not isinstance(facts.get(name, ""), str):
            raise DataError(picture.key, name, f"{excerpt(facts[name])} must be text; correct it")
    licences = facts.get("licences", [])
    if not isinstance(licences, list) or not all(isinstance(value, str) for value in licences):
        raise DataError(picture.key, "licences", f"{excerpt(licences)} must be a list of names; correct it")
    if not isinstance(facts.get("provenance", {}), dict):
        raise DataError(picture.key, "provenance", f"{excerpt(facts['provenance'])} must be an object; correct it")
    return facts
