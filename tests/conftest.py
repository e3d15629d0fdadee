"""What several folders need: samples of the lab's world, ports, lines of predictions."""

from __future__ import annotations

import random
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from kvg.composites.compositor import Compositor
from kvg.lab.world import LabSource, TraitSource, lab_canvas
from kvg.rationales.rationale import CardWriter
from kvg.shards.writer import ShardWriter
from kvg.types import Sample

Scenes = Callable[..., list[Sample]]
RIGHT, WRONG = "(100,100),(400,400)", "(600,600),(900,900)"
BIRDS = [
    {"entity": "Merlin", "box": [100, 100, 400, 400]},
    {"entity": "Hobby", "box": [600, 600, 900, 900]},
]  # on the 0-1000 grid


def pytest_configure() -> None:
    """A suite that is started with signals ignored (``nohup make test &``, cron) hands that on to no child of its.

    A signal that has a handler is set back in a child; so the suite itself still outlives its terminal.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)


@pytest.fixture(scope="session")
def find_port() -> Callable[[], int]:
    """Finds a port to listen on, below those that the system hands out, where other tests come and go."""

    def find() -> int:
        for _ in range(100):
            with socket.socket() as probe:
                port = random.SystemRandom().randrange(20_000, 32_000)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    continue
                return port
        raise RuntimeError("no port between 20000 and 32000 is free")

    return find


@pytest.fixture(scope="session")
def scenes() -> Scenes:
    """Makes composites with rationales; canvases take turns, so that one batch holds pictures of several sizes."""

    def make(
        num: int, sizes: Sequence[tuple[int, int]] = ((140, 140),), seed: int = 0, **settings: object
    ) -> list[Sample]:
        source = LabSource(variants=1, pool="tests")
        samples = []
        for index in range(num):
            config = replace(
                lab_canvas(seed, {2: 1.0, 3: 1.0}, 0.5), canvas_sizes=[sizes[index % len(sizes)]], **settings
            )
            sample = Compositor(source, config).sample(index)
            samples.append(replace(sample, rationale=CardWriter().write(sample)))
        return samples

    return make


@pytest.fixture(scope="session")
def lab_shards(scenes: Scenes) -> Callable[..., str]:
    """Writes composites with rationales to a folder of shards."""

    def write(folder: Path, num: int, per_shard: int = 4, **settings: object) -> str:
        with ShardWriter(folder, per_shard) as writer:
            for sample in scenes(num, **settings):
                writer.write(sample)
        return str(folder)

    return write


@pytest.fixture(scope="session")
def nameless(tmp_path_factory) -> str:
    """A folder of shards with scenes of nameless combinations of traits, as pretraining reads them."""
    folder = tmp_path_factory.mktemp("nameless") / "set"
    config = lab_canvas(3, {1: 1.0, 2: 1.0, 3: 1.0, 4: 1.0}, 0.5)
    compositor = Compositor(TraitSource(families=2, siblings=4, variants=1), config)
    with ShardWriter(folder, 5) as writer:
        for index in range(20):
            writer.write(compositor.sample(index))
    return str(folder)


@pytest.fixture(scope="session")
def make_line():
    """A line of predictions; two birds on the picture, of which the first is asked for."""

    def make(key="k0", right=True, **fields):
        line = {
            "key": key,
            "set": "test",
            "category": "bird",
            "split": "seen",
            "knowledge": "known",
            "entity": "Merlin",
            "mode": "direct",
            "answer": RIGHT if right else WRONG,
            "gt_bbox": [BIRDS[0]["box"]],
            "objects": BIRDS,
            "target": 0,
        }
        return {name: value for name, value in {**line, **fields}.items() if value is not None}

    return make
