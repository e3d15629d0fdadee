"""Samples per second from shards to batches of patches and tokens: our reader, `webdataset`, and `datasets`.

    python tests/benchmarks/reader.py --peer FOLDER

FOLDER is where `datasets` was installed with `pip install --target FOLDER datasets` (none: the installed one). All read
the same shards of 640x480 JPEG composites with the same buffer for mixing, resize to the same budget, use the same
tokenizer and chat template, and make the same batches (checked before anything is timed) in as many worker processes of
one thread. The peers decode with Pillow and hand the picture to transformers' own image processor (Pillow and numpy),
whose result is the float input of the vision tower. Ours hands over bytes, which `pixel_values` turns into the same
floats on the model's device; `ours+floats` does that too, here on the CPU and in the main process. Ours keeps freed
memory, as the command `kvg` does on a CPU (kvg.work.cpu); `--kept` lets the peers keep it, too. Each run is a process
of its own, in turns; a ratio is that of two runs of one turn. Without workers, the CPU time of the process is told,
too; it does not depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from compare_grpo import spread

MIN_PIXELS, MAX_PIXELS, MIXED = 56 * 56, 401_408, 100
OURS = ("ours", "ours+floats")
WAYS = (*OURS, "webdataset", "datasets")


def make_shards(folder: Path, num: int) -> None:
    """Composites of the lab's drawings on 640x480 canvases, with rationales."""
    from dataclasses import replace

    from kvg.composites.compositor import Compositor
    from kvg.composites.settings import CompositorConfig
    from kvg.lab.world import LabSource
    from kvg.rationales.rationale import CardWriter
    from kvg.shards.writer import ShardWriter

    compositor = Compositor(LabSource(variants=2), CompositorConfig(canvas_sizes=((640, 480),)))
    with ShardWriter(folder, max(1, num // 8)) as shards:
        for index in range(num):
            sample = compositor.sample(index)
            shards.write(replace(sample, rationale=CardWriter().write(sample)))


def our_processor() -> Any:
    """The processor of Qwen2-VL with the paper's budget."""
    from kvg.backbones.builtin import lab_tokenizer
    from kvg.backbones.families.qwen2_vl import Qwen2VL
    from kvg.backbones.picture_settings import PatchSettings
    from kvg.backbones.processor import ChatProcessor

    return ChatProcessor(lab_tokenizer(), Qwen2VL(), PatchSettings(MIN_PIXELS, MAX_PIXELS))


def ours(folder: Path, batch_size: int, workers: int, floats: bool) -> Iterator[Mapping[str, Any]]:
    """Our loader."""
    from data_modules.loader import StreamLoader
    from data_modules.recipe import Recipe
    from kvg.shards.dataset import ShardDataset
    from kvg.shards.reader import ShardFolder

    processor = our_processor()
    dataset = ShardDataset(ShardFolder(folder), seed=0, shuffle_buffer=MIXED)
    recipe = Recipe(batch_size, "think", "rationale")
    for batch in StreamLoader(dataset, processor, recipe, workers, endless=True):
        pictures = batch.pictures.tensors
        if floats:
            pictures["pixel_values"] = processor.pictures.pixel_values(pictures.pop("patches"))
        yield {"input_ids": batch.input_ids, **pictures}


class PeerEncoder:
    """What a pipeline of transformers' own parts does with a record and its picture."""

    def __init__(self) -> None:
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

        from kvg.backbones.builtin import lab_tokenizer

        self.images = Qwen2VLImageProcessorPil(size={"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS})
        self.tokenizer = our_processor().tokenizer if lab_tokenizer().chat_template is None else lab_tokenizer()

    def __call__(self, record: Mapping[str, Any], image: Any) -> dict[str, Any]:
        """Tokens, labels, and the floats of the picture."""
        import torch

        from kvg.text.box_codec import ImageSize, RelativeCodec
        from kvg.text.completion import write_completion
        from kvg.text.prompts import fill_boxes, prompt

        pixels = self.images(images=image.convert("RGB"), return_tensors="pt")
        num_tokens = int(pixels["image_grid_thw"][0].prod()) // 4
        parts = [{"type": "image"}, {"type": "text", "text": prompt(record["entity"], "think")}]
        turns = [{"role": "user", "content": parts}]
        asked = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        asked = asked.replace("<|image_pad|>", "<|image_pad|>" * num_tokens, 1)
        size = ImageSize(record["width"], record["height"], record["width"], record["height"])
        boxes = [RelativeCodec().encode(tuple(thing["box_px"]), size) for thing in record["objects"]]
        told = write_completion(fill_boxes(record["rationale"], boxes), boxes[record["target"]]) + "<|im_end|>"
        head, tail = (self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (asked, told))
        ids, labels = torch.tensor(head + tail), torch.tensor([-100] * len(head) + tail)
        return {"input_ids": ids, "labels": labels, "key": record["key"], **pixels}

    def collate(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Pads to one batch."""
        import torch
        from torch.nn.utils.rnn import pad_sequence

        ids = [example["input_ids"] for example in examples]
        pad = int(self.tokenizer.pad_token_id or 0)
        return {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=pad),
            "labels": pad_sequence([example["labels"] for example in examples], batch_first=True, padding_value=-100),
            "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
            "pixel_values": torch.cat([example["pixel_values"] for example in examples]),
            "image_grid_thw": torch.cat([example["image_grid_thw"] for example in examples]),
            "keys": [example["key"] for example in examples],
        }


def with_webdataset(folder: Path, batch_size: int, workers: int) -> Iterable[Mapping[str, Any]]:
    """A pipeline of `webdataset`."""
    import webdataset as wds
    from PIL import Image

    encoder = PeerEncoder()

    def encode(row: Mapping[str, Any]) -> dict[str, Any]:
        return encoder(json.loads(row["json"]), Image.open(io.BytesIO(row["jpg"])))

    urls = sorted(str(path) for path in folder.glob("*.tar"))
    data = wds.WebDataset(urls, shardshuffle=False, empty_check=False).shuffle(MIXED, seed=0).map(encode)
    return wds.WebLoader(data.batched(batch_size, encoder.collate), batch_size=None, num_workers=workers)


def with_datasets(folder: Path, batch_size: int, workers: int) -> Iterable[Mapping[str, Any]]:
    """A stream of `datasets`, which decodes the picture; the rest is done where batches are put together."""
    import datasets
    from torch.utils.data import DataLoader

    encoder = PeerEncoder()
    files = sorted(str(path) for path in folder.glob("*.tar"))
    data = datasets.load_dataset("webdataset", data_files={"train": files}, split="train", streaming=True)

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        return encoder.collate([encoder(row["json"], row["jpg"]) for row in rows])

    mixed = data.shuffle(seed=0, buffer_size=MIXED)
    return DataLoader(mixed, batch_size=batch_size, num_workers=workers, collate_fn=collate)


def batches_of(way: str, folder: Path, batch_size: int, workers: int) -> Iterable[Mapping[str, Any]]:
    """The batches of one way."""
    if way == "webdataset":
        return with_webdataset(folder, batch_size, workers)
    if way == "datasets":
        return with_datasets(folder, batch_size, workers)
    return ours(folder, batch_size, workers, floats=way == "ours+floats")


def measure(way: str, folder: Path, batch_size: int, workers: int, num: int, kept: bool) -> dict[str, float]:
    """Speed of one way, from the first batch on, until so many batches have come.

    Returns:
        ``samples_per_s``, and ``cpu_ms`` a sample of this process, which is all of it where there are no workers.
    """
    import torch

    from kvg.work.cpu import keep_freed_memory

    torch.set_num_threads(1)
    if way in OURS or kept:
        keep_freed_memory()
    coming = iter(batches_of(way, folder, batch_size, workers))
    next(coming)
    start, cpu = time.perf_counter(), os.times()
    num_samples = sum(len(batch["input_ids"]) for batch in islice(coming, num))
    seconds = time.perf_counter() - start
    spent = os.times()
    busy = spent.user + spent.system - cpu.user - cpu.system
    return {"samples_per_s": num_samples / seconds, "cpu_ms": 1000 * busy / num_samples}


def check_equal(folder: Path) -> None:
    """All ways give the same examples.

    Raises:
        RuntimeError: they do not.
    """
    from PIL import Image

    from kvg.shards.reader import ShardFolder
    from kvg.shards.schema import encode_record

    processor, encoder = our_processor(), PeerEncoder()
    for _, sample in islice(ShardFolder(folder).parts()[0].read(), 8):
        own = processor.encode(sample, mode="think", target="rationale")
        record = json.loads(encode_record(sample)["json"])
        other = encoder(record, Image.open(io.BytesIO(sample.image)))
        same = all(bool((getattr(own, name) == other[name]).all()) for name in ("input_ids", "labels"))
        apart = float(
            (processor.pictures.pixel_values(own.pictures[0].tensors["patches"]) - other["pixel_values"]).abs().max()
        )
        if not same or apart > 1e-6:
            raise RuntimeError(f"{sample.key}: tokens {'the same' if same else 'differ'}, floats {apart} apart")


def run_in_process(args: argparse.Namespace, way: str, folder: Path) -> dict[str, float]:
    """One run in a process of its own."""
    command = [sys.executable, str(Path(__file__)), "--way", way, "--shards", str(folder), "--peer", args.peer]
    command += ["--batch-size", str(args.batch_size), "--workers", str(args.workers), "--batches", str(args.batches)]
    command += ["--kept"] if args.kept else []
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode:
        raise SystemExit(f"{way}\n{done.stderr[-3000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(args: argparse.Namespace, folder: Path) -> None:
    """Runs all ways in turns and prints the table."""
    check_equal(folder)
    found: dict[str, list[dict[str, float]]] = {way: [] for way in args.ways}
    for turn in range(args.turns):
        order = args.ways if turn % 2 == 0 else args.ways[::-1]  # nobody always comes first
        for way in order:
            found[way].append(run_in_process(args, way, folder))
    memory = "all keep freed memory" if args.kept else "the peers give freed memory back"
    print(f"{args.workers} workers, batches of {args.batch_size}, {args.turns} turns; {memory}")
    own = [way for way in OURS if way in found]
    measures = {"samples_per_s": "samples/s"} | ({} if args.workers else {"cpu_ms": "CPU ms a sample"})
    for measure_name, title in measures.items():
        print(f"| | {title} | {' | '.join(f'{way} is so many times as fast' for way in own)} |")
        print("|--|--|" + "--|" * len(own))
        for way, runs in found.items():
            values = [run[measure_name] for run in runs]
            ratios = [
                spread([_faster(a, b, measure_name) for a, b in zip(found[name], runs, strict=True)]) for name in own
            ]
            print(f"| {way} | {median(values):.1f} ({min(values):.1f} to {max(values):.1f}) | {' | '.join(ratios)} |")


def _faster(ours_: Mapping[str, float], other: Mapping[str, float], name: str) -> float:
    """How many times as fast ours is."""
    return ours_[name] / other[name] if name == "samples_per_s" else other[name] / ours_[name]


def main() -> int:
    """Makes shards and compares, or measures one way in this process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", default="", help="folder that `datasets` was installed to")
    parser.add_argument("--shards", type=Path, help="a set with rationales (default: made of the lab's drawings)")
    parser.add_argument("--num", type=int, default=640, help="samples that are made")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--batches", type=int, default=40, help="timed; one more comes before them")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--kept", action="store_true", help="the peers keep freed memory, too")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--way", choices=WAYS, help="measure in this process, print JSON")
    args = parser.parse_args()
    if args.peer:
        sys.path.append(args.peer)
    if args.way:
        print(json.dumps(measure(args.way, args.shards, args.batch_size, args.workers, args.batches, args.kept)))
        return 0
    if args.shards:
        compare(args, args.shards)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        make_shards(Path(folder) / "set", args.num)
        compare(args, Path(folder) / "set")
    return 0


if __name__ == "__main__":
    sys.exit(main())
