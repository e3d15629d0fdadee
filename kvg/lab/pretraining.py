"""Batches for the lab's base model: rows with a scene and several questions, and rows of text cards.

The picture of a scene and the text before it are computed once for all of its questions (kvg.packing). The batch also
has labels, which the pretraining module uses as auxiliary targets: of each visual token the object under it, of each
word of an answer the object that it describes, and of each requested box the traits in the request.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Protocol

import torch
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import IterableDataset

from kvg.batches import Picture
from kvg.lab.labels import UNSAID, Looks, mentions, token_labels, token_owners, wanted_looks
from kvg.lab.skills import SKILLS, TURN, card_text
from kvg.lab.traits import load_cards
from kvg.packing import PackedRow, pack_batch, pack_row
from kvg.pictures import read_rgb
from kvg.shards.dataset import ShardDataset
from kvg.shards.reader import SampleStore
from kvg.text.prompts import fill_boxes
from kvg.types import Sample


class SceneProcessor(Protocol):
    """The part of the backbone's processor that is needed here; see ``kvg.backbones.processor.ChatProcessor``."""

    image_token_id: int
    pad_token_id: int

    def chat(self, text: str, *, num_images: int = 1) -> str:
        """Returns the prompt in chat format."""

    def ids(self, text: str) -> list[int]:
        """Returns the token ids of a text."""

    def expand(self, text: str, picture: Picture) -> str:
        """Repeats the image placeholder for each visual token."""

    def picture(self, image: Image) -> Picture:
        """Splits a picture into patches."""

    def box_texts(self, sample: Sample) -> list[str]:
        """Returns the boxes of all objects as text."""


@dataclass(frozen=True)
class Phase:
    """One part of the curriculum, up to the share ``until`` of all batches.

    Without ``skills`` the batches have only pictures and labels of their visual tokens. Then many more scenes per
    second can be trained on while the vision tower learns.
    """

    until: float
    skills: Mapping[str, float] = field(default_factory=dict)
    scenes: int = 16


