"""Peak of host memory of each process that loads, shards and exports a model, whole or by its own shares.

    python -m tests.benchmarks.host_memory --size 2b --processes 2 --way shares [--reference] [--export]

The checkpoint has the shape of a published model and zeros for weights, so that it takes no room on the disk.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import socket
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from threading import Event, Thread
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.device_mesh import init_device_mesh

from kvg.backbones.backbone import Backbone
from kvg.backbones.builtin import TinySize, lab_tokenizer, qwen2_vl_config
from kvg.backbones.families.qwen2_vl import Qwen2VL
from kvg.backbones.lora import LoRASettings
from kvg.backbones.picture_settings import FILE, PatchSettings
from kvg.backbones.stored_weights import deferred_weights
from kvg.backbones.weight_files import WEIGHTS, former_name
from tests.benchmarks.checkpoints import REAL_VOCABULARY, SIZES

GIB = 2**30


def zeros(folder: Path, size: str, vocabulary: int = REAL_VOCABULARY) -> Path:
    """Writes a checkpoint in bfloat16 whose weights are a hole in a file.

    Args:
        folder: made where it is missing.
        size: one of ``SIZES``.
        vocabulary: rows of the embedding.
    """
    text, (width, depth, heads) = SIZES[size]
    config = qwen2_vl_config(lab_tokenizer(), TinySize(*text[:5], width, depth, heads, 1_000_000.0))
    config.text_config.vocab_size = vocabulary
    config.architectures, config.dtype = [Qwen2VL.hf_class.__name__], "bfloat16"
    with torch.device("meta"):
        model: Any = Qwen2VL.hf_class(config)
    head: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, value in model.state_dict().items():
        if name != "lm_head.weight":
            start, end = end, end + 2 * value.numel()
            head[former_name(name)] = {"dtype": "BF16", "shape": list(value.shape), "data_offsets": [start, end]}
    written = json.dumps(head).encode()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / WEIGHTS).open("wb") as stream:
        stream.write(len(written).to_bytes(8, "little") + written)
        stream.truncate(8 + len(written) + end)
    config.save_pretrained(folder)
    lab_tokenizer().save_pretrained(folder)
    pictures = Qwen2VL().picture_processor(PatchSettings(max_pixels=12_845_056))
    (folder / FILE).write_text(json.dumps(pictures.file_content()))
    return folder


def memory_bytes() -> dict[str, int]:
    """Resident memory of this process: its own, and the peak of all with pages of files that it has mapped."""
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(lines[name].split()[0]) * 1024 for name in ("RssAnon", "VmHWM")}


class Peak:
    """The largest memory of this process' own in a block, looked at every 5 ms."""

    def __enter__(self) -> Peak:
        self.own, self._ended = 0, Event()
        self._thread = Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._ended.wait(0.005):
            self.own = max(self.own, memory_bytes()["RssAnon"])

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()


def process(rank: int, args: argparse.Namespace, folder: str, port: int) -> None:
    """Loads, shards and exports in one process; prints its peaks."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": str(args.processes)}
    os.environ.update(place)
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (args.processes,))
    start, began = memory_bytes()["RssAnon"], time.process_time()
    lora = LoRASettings(r=8) if args.lora else None
    figures: dict[str, float] = {"rank": rank, "before": start / GIB}
    with Peak() as peak:
        with deferred_weights() if args.way == "shares" else nullcontext():
            backbone = Backbone(folder, dtype=args.dtype, lora=lora)
        reference = copy.deepcopy(backbone) if args.reference else None
        backbone.shard(mesh, args.gather)
        if reference is not None:
            reference.shard(mesh)
    figures |= {"load": peak.own / GIB, "kept": memory_bytes()["RssAnon"] / GIB}
    if args.export:
        with Peak() as peak:
            backbone.export(Path(folder) / "export")
        figures["export"] = peak.own / GIB
    figures |= {"with_files": memory_bytes()["VmHWM"] / GIB, "cpu_s": time.process_time() - began}
    print(json.dumps({name: round(value, 2) for name, value in figures.items()}), flush=True)
    dist.destroy_process_group()


def main() -> None:
    """Runs the processes; each prints one line, in GiB."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=sorted(SIZES), default="2b")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--way", choices=("whole", "shares"), default="shares")
    parser.add_argument("--gather", choices=("once", "layer"), default="layer")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--lora", action="store_true")
    parser.add_argument("--reference", action="store_true")
    parser.add_argument("--export", action="store_true")
    args = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="kvg-memory-") as folder:
        checkpoint = zeros(Path(folder) / "model", args.size)
        mp.start_processes(process, (args, str(checkpoint), port), args.processes, start_method="spawn")


if __name__ == "__main__":
    main()
