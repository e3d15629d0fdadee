"""How many composites a second one process makes, and two: from cached tiles to a finished tar, 640x480, JPEG.

python tests/benchmarks/composites.py [--config configs/compose/catalogue.yaml] [--profile]

Everything that is pasted is made here: pictures like photographs (noise of several octaves, half of them cut out), so
that no data is needed. Rounds with one and with two processes take turns; what counts is the median of their ratios.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image, ImageDraw

from kvg.cli.kvg_data import main as kvg_data
from kvg.composites.catalogue_tiles import CatalogueTiles
from kvg.composites.compositor import Compositor
from kvg.composites.settings import CompositorConfig
from kvg.shards.writer import ShardFile

_given: Compositor | None = None


def photograph(seed: int, size: tuple[int, int] = (640, 480)) -> Image.Image:
    """Noise of several octaves in colour: as much detail in each band of frequencies as photographs have."""
    rng = np.random.default_rng(seed)
    total = np.zeros((size[1], size[0], 3), np.float32)
    for octave in range(1, 9):
        cells = rng.integers(0, 256, (max(1, size[1] >> octave), max(1, size[0] >> octave), 3), dtype=np.uint8)
        total += (np.asarray(Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC)) - 127.0) * 0.55 ** (
            8 - octave
        )
    return Image.fromarray(np.clip(127 + total, 0, 255).astype(np.uint8))


def cut_out(seed: int, size: tuple[int, int] = (480, 400)) -> Image.Image:
    """The same with a rim of some roundness, outside of which nothing is."""
    image, rng = photograph(seed, size), np.random.default_rng(seed)
    mask = Image.new("L", (size[0] * 2, size[1] * 2), 0)
    pen = ImageDraw.Draw(mask)
    for _ in range(6):
        x, y = rng.uniform(0.25, 0.75, 2) * mask.size
        w, h = rng.uniform(0.1, 0.25, 2) * mask.size
        pen.ellipse((x - w, y - h, x + w, y + h), fill=255)
    image.putalpha(mask.resize(size, Image.Resampling.BOX))
    return image


def project(folder: Path, num: int) -> Path:
    """A scanned project of ``num`` pictures in three categories."""
    listed = []
    for n in range(num):
        entity, category = f"Kind {n}", f"thing {n % 3}"
        row: dict[str, Any] = {"path": f"{n}.jpg", "entity": entity, "category": category, "box": [80, 60, 560, 430]}
        if n % 2:
            photograph(n).save(folder / f"{n}.jpg", quality=92)
        else:
            row = {"path": f"{n}.png", "entity": entity, "category": category}
            cut_out(n).save(folder / f"{n}.png", compress_level=1)
        listed.append(row)
    (folder / "list.json").write_text(json.dumps(listed))
    source = {"class_path": "kvg.catalogue.tables.Table", "init_args": {"path": str(folder / "list.json")}}
    path = folder / "project.yaml"
    splits = {"val": 0, "test": 0, "copy_distance": 0}
    path.write_text(yaml.safe_dump({"out": str(folder / "out"), "sources": {"made": source}, "splits": splits}))
    if kvg_data(["scan", str(path)]):
        raise RuntimeError("the pictures cannot be scanned")
    return path


def start(compositor: Compositor) -> None:
    """Gives a process its compositor and fills its cache."""
    global _given
    _given = compositor
    for index in range(60):
        compositor.sample(index)


def write(task: tuple[str, int, int]) -> tuple[float, float, int]:
    """Writes a shard; returns the wall time and the processor time that it took, and its bytes."""
    folder, number, num = task
    assert _given is not None
    wall, cpu = time.perf_counter(), time.process_time()
    shard = ShardFile(Path(folder), number)
    for index in range(num):
        shard.write(_given.sample(1000 + number * num + index))
    entry = shard.close()
    assert entry is not None
    return time.perf_counter() - wall, time.process_time() - cpu, entry.num_bytes


def main() -> int:
    """Prints what one process does, and two."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", help="YAML of `kvg-data compose`, whose compositor is taken; default settings else")
    parser.add_argument("--num", type=int, default=300, help="composites of a shard (default 300)")
    parser.add_argument("--rounds", type=int, default=5, help="of one process and of two (default 5)")
    parser.add_argument("--quality", type=int, default=90, help="of the JPEG (default 90)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="another setting, as YAML")
    parser.add_argument("--profile", action="store_true", help="show where one process spends its time, instead")
    args = parser.parse_args()
    settings = (yaml.safe_load(Path(args.config).read_text()).get("compositor") or {}) if args.config else {}
    settings |= {name: yaml.safe_load(value) for name, _, value in (word.partition("=") for word in args.set)}
    config = replace(CompositorConfig(**settings), canvas_sizes=[(640, 480)], quality=args.quality)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        compositor = Compositor(CatalogueTiles(project(folder, 48)), config)
        start(compositor)
        if args.profile:
            write((name, 0, 4))  # imports what writes tars
            with cProfile.Profile() as profile:
                write((name, 1, args.num))
            pstats.Stats(profile).sort_stats("tottime").print_stats(25)
            return 0
        measure(name, compositor, args.num, args.rounds)
    return 0


def measure(folder: str, compositor: Compositor, num: int, rounds: int) -> None:
    """Rounds of one process and of two in turns."""
    one, two, cpu, ratios = [], [], [], []
    with ProcessPoolExecutor(2, initializer=start, initargs=(compositor,)) as pool:
        list(pool.map(write, [(folder, n, 4) for n in range(4)]))
        for number in range(rounds):
            wall, busy, size = pool.submit(write, (folder, 3 * number, num)).result()
            both = list(pool.map(write, [(folder, 3 * number + i, num) for i in (1, 2)]))
            one.append(num / wall)
            two.append(2 * num / max(wall for wall, _, _ in both))
            cpu.append(num / busy)
            ratios.append(two[-1] / one[-1])
    print(f"{size / num / 1000:.0f} kB a composite; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for title, values, unit in (
        ("one process", one, "/s"),
        ("one process, of its processor time", cpu, "/s"),
        ("two processes", two, "/s"),
        ("two over one, in turns", ratios, ""),
    ):
        low, high = min(values), max(values)
        places = 0 if unit else 2
        print(f"{title:36s} {statistics.median(values):.{places}f}{unit} ({low:.{places}f} to {high:.{places}f})")


if __name__ == "__main__":
    sys.exit(main())
