"""Toy stand-ins for what configs name: a checkpoint of each family, and the sets in each format."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image, ImageDraw

from kvg.backbones.backbone import Backbone
from kvg.backbones.find_family import family_of_type, known_families
from kvg.formats.grpo_parquet import write_grpo_parquet
from kvg.formats.kvg_bench import write_kvg_bench
from kvg.formats.sharegpt import write_sharegpt
from kvg.shards.writer import ShardWriter
from kvg.types import Sample, SceneObject
from tests.by_heart import learn_by_heart

NUM_SAMPLES, NUM_QUESTIONS = 320, 4
LEARNT = 0.1  # nats a token


def family_of_name(checkpoint: str) -> str:
    """Model type of a published name, such as ``Qwen/Qwen2.5-VL-7B-Instruct``; ``qwen2_vl`` of all others."""
    name = re.sub(r"[-./]", "_", checkpoint.lower())
    name = re.sub(r"(_vl)(?=_\d+b_a\d+b)", r"\1_moe", name)  # 30B-A3B: so many parameters, and so many for a token
    name = re.sub(r"glm_4_\d+v", "glm4v", name)
    known = sorted(known_families(), key=len, reverse=True)
    return next((own for own in known if own in name), "qwen2_vl")


@dataclass(frozen=True)
class Toys:
    """Where they lie."""

    folder: Path

    def checkpoint(self, family: str) -> Path:
        """A model that has half learnt how answers look: some earn a reward and some do not. Made when it is needed."""
        folder = self.folder / family
        if not folder.is_dir():
            half_taught(Backbone("tiny", family_of_type(family))).export(folder)
        return folder

    def train(self, path: str) -> Path:
        """A set in the format of the one that a config names."""
        found = {".json": "cot-sft-bird.json", ".parquet": "grpo-bird.parquet"}
        return self.folder / found.get(Path(path).suffix, "shards")

    def test(self, path: str) -> Path:
        """Questions, as above."""
        return self.folder / {".parquet": "kvg-bench.parquet"}.get(Path(path).suffix, "questions")

    @property
    def replay(self) -> Path:
        """Texts without a picture."""
        return self.folder / "replay.jsonl"


def samples(num: int) -> Iterator[Sample]:
    """Two coloured squares, one of which is asked for; four pictures over and over."""
    pictures = []
    for shift in range(0, 56, 14):
        image, file = Image.new("RGB", (84, 56), "white"), io.BytesIO()
        pen = ImageDraw.Draw(image)
        pen.rectangle((0, shift // 2, 27, shift // 2 + 27), fill="red")
        pen.rectangle((56, 28 - shift // 2, 83, 55 - shift // 2), fill="blue")
        image.save(file, "PNG")
        objects = (
            SceneObject("Merlin", (0.0, shift // 2, 28.0, shift // 2 + 28.0)),
            SceneObject("Hobby", (56.0, 28.0 - shift // 2, 84.0, 56.0 - shift // 2)),
        )
        pictures.append((file.getvalue(), objects))
    for number in range(num):
        image, objects = pictures[number % 4]
        said = f"So <box:{number // 4 % 2}>."
        yield Sample(f"k{number:03d}", image, 84, 56, "bird", "seen", objects, number // 4 % 2, said)


def make_toys(folder: Path) -> Toys:
    """Writes the sets."""
    toys = Toys(folder)
    for name, num in (("shards", NUM_SAMPLES), ("questions", NUM_QUESTIONS)):
        with ShardWriter(folder / name, num // 4) as writer:
            for sample in samples(num):
                writer.write(sample)
    write_sharegpt(samples(NUM_SAMPLES), toys.train("x.json"))
    write_grpo_parquet(samples(NUM_SAMPLES), toys.train("x.parquet"))
    write_kvg_bench((replace(sample, rationale="") for sample in samples(NUM_QUESTIONS)), toys.test("x.parquet"))
    toys.replay.write_text(json.dumps({"prompt": "Which bird is blue?", "completion": "The hobby."}) + "\n")
    return toys


def half_taught(backbone: Backbone) -> Backbone:
    """Learns eight answers until they come out right about every other time."""
    shown = list(samples(8))
    examples = [backbone.processor.encode(s, mode="think", target="rationale") for s in shown]
    learn_by_heart(backbone, backbone.processor.collate(examples, shown), rate=6e-3, max_steps=200, until=LEARNT)
    return backbone
