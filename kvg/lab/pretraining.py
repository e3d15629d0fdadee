"""Batches for the lab's base model: scenes with several questions each in one row, text cards in another.

A scene's picture and the text before it are computed once for all of its questions (kvg.packing). Beside the text,
each visual token carries labels of the object under it; the pretraining module uses them as a training aid.
"""

from __future__ import annotations

import io
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from kvg.lab.skills import SKILLS, card_text
from kvg.lab.traits import BUILDS, CATEGORIES, COLOURS, PARTS, PATTERNS, load_cards
from kvg.lab.world import TraitSource
from kvg.packing import PackedRow, pack_batch, pack_row
from kvg.synthesis.compositor import Compositor, CompositorConfig
from kvg.text.prompts import fill_boxes
from kvg.types import Sample

ALL_PARTS = tuple(dict.fromkeys(part for parts in PARTS.values() for part in parts))
TRAIT_CLASSES = {
    "category": len(CATEGORIES),
    "colour": len(COLOURS),
    "pattern": len(PATTERNS),
    "accent": len(COLOURS),
    "part": len(ALL_PARTS),
    "build": len(BUILDS),
}
EDGE_CLASSES = 21  # a box edge on the lab's canvas falls on one of 21 multiples of the snapping step


class SceneProcessor(Protocol):
    """What is needed of the backbone's processor here; see ``kvg.backbones.processor.QwenVLProcessor``."""

    image_token_id: int
    pad_token_id: int

    def chat(self, text: str, *, image: bool = True) -> str:
        """The prompt in chat format."""

    def ids(self, text: str) -> list[int]:
        """Token ids of a text."""

    def expand(self, text: str, grid_thw: Tensor) -> str:
        """Repeats the image placeholder."""

    def patches(self, image: Image.Image) -> tuple[Tensor, Tensor]:
        """Cuts a picture into patches."""

    def box_texts(self, sample: Sample) -> list[str]:
        """The boxes of all objects in words."""


@dataclass(frozen=True)
class Phase:
    """One part of the curriculum, up to the share ``until`` of all batches.

    Without ``skills`` only pictures and the labels of their visual tokens are delivered: many more scenes fit into a
    second while the vision tower learns to see.
    """

    until: float
    k_weights: Mapping[int, float]
    skills: Mapping[str, float] = field(default_factory=dict)
    neighbour_prob: float = 0.5
    scenes: int = 16


def lab_canvas(seed: int, k_weights: Mapping[int, float], neighbour_prob: float) -> CompositorConfig:
    """The lab's composites: 140 px square, boxes on a grid of 7 px, so that coordinates are multiples of 50."""
    return CompositorConfig(
        seed=seed,
        k_weights=dict(k_weights),
        canvas_sizes=[(140, 140)],
        gap=3,
        fill=(0.85, 1.0),
        snap_px=7,
        neighbour_prob=neighbour_prob,
        image_format="png",
    )


