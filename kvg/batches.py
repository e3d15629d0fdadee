"""What a processor makes of samples: pictures as tensors, tokenised examples, and padded batches.

A family of models decides what a picture becomes (patches and a grid, or tiles and a mask). Nobody but the family looks
into these tensors; whoever cuts or joins batches only needs to know which rows belong to which picture, and which
picture to which prompt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from kvg.types import Records, Sample, SceneObject


@dataclass(frozen=True)
class Picture:
    """One picture as its family's vision tower takes it.

    Attributes:
        tensors: by name; their rows may differ in number.
        num_tokens: visual tokens that it becomes.
        source: the encoded file, by which its visual tokens are known again; empty where there is none.
    """

    tensors: Mapping[str, Tensor]
    num_tokens: int
    source: bytes = b""


@dataclass(frozen=True)
class Example:
    """One tokenised sample.

    Attributes:
        input_ids: ``[L]``.
        labels: ``[L]``, -100 where nothing is learnt.
        pictures: in the order of their placeholders.
    """

    input_ids: Tensor
    labels: Tensor
    pictures: tuple[Picture, ...] = ()


# The dataclasses below are not frozen, although nobody writes to them: Lightning walks through batches to convert their
# tensors (``precision: bf16-true``), copies each dataclass that it meets, and cannot copy a frozen one.
@dataclass(eq=False)
class Pictures:
    """The pictures of a batch, their rows behind each other.

    Attributes:
        tensors: by name, ``[rows of all pictures, ...]``.
        sizes: rows of each picture, by the same names.
        num_tokens: visual tokens of each picture.
        owners: row of the batch that each picture belongs to; never falling.
        sources: see ``Picture``.
    """

    tensors: dict[str, Tensor]
    sizes: dict[str, tuple[int, ...]]
    num_tokens: tuple[int, ...]
    owners: tuple[int, ...]
    sources: tuple[bytes, ...]

    @classmethod
    def pack(cls, prompts: Sequence[Sequence[Picture]]) -> Pictures | None:
        """The pictures of each prompt; None where there is none at all."""
        flat = [picture for own in prompts for picture in own]
        if not flat:
            return None
        return cls(
            {name: torch.cat([p.tensors[name] for p in flat]) for name in flat[0].tensors},
            {name: tuple(len(p.tensors[name]) for p in flat) for name in flat[0].tensors},
            tuple(p.num_tokens for p in flat),
            tuple(row for row, own in enumerate(prompts) for _ in own),
            tuple(p.source for p in flat),
        )

    def __len__(self) -> int:
        return len(self.owners)

    def of_prompts(self, prompts: Sequence[int]) -> list[int]:
        """Numbers of the pictures of these prompts, in their order."""
        own: dict[int, list[int]] = {}
        for number, owner in enumerate(self.owners):
            own.setdefault(owner, []).append(number)
        return [number for prompt in prompts for number in own.get(prompt, ())]

    def take(self, prompts: Sequence[int]) -> Pictures | None:
        """The pictures of these prompts, which become prompts 0, 1, ...; None where they have none."""
        chosen = self.of_prompts(prompts)
        counts = [self.owners.count(prompt) for prompt in prompts]
        owners = tuple(place for place, count in enumerate(counts) for _ in range(count))
        return replace(self.select(chosen), owners=owners) if chosen else None

    def select(self, pictures: Sequence[int]) -> Pictures:
        """These pictures in this order, each with the owner that it has."""
        return Pictures(
            {name: _rows(value, self.sizes[name], pictures) for name, value in self.tensors.items()},
            {name: tuple(sizes[n] for n in pictures) for name, sizes in self.sizes.items()},
            tuple(self.num_tokens[n] for n in pictures),
            tuple(self.owners[n] for n in pictures),
            tuple(self.sources[n] for n in pictures),
        )

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Pictures:
        """The same on a device."""
        return replace(self, tensors={n: t.to(device, non_blocking=non_blocking) for n, t in self.tensors.items()})


@dataclass(eq=False)
class VisualTokens:
    """What a vision tower and its projector make of pictures.

    Attributes:
        tokens: ``[T, H]``, in the order of the placeholders.
        counts: tokens of each picture.
        deep: each ``[T, H]``: added to the hidden states after the first layers of the language model (DeepStack,
            arXiv 2406.04334).
    """

    tokens: Tensor
    counts: tuple[int, ...]
    deep: tuple[Tensor, ...] = ()

    def select(self, pictures: Sequence[int]) -> VisualTokens:
        """The tokens of these pictures, in this order."""
        deep = tuple(_rows(layer, self.counts, pictures) for layer in self.deep)
        return VisualTokens(_rows(self.tokens, self.counts, pictures), tuple(self.counts[n] for n in pictures), deep)

    @classmethod
    def join(cls, parts: Sequence[VisualTokens]) -> VisualTokens:
        """Tokens of pictures behind each other."""
        deep = tuple(torch.cat(layers) for layers in zip(*(part.deep for part in parts), strict=True))
        return cls(torch.cat([part.tokens for part in parts]), sum((part.counts for part in parts), ()), deep)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> VisualTokens:
        """The same on a device."""
        deep = tuple(layer.to(device, non_blocking=non_blocking) for layer in self.deep)
        return replace(self, tokens=self.tokens.to(device, non_blocking=non_blocking), deep=deep)


@dataclass(eq=False)
class Batch:
    """Padded examples.

    Attributes:
        input_ids: ``[B, L]``.
        attention_mask: ``[B, L]``, 1 where a token counts.
        labels: ``[B, L]``, -100 where nothing is learnt.
        samples: that the first rows were made of; rows of replayed text follow.
        pictures: of all rows; None where there are none.
        visual: the tokens of ``pictures``, where they have been computed.
        padding: whether it repeats a batch so that all processes take as many steps.
        prompts_per_group: neighbouring prompts whose completions are compared with each other; 2 for pairs.
        following: the batch after this one, from loaders that look ahead; it has none itself.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    samples: Records[Sample] = field(default_factory=Records)
    pictures: Pictures | None = None
    visual: VisualTokens | None = None
    padding: bool = False
    prompts_per_group: int = 1
    following: Batch | None = None

    def __len__(self) -> int:
        return len(self.input_ids)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same on a device; samples stay where they are."""
        moved: dict[str, Any] = {
            one.name: value.to(device, non_blocking=non_blocking)
            for one in fields(self)
            if isinstance(value := getattr(self, one.name), Tensor | Pictures | VisualTokens | Batch)
        }
        return replace(self, **moved)

    def take(self, prompts: Sequence[int]) -> Batch:
        """Only these rows, in this order, with their pictures."""
        rows = torch.tensor(list(prompts), device=self.input_ids.device)
        visual = self.visual
        if visual is not None and self.pictures is not None:
            visual = visual.select(self.pictures.of_prompts(prompts))
        return replace(
            self,
            input_ids=self.input_ids[rows],
            attention_mask=self.attention_mask[rows],
            labels=self.labels[rows],
            samples=Records(self.samples[row] for row in prompts if row < len(self.samples)),
            pictures=None if self.pictures is None else self.pictures.take(prompts),
            visual=visual,
            following=None,
        )

    def state(self) -> dict[str, Any]:
        """Everything as plain values and tensors, for files that are read without running what they hold.

        Visual tokens with a way back to the tower are left out, since a replay has to reach the tower, too.
        """
        values = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "following"}
        values["samples"] = [asdict(sample) for sample in self.samples]
        values["pictures"] = None if self.pictures is None else dict(vars(self.pictures))
        visual = None if self.visual is None or self.visual.tokens.requires_grad else self.visual
        values["visual"] = None if visual is None else dict(vars(visual))
        return values

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Batch:
        """The batch that ``state`` was taken of."""
        samples = (
            Sample(**{**sample, "objects": tuple(SceneObject(**item) for item in sample["objects"])})
            for sample in state["samples"]
        )
        pictures = None if state["pictures"] is None else Pictures(**state["pictures"])
        visual = None if state["visual"] is None else VisualTokens(**state["visual"])
        return cls(**{**state, "samples": Records(samples), "pictures": pictures, "visual": visual})


class Processor(Protocol):
    """The weightless half of a backbone: all that a data module needs to know of a model. Picklable."""

    def encode(self, sample: Sample, *, mode: str, target: str | None) -> Example:
        """Tokenises a sample.

        Args:
            sample: the record; its image is decoded and resized to the backbone's pixel budget here.
            mode: prompt mode, a key of ``kvg.text.prompts.PROMPTS``.
            target: ``rationale`` (think + answer), ``answer`` (answer only) or None (prompt only, for sampling).

        Raises:
            DataError: the image does not decode, or a box lies outside it.
        """

    def collate(self, examples: Sequence[Example], samples: Iterable[Sample], *, pad_left: bool = False) -> Batch:
        """Pads to one batch.

        Args:
            examples: at least one.
            samples: that the first of them were made of.
            pad_left: for prompts that are continued.
        """


def _rows(value: Tensor, sizes: Sequence[int], chosen: Sequence[int]) -> Tensor:
    """Rows of the chosen pictures."""
    if list(chosen) == list(range(len(sizes))):
        return value
    parts = torch.split(value, list(sizes))
    return torch.cat([parts[n] for n in chosen]) if chosen else value[:0]
