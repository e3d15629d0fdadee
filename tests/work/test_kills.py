"""Every resumable command, killed and interrupted in the middle: it goes on, and its result is the same bytes."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml
from PIL import Image

from kvg.cli.kvg_data import main
from kvg.formats.kvg_bench import write_kvg_bench
from tests.catalogue.conftest import bad_ones, drawing, encoded
from tests.cli.grounding import GroundingServer, client, second
from tests.cli.grounding import project as box_project
from tests.cli.test_probe import fill
from tests.cli.test_rationalize import School, teacher
from tests.inference.scripted import MODEL, ScriptedServer, answer, says
from tests.work.killing import Command

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc"),
    pytest.mark.timeout(600),
]
LAB = ("--config", "configs/lab/train.yaml")
STAGE = ("-c", "configs/stage/cot_sft.yaml", "-c", "configs/backbone/tiny.yaml")
SLOW = {"url": "", "model": MODEL, "backoff": 0.01, "concurrency": 2}


@dataclass
class Place:
    """Where a command works, and what its builder needs."""

    folder: Path
    scenes: Callable
    stack: ExitStack

    def enter(self, server):
        return self.stack.enter_context(server)

    def write(self, name: str, content: dict) -> str:
        path = self.folder / name
        path.write_text(yaml.safe_dump(content))
        return str(path)

    def composites(self, num: int, per_shard: int) -> str:
        out = self.folder / "composites"
        size = ("--num", str(num), "--samples-per-shard", str(per_shard))
        assert main(["compose", *LAB, "--out", str(out), *size]) == 0
        return str(out)


def photographs(root: Path, num: int) -> None:
    for number in range(num):
        path = root / f"bird/Kind {number % 8}/{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(drawing(number, (400, 300))))
    for name, (data, _) in bad_ones(0).items():
        (root / "bird/Kind 0" / name).write_bytes(data)


def image_folder(root: Path) -> dict:
    return {"photos": {"class_path": "kvg.catalogue.folders.ImageFolder", "init_args": {"root": str(root)}}}


def scan(place: Place) -> Command:
    photographs(place.folder / "in", 800)
    out = place.folder / "out"
    path = place.write("project.yaml", {"out": str(out), "sources": image_folder(place.folder / "in")})
    return Command(("kvg-data", "scan", path, "--workers", "2"), out, "scan.json")


def compose(place: Place) -> Command:
    out = place.folder / "out"
    size = ("--num", "300", "--samples-per-shard", "20", "--seed", "3", "--workers", "2")
    return Command(("kvg-data", "compose", *LAB, "--out", str(out), *size), out)


def rationalize(place: Place) -> Command:
    out = place.folder / "out"
    source = place.composites(240, 4)
    return Command(("kvg-data", "rationalize", "--in", source, "--out", str(out), "--workers", "2"), out)


def rationalize_by_teacher(place: Place) -> Command:
    out = place.folder / "out"
    school = place.enter(School(slow=0.05))
    settings = teacher(place.folder, school.url)
    words = ("kvg-data", "rationalize", "--in", place.composites(24, 5), "--out", str(out), "--teacher", settings)
    return Command(words, out, goals=(4, 8), calls=lambda: len(school.bodies))


def shard(place: Place) -> Command:
    out, source = place.folder / "out", place.composites(160, 40)
    published = str(place.folder / "published.parquet")
    assert main(["convert", "--in", source, "--to", "grpo", "--out", published]) == 0
    words = ("kvg-data", "shard", "--in", source, published, "--out", str(out), "--samples-per-shard", "5")
    return Command((*words, "--workers", "2"), out, goals=(6, 14))  # 5 units of search, then 64 shards


def box(place: Place) -> Command:
    server = GroundingServer(delay=0.15)
    place.stack.callback(server.close)
    names = {"Right": 8, "Late": 2, "Garbled": 2, "Torn": 2}
    settings = {**second(server), "client": client(server, "qwen2-vl")}
    for name in ("client", "second"):
        settings[name]["init_args"]["concurrency"] = 2
    path = box_project(place.folder, server, names, **settings)
    return Command(("kvg-data", "box", str(path)), path.parent / "out", "box.json", (4, 6), calls=server.calls.total)


def probe(place: Place) -> Command:
    def act(number, body):
        return says(answer(random.Random(str(body["messages"])).choice("ABCD")))

    server = place.enter(ScriptedServer(act, latency=0.0))
    server.script = slowly(act)
    fill(place.folder / "in", dict.fromkeys("ABCDEFGH", 4), "bird")
    init = {**SLOW, "url": server.url}
    client = {"class_path": "kvg.inference.server.Server", "init_args": init}
    out = place.folder / "out"
    content = {
        "out": str(out),
        "sources": image_folder(place.folder / "in"),
        "splits": {"val": 0.0, "test": 0.0, "copy_distance": 0},
        "probe": {"client": client, "questions": 4},
    }
    path = place.write("project.yaml", content)
    assert main(["scan", path]) == 0
    return Command(("kvg-data", "probe", path), out, "probe.json", (5, 8), calls=lambda: len(server.bodies))


def slowly(act: Callable) -> Callable:
    """The same script, whose server takes its time."""

    def acts(number, body):
        time.sleep(0.06)
        return act(number, body)

    return acts


def local_filter(place: Place) -> Command:
    out, source = place.folder / "out", place.composites(40, 10)
    words = ("kvg-data", "filter", "--in", source, "--out", str(out), "--checkpoint", "tiny", "--mode", "direct")
    words += ("--max-new-tokens", "24", "--batch-size", "1", "--keep-min", "0", "--keep-max", "4")
    return Command(words, out, goals=(3, 6))


def predict(place: Place) -> Command:
    bench, out = place.folder / "bench.parquet", place.folder / "out"
    write_kvg_bench(place.scenes(24, sizes=[(84, 84), (112, 84)], snap_px=None), bench)
    words = ("kvg", "predict", *STAGE, "-c", "configs/data/kvg_bench.yaml", "--data.test", str(bench))
    words += ("--data.num_workers", "0", "--data.batch_size", "1", "--model.max_new_tokens", "64")
    words += ("--trainer.default_root_dir", str(out), "--trainer.accelerator", "cpu")
    return Command(words, out, "predictions.json", (3, 6), ignored=("predictions.json",))


def predict_served(place: Place) -> Command:
    def act(number, body):
        return says(answer(f"({random.Random(str(body['messages'])).randint(1, 400)},2),(500,600)"))

    server, out = place.enter(ScriptedServer(slowly(act))), place.folder / "out"
    bench = place.folder / "bench.parquet"
    write_kvg_bench(place.scenes(24, sizes=[(84, 84), (112, 84)], snap_px=None), bench)
    words = ("kvg", "predict", "-c", "configs/client/server.yaml", "-c", "configs/data/kvg_bench.yaml")
    words += ("--data.test", str(bench), "--data.mode", "describe", "--data.batch_size", "4")
    for name, value in {**SLOW, "url": server.url}.items():
        words += (f"--model.client.init_args.{name}", str(value))
    words += ("--trainer.default_root_dir", str(out))
    ignored = ("predictions.json",)
    return Command(words, out, "predictions.json", (7, 12), ignored, lambda: len(server.bodies))


def evaluate(place: Place) -> Command:
    command = predict(place)
    return replace(command, words=("kvg", "test", *command.words[2:]))


def run(place: Place) -> Command:
    for number in range(60):
        path = place.folder / f"in/bird/Kind {number % 8}/{number:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cut_out = drawing(number, (200, 150)).convert("RGB")
        cut_out.putalpha(Image.new("L", (200, 150), 0))
        cut_out.paste(drawing(number, (120, 90)).convert("RGB"), (40, 30), Image.new("L", (120, 90), 255))
        path.write_bytes(encoded(cut_out, "PNG"))
    out = place.folder / "out"
    content = {
        "out": str(out),
        "sources": image_folder(place.folder / "in"),
        "compose": {"sets": {"train": {"num": 200}}, "samples_per_shard": 10},
        "shard": {"samples_per_shard": 10},
    }
    words = ("kvg-data", "run", place.write("project.yaml", content), "--workers", "2")
    return Command(words, out, "shards/train/manifest.json", (3, 8))


COMMANDS = (compose, rationalize_by_teacher, run)  # units of one's own, calls of a server, steps
ALIKE = (scan, rationalize, shard, box, probe)
WITH_MODEL = (local_filter, predict, predict_served, evaluate)


@pytest.fixture
def place(tmp_path, scenes) -> Iterator[Place]:
    with ExitStack() as stack:
        yield Place(tmp_path, scenes, stack)


@pytest.mark.parametrize(
    "build",
    [*COMMANDS, *(pytest.param(build, marks=pytest.mark.slow) for build in (*ALIKE, *WITH_MODEL))],
    ids=lambda build: build.__name__,
)
def test_a_command_that_is_ended_anywhere_goes_on(place, build):
    command = build(place)
    kept = command.out.parent / "kept"
    if command.out.exists():  # what an earlier step has left there
        shutil.copytree(command.out, kept)
    calls = command.calls() if command.calls else 0
    command.finish()
    expected = command.outputs()
    calls_of_whole = command.calls() - calls if command.calls else 0
    shutil.rmtree(command.out)
    if kept.exists():
        shutil.copytree(kept, command.out)

    ended, before = 0, dict[Path, int]()
    calls = command.calls() if command.calls else 0
    for goal, with_signal in zip(command.goals, (signal.SIGKILL, signal.SIGINT), strict=True):
        ended += command.kill(goal, with_signal)
        units = command.units()
        again = [path for path in before if path in units and units[path] != before[path]]
        assert not again, "work that was done has been done again"
        before = units
    assert ended, "the command came to its end before it could be ended; make its work longer"
    command.finish()
    assert command.outputs() == expected
    if command.calls:  # an end loses the calls that are under way, and nothing else
        assert command.calls() - calls <= calls_of_whole + 2 * 4
    assert not list(command.out.rglob("*.units"))