class PretrainRows(IterableDataset[dict[str, Tensor]]):
    """An endless-looking stream of packed batches; batch ``i`` depends on (arguments, i) alone.

    Args:
        processor: the backbone's.
        phases: the curriculum, in order.
        num_batches: length of the stream over all ranks; the curriculum is spread over it.
        card_rows: rows of text cards per batch.
        row_tokens: a row is filled with questions up to this length.
        seed: of everything random.
        start: batches of this rank that have been used up, to go on where a run stopped.
        rank: number of this process.
        world_size: number of processes; they take turns with the batches.
    """

    def __init__(
        self,
        processor: SceneProcessor,
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
        self._cards = [card for card in load_cards() if card.known]
        source = TraitSource(families=70, variants=3, seed=seed)
        self._compositors = [Compositor(source, lab_canvas(seed, p.k_weights, p.neighbour_prob)) for p in self.phases]

    def __len__(self) -> int:
        return self.num_batches // self.world_size - self.start

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for turn in range(self.start + first, self.num_batches // self.world_size, step):
            yield self.batch(turn * self.world_size + self.rank)

    def batch(self, index: int) -> dict[str, Tensor]:
        """Batch number ``index``: packed rows, pictures, and the visual tokens' labels ``[scenes * 25]`` each."""
        rng = random.Random(f"{self.seed}:{index}")
        share = index / self.num_batches
        number = next(n for n, phase in enumerate(self.phases) if share < phase.until or phase is self.phases[-1])
        rows: list[PackedRow] = []
        pixels, grids, dense, pointers = [], [], [], []
        phase = self.phases[number]
        for _ in range(phase.scenes):
            sample = self._compositors[number].sample(rng.randrange(10**9))
            row, patches, grid, sought = self._scene_row(sample, phase, rng)
            owners = token_owners(sample, grid)
            pointers += [(len(rows), position, owners == target) for position, target in sought]
            rows.append(row)
            pixels.append(patches)
            grids.append(grid)
            dense.append(token_labels(sample, owners))
        if phase.skills:
            rows += [self._card_row(rng) for _ in range(self.card_rows)]
        batch = pack_batch(rows, self.processor.pad_token_id)
        batch["pixel_values"], batch["image_grid_thw"] = torch.cat(pixels), torch.stack(grids)
        for name in dense[0]:
            batch[f"dense_{name}"] = torch.cat([d[name] for d in dense])
        pointers = [pointer for pointer in pointers if bool(pointer[2].any())]
        if pointers:
            batch["pointer_at"] = torch.tensor([[row, position] for row, position, _ in pointers])
            batch["pointer_to"] = torch.stack([tokens for _, _, tokens in pointers])
        return batch

    def _scene_row(
        self, sample: Sample, phase: Phase, rng: random.Random
    ) -> tuple[PackedRow, Tensor, Tensor, list[tuple[int, int]]]:
        """A packed row with its picture; of each box asked for, the token before its digits and whose box it is."""
        with Image.open(io.BytesIO(sample.image)) as opened:
            patches, grid = self.processor.patches(opened)
        boxes = self.processor.box_texts(sample)
        before, after = self.processor.chat("\0").split("\0")
        prefix = self.processor.ids(self.processor.expand(before, grid))
        segments: list[tuple[list[int], list[int]]] = []
        sought: list[tuple[int, int]] = []
        room = self.row_tokens - len(prefix)
        for _ in range(40 if phase.skills else 0):
            skill = rng.choices(list(phase.skills), list(phase.skills.values()))[0]
            turned = replace(sample, target=rng.randrange(len(sample.objects)))
            asked, answer = SKILLS[skill](turned, rng)
            question = self.processor.ids(fill_boxes(asked, boxes) + after)
            reply = self.processor.ids(fill_boxes(answer, boxes) + "<|im_end|>")
            if not segments or len(question) + len(reply) <= room:
                segments.append((question, reply))
                if skill == "ground":
                    opening = re.match(r"\D*", boxes[turned.target])
                    lead = len(self.processor.ids(opening.group() if opening else ""))
                    sought.append((self.row_tokens - room + len(question) + lead - 1, turned.target))
                room -= len(question) + len(reply)
            if room < 40:
                break
        merged = (int(grid[1]) // 2, int(grid[2]) // 2)
        return pack_row(prefix, segments, self.processor.image_token_id, merged), patches, grid, sought

    def _card_row(self, rng: random.Random) -> PackedRow:
        segments, room = [], self.row_tokens
        while room > 0:
            asked, answer = card_text(rng.choice(self._cards), rng)
            head = "<|endoftext|>" if asked is None else self.processor.chat(asked, image=False)
            segment = (self.processor.ids(head), self.processor.ids(answer + "<|im_end|>"))
            room -= len(segment[0]) + len(segment[1])
            segments.append(segment)
        return pack_row([], segments, self.processor.image_token_id, None)


def token_owners(sample: Sample, grid_thw: Tensor) -> Tensor:
    """Index of the object under each merged visual token, ``[tokens]``; -1 = none.

    A token belongs to the object that covers most of it, if that is at least a fifth.
    """
    rows, columns = int(grid_thw[1]) // 2, int(grid_thw[2]) // 2
    cell_w, cell_h = sample.width / columns, sample.height / rows
    owners = torch.full((rows * columns,), -1)
    for token in range(rows * columns):
        x, y = token % columns * cell_w, token // columns * cell_h
        cover = []
        for o in sample.objects:
            x1, y1, x2, y2 = o.box_px
            cover.append(max(0.0, min(x2, x + cell_w) - max(x1, x)) * max(0.0, min(y2, y + cell_h) - max(y1, y)))
        best = max(range(len(cover)), key=cover.__getitem__)
        if cover[best] >= 0.2 * cell_w * cell_h:
            owners[token] = best
    return owners


def token_labels(sample: Sample, owners: Tensor) -> dict[str, Tensor]:
    """Traits of the object under each merged visual token, and the edges of its box in snapping steps; -100 = none."""
    names = [*TRAIT_CLASSES, "x1", "y1", "x2", "y2"]
    out = {name: torch.full((len(owners),), -100) for name in names}
    vocabulary = [tuple(COLOURS), PATTERNS, tuple(COLOURS), ALL_PARTS, BUILDS]
    for token, owner in enumerate(owners.tolist()):
        if owner < 0:
            continue
        thing = sample.objects[owner]
        colour, marking, part, build = thing.note.split(", ")
        accent, pattern = (None, "plain") if marking == "plain" else marking.split()
        out["category"][token] = CATEGORIES.index(sample.category)
        for name, words, word in zip(
            list(TRAIT_CLASSES)[1:], vocabulary, (colour, pattern, accent, part, build), strict=True
        ):
            if word is not None:
                out[name][token] = words.index(word)
        for name, edge in zip(("x1", "y1", "x2", "y2"), thing.box_px, strict=True):
            out[name][token] = round(edge * (EDGE_CLASSES - 1) / sample.width)
    return out
