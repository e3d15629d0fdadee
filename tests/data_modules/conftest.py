from __future__ import annotations

import io
import random
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch.nn.utils.rnn import pad_sequence

from kvg.batches import Batch, Example, Picture, Pictures
from kvg.errors import DataError
from kvg.shards.writer import ShardWriter
from kvg.text.prompts import PUBLISHED
from kvg.types import Records, Sample, SceneObject


class LetterProcessor:
    """One token a letter; the picture becomes its mean colour. Small, but it really decodes and really pads."""

    prompt_format = PUBLISHED

    def encode(self, sample: Sample, *, mode: str, target: str | None) -> Example:
        try:
            image = Image.open(io.BytesIO(sample.image)).convert("RGB").resize((1, 1))
        except OSError as error:
            raise DataError(sample.key, "image", str(error)) from error
        asked = f"{mode}: {sample.entity}?"
        if target == "rationale" and not sample.rationale:
            raise DataError(sample.key, "rationale", "is empty")
        told = {"rationale": sample.rationale, "answer": str(sample.box_px), None: ""}[target]
        ids, labels = self._ids(asked, told)
        pixels = torch.tensor(image.getpixel((0, 0))).float()[None]
        return Example(ids, labels, (Picture({"pixel_values": pixels}, 1, sample.image),))

    def encode_turns(self, sample: Sample, turns: Sequence[str]) -> Example:
        example = self.encode(sample, mode="", target=None)
        return Example(*self._ids("/".join(turns), ""), example.pictures)

    def encode_question(self, key: str, image: bytes, text: str, completion: str | None = None) -> Example:
        return self.encode_turns(replace(build(0), key=key, image=image), [text])

    def encode_text(self, asked: str | None, completion: str) -> Example:
        ids, labels = self._ids(asked or "", completion)
        return Example(ids, labels)

    def collate(self, examples: Sequence[Example], samples: Sequence[Sample], *, pad_left: bool = False) -> Batch:
        def padded(rows: list[torch.Tensor], fill: int) -> torch.Tensor:
            side = "left" if pad_left else "right"
            return pad_sequence(rows, batch_first=True, padding_value=fill, padding_side=side)

        ids, labels = padded([e.input_ids for e in examples], 0), padded([e.labels for e in examples], -100)
        pictures = Pictures.pack([e.pictures for e in examples])
        return Batch(ids, (ids > 0).long(), labels, Records(samples), pictures)

    def _ids(self, asked: str, told: str) -> tuple[torch.Tensor, torch.Tensor]:
        ids = torch.tensor([ord(c) for c in asked + told])
        return ids, torch.tensor([-100] * len(asked) + [ord(c) for c in told])


def build(number: int, **changes) -> Sample:
    buffer = io.BytesIO()
    noise = random.Random(number).randbytes(32 * 24 * 3)
    Image.frombytes("RGB", (32, 24), noise).save(buffer, "JPEG")
    fields = {
        "key": f"k{number:04d}",
        "image": buffer.getvalue(),
        "width": 32,
        "height": 24,
        "category": "bird",
        "split": "seen",
        "objects": (SceneObject("Merlin", (1, 2, 9, 20)), SceneObject("Osprey", (12, 2, 30, 20))),
        "target": number % 2,
        "rationale": "Look: 1 <box:0>; 2 <box:1>.",
    }
    return Sample(**{**fields, **changes})


@pytest.fixture
def backbone():
    return SimpleNamespace(processor=LetterProcessor())


@pytest.fixture
def write_set(tmp_path):
    def write(num: int, per_shard: int = 5, name: str = "set", **changes) -> str:
        with ShardWriter(tmp_path / name, per_shard) as writer:
            for number in range(num):
                writer.write(build(number, **changes))
        return str(tmp_path / name)

    return write