class PretrainRows(IterableDataset[dict[str, Tensor]]):
    """Packed batches of scenes from shards; scenes are repeated with other questions.

    Args:
        processor: processor of the backbone.
        scenes: composites of nameless combinations of traits (``configs/lab/scenes.yaml``).
        phases: the curriculum, in order.
        num_batches: length of the stream over all ranks; the phases are shares of it.
        card_rows: rows of text cards per batch.
        row_tokens: length in tokens up to which a row is filled with questions.
        seed: seed of all random choices.
        start: number of batches of this rank to skip, to resume a run.
        rank: index of this process.
        world_size: number of processes; batches are assigned to them in turn.
    """

    def __init__(
        self,
        processor: SceneProcessor,
        scenes: SampleStore,
        phases: Sequence[Phase],
        num_batches: int,
        card_rows: int = 1,
        row_tokens: int = 300,
        seed: int = 0,
        start: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.processor, self.phases, self.num_batches, self.start = processor, tuple(phases), num_batches, start
        self.card_rows, self.row_tokens, self.seed = card_rows, row_tokens, seed
        self.rank, self.world_size = rank, world_size
        self.scenes = ShardDataset(scenes, seed)
        self._cards = [card for card in load_cards() if card.known]

    def __len__(self) -> int:
        return self.num_batches // self.world_size - self.start

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        samples = self.scenes.endless(0, self.rank, self.world_size)
        for turn in range(self.num_batches // self.world_size):
            index = turn * self.world_size + self.rank
            scenes = list(islice(samples, self.phase(index).scenes))
            if turn >= self.start:
                yield self.batch(index, scenes)

    def phase(self, index: int) -> Phase:
        """Returns the phase of batch ``index``."""
        share = index / self.num_batches
        return next((phase for phase in self.phases if share < phase.until), self.phases[-1])

    def batch(self, index: int, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Makes batch ``index``.

        Returns:
            The result of ``pack_batch``, the pictures, and labels. ``dense_*`` of the visual tokens ``[scenes * 25]``.
            ``owners`` ``[scenes, 25]``: the object under each visual token, -1 = none. ``about`` ``[B, L]``: the object
            that the *next* token describes, -1 = none. ``wanted`` ``[B, L, traits]``: the traits of the target at
            tokens of boxes and comparisons, in the classes of ``TRAIT_CLASSES``, -100 = unspecified.
        """
        rng, phase = random.Random(f"{self.seed}:{index}"), self.phase(index)
        rows: list[tuple[PackedRow, list[int], list[Looks]]] = []
        pixels, grids, dense, owners = [], [], [], []
        for sample in samples:
            picture = self.processor.picture(read_rgb(sample.image, sample.key))
            patches, grid = picture.tensors["patches"], picture.tensors["grid"][0]
            rows.append(self._scene_row(sample, picture, phase.skills, rng))
            owners.append(token_owners(sample, grid))
            dense.append(token_labels(sample, owners[-1]))
            pixels.append(patches)
            grids.append(grid)
        if phase.skills:
            rows += [(self._card_row(rng), [], []) for _ in range(self.card_rows)]
        batch = pack_batch([row for row, _, _ in rows], self.processor.pad_token_id)
        length = batch["input_ids"].shape[1]
        batch["about"] = torch.tensor([about + [-1] * (length - len(about)) for _, about, _ in rows])
        batch["wanted"] = torch.tensor([wanted + [UNSAID] * (length - len(wanted)) for _, _, wanted in rows])
        batch["owners"] = torch.stack(owners)
        batch["patches"], batch["image_grid_thw"] = torch.cat(pixels), torch.stack(grids)
        for name in dense[0]:
            batch[f"dense_{name}"] = torch.cat([d[name] for d in dense])
        return batch

    def _scene_row(
        self, sample: Sample, picture: Picture, skills: Mapping[str, float], rng: random.Random
    ) -> tuple[PackedRow, list[int], list[Looks]]:
        """Returns a packed row, and for each token the object of the next token and the traits of the target."""
        boxes = self.processor.box_texts(sample)
        before, after = self.processor.chat("\0").split("\0")
        prefix = self.processor.ids(self.processor.expand(before, picture))
        segments: list[tuple[list[int], list[int]]] = []
        spoken: list[int] = [-1] * len(prefix)
        looks: list[Looks] = [UNSAID] * len(prefix)
        for _ in range(40 if skills else 0):
            skill = rng.choices(list(skills), list(skills.values()))[0]
            request, answer = SKILLS[skill](replace(sample, target=rng.randrange(len(sample.objects))), rng)
            opened, _, begun = request.partition(TURN)
            question, reply = self.processor.ids(fill_boxes(opened, boxes) + after + begun), []
            about, sought = [-1] * len(question), [UNSAID] * len(question)
            wanted = wanted_looks(request) if skill == "ground" else UNSAID
            for text, number in mentions(request, answer):
                tokens = self.processor.ids(fill_boxes(text, boxes))
                reply += tokens
                about += [number] * len(tokens)
                sought += [wanted] * len(tokens)
                if "Compare:" in text:  # from here on each object is compared with the description
                    wanted = wanted_looks(request)
            if not segments or len(spoken) + len(about) <= self.row_tokens:
                segments.append((question, [*reply, *self.processor.ids("<|im_end|>")]))
                spoken += [*about, -1]
                looks += [*sought, UNSAID]
            if self.row_tokens - len(spoken) < 40:
                break
        _, rows, columns = picture.tensors["grid"][0].tolist()
        merged = (rows // 2, columns // 2)
        return (
            pack_row(prefix, segments, self.processor.image_token_id, merged),
            [*spoken[1:], -1],
            [*looks[1:], UNSAID],
        )

    def _card_row(self, rng: random.Random) -> PackedRow:
        segments, room = [], self.row_tokens
        while room > 0:
            request, answer = card_text(rng.choice(self._cards), rng)
            head = "<|endoftext|>" if request is None else self.processor.chat(request, num_images=0)
            segment = (self.processor.ids(head), self.processor.ids(answer + "<|im_end|>"))
            room -= len(segment[0]) + len(segment[1])
            segments.append(segment)
        return pack_row([], segments, self.processor.image_token_id, None)
