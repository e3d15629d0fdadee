"""`kvg-data box` as a user runs it, against a server that answers as grounding models do: rightly, wrongly, or not."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import random
import re
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from aiohttp import web
from PIL import Image

from kvg.catalogue.boxing import boxed_entries
from kvg.catalogue.cutting import overlap
from kvg.catalogue.entry import Entry
from kvg.cli.kvg_data import main
from kvg.composites.catalogue_tiles import CatalogueTiles
from kvg.errors import DataError
from kvg.pipeline.settings.project import load_project
from kvg.report.review_page import PAGE, ReviewItem, write_pages
from tests.catalogue.conftest import drawing, encoded

MAGENTA = (255, 0, 255)
STRANGE = '<script>alert(1)</script> "x" & it\'s \U0001f989'


def where(image: Image.Image) -> tuple[int, int, int, int]:
    """Where the magenta is, which is the truth."""
    pixels = np.asarray(image.convert("RGB")).astype(int)
    ys, xs = np.nonzero(np.abs(pixels - MAGENTA).max(-1) < 90)
    return int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1


class GroundingServer:
    """Two models that see where the magenta is, and do with it what the name that is asked for demands."""

    def __init__(self, delay: float = 0.0) -> None:
        self.delay, self.calls = delay, Counter[str]()
        self._ready, self._loop = threading.Event(), asyncio.new_event_loop()
        threading.Thread(target=self._run, daemon=True).start()
        self._ready.wait()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v1/chat/completions", self._answer)
        app.router.add_get("/v1/models", self._models)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/v1"
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "qwen2-vl"}, {"id": "qwen2.5-vl"}]})

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        picture, question = body["messages"][-1]["content"]
        data = base64.b64decode(picture["image_url"]["url"].partition(",")[2])
        name = re.search(r"<\|object_ref_start\|>(.*)<\|object_ref_end\|>", question["text"])[1]
        self.calls[body["model"]] += 1
        await asyncio.sleep(self.delay)
        if name.startswith("Refused"):
            return web.json_response({"error": {"message": "picture too large"}}, status=400)
        text = self._said(name, Image.open(io.BytesIO(data)), body["model"] == "qwen2.5-vl", body["temperature"])
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return web.json_response({"choices": [choice], "usage": {"prompt_tokens": 200, "completion_tokens": 20}})

    @staticmethod
    def _said(name: str, image: Image.Image, absolute: bool, temperature: float) -> str:
        assert image.width % 28 == image.height % 28 == 0  # or a server would resize it once more
        assert image.width * image.height <= 401_408
        x1, y1, x2, y2 = where(image)
        if name.startswith("Garbled") or (name.startswith("Late") and not temperature):
            return f"There is no {name} on this picture, 100%."
        if name.startswith("Whole"):
            x1, y1, x2, y2 = 0, 0, image.width, image.height
        if name.startswith("Thin"):
            x1, x2, y2 = 0, image.width, y1 + image.height // 50
        if name.startswith("Torn") and absolute:
            x1, x2 = x1 + (x2 - x1) // 2, min(image.width, x2 + (x2 - x1) // 2)
        if absolute:
            return f'```json\n[{{"bbox_2d": [{x1}, {y1}, {x2}, {y2}], "label": "{name}"}}]\n```'
        across, down = 1000 / image.width, 1000 / image.height
        return f"<|box_start|>({x1 * across:.0f},{y1 * down:.0f}),({x2 * across:.0f},{y2 * down:.0f})<|box_end|>"


@pytest.fixture
def server():
    found = GroundingServer()
    yield found
    found.close()


def photograph(seed: int) -> Image.Image:
    """A grey scene of its own size with a magenta thing in it."""
    rng = random.Random(seed)
    image = drawing(seed, (rng.randrange(150, 900), rng.randrange(150, 700))).convert("L").convert("RGB")
    width, height = (round(side * rng.uniform(0.2, 0.6)) for side in image.size)
    x, y = rng.randrange(image.width - width), rng.randrange(image.height - height)
    image.paste(MAGENTA, (x, y, x + width, y + height))
    return image


def project(folder: Path, server: GroundingServer | None, names: dict[str, int], **settings) -> Path:
    """A scanned project with so many pictures of each entity; settings of the section `box`."""
    for entity, num in names.items():
        for number in range(num):
            seed = len(list((folder / "in").rglob("*.jpg")))
            # A slash cannot stand in the name of a folder.
            path = folder / "in/bird" / entity.replace("/", "\N{DIVISION SLASH}") / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(photograph(seed), quality=95))
    source = {"class_path": "kvg.catalogue.folders.ImageFolder", "init_args": {"root": str(folder / "in")}}
    splits = {"val": 0, "test": 0, "copy_distance": 0}
    config = {"out": str(folder / "out"), "sources": {"photos": source}, "splits": splits}
    path = folder / "project.yaml"
    path.write_text(yaml.safe_dump(config))
    assert main(["scan", str(path)]) == 0
    if server:
        path.write_text(yaml.safe_dump({**config, "box": {"client": client(server, "qwen2-vl"), **settings}}))
    return path


def client(server: GroundingServer, model: str) -> dict:
    return {"class_path": "kvg.inference.server.Server", "init_args": {"url": server.url, "model": model, "retries": 1}}


def second(server: GroundingServer) -> dict:
    return {
        "second": client(server, "qwen2.5-vl"),
        "second_codec": {"class_path": "kvg.text.box_codec.AbsoluteCodec"},
        "second_question": "Find the <|object_ref_start|>{entity}<|object_ref_end|>, a {category}, in JSON.",
    }


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "out/boxes.jsonl").read_text().splitlines()]


NAMES = {"Right": 3, STRANGE: 1, "Late": 1, "Garbled": 2, "Whole": 1, "Thin": 1, "Torn": 2, "Refused": 1}


def test_boxes_are_found_checked_twice_and_accounted_for(tmp_path, server, capsys):
    path = project(tmp_path, server, NAMES, **second(server))
    assert main(["box", str(path)]) == 0
    said = capsys.readouterr().out
    assert "12 pictures asked about, 5 boxed" in said
    assert "7 without a box (border 1, disagreement 2, thin 1, unanswered 1, unreadable 2)" in said
    found = {(line["entity"].split()[0], line["rule"]) for line in lines(tmp_path)}
    boxless = {("Late", "")} | {(name, "") for name in ("Right", STRANGE.split()[0].replace("/", "\N{DIVISION SLASH}"))}
    assert found == boxless | {
        ("Whole", "border"), ("Torn", "disagreement"), ("Thin", "thin"), ("Refused", "unanswered"),
        ("Garbled", "unreadable"),
    }  # fmt: skip
    for line in lines(tmp_path):
        assert line["box_from"] == "qwen2-vl"
        truth = where(Image.open(tmp_path / "in" / line["ref"]))
        if line["box_px"]:
            assert overlap(tuple(line["box_px"]), truth) > 0.93
            assert line["iou"] > 0.93  # one model spoke of a grid, the other of pixels
        elif line["rule"] == "disagreement":
            assert line["iou"] == pytest.approx(1 / 3, abs=0.1)  # half of it is shared, and one and a half are covered
            assert line["reason"].startswith("two boxes overlap by 0.")
    assert server.calls["qwen2.5-vl"] == 7 + 1  # what the first has not boxed is not judged, and Late asked for twice
    assert len(CatalogueTiles(path).entities("bird")) == 3  # composites are made of what has a box
    assert json.loads((tmp_path / "out/box.json").read_text())["refused"]["unreadable"] == 2


def test_nothing_is_asked_twice_also_where_rules_change(tmp_path, server):
    path = project(tmp_path, server, {"Right": 3, "Garbled": 1})
    assert main(["box", str(path)]) == 0
    before, calls = (tmp_path / "out/boxes.jsonl").read_bytes(), server.calls["qwen2-vl"]
    assert calls == 3 + 2  # what is no answer is asked for twice
    assert main(["box", str(path)]) == 0
    assert (tmp_path / "out/boxes.jsonl").read_bytes() == before
    config = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**config, "box": {**config["box"], "min_area": 0.9, "max_attempts": 1}}))
    assert main(["box", str(path)]) == 0
    assert [line["rule"] for line in lines(tmp_path)] == ["unreadable", "small", "small", "small"]
    path.write_text(yaml.safe_dump(config))
    (tmp_path / "in/bird/Right/new.jpg").write_bytes(encoded(photograph(99)))
    assert main(["scan", str(path)]) == 0
    assert main(["box", str(path)]) == 0
    assert len([line for line in lines(tmp_path) if line["box_px"]]) == 4
    assert server.calls["qwen2-vl"] == calls + 1


def test_two_answers_of_one_model_have_to_agree(tmp_path, server):
    path = project(tmp_path, server, {"Right": 2, "Late": 1}, samples=2, max_attempts=1)
    assert main(["box", str(path)]) == 0
    assert [(line["rule"], line["iou"]) for line in lines(tmp_path)] == [("unreadable", None), ("", 1.0), ("", 1.0)]
    assert server.calls == {"qwen2-vl": 6}


def test_pictures_that_changed_or_went_are_told_and_asked_about_when_they_are_back(tmp_path, server, capsys):
    path = project(tmp_path, server, {"Right": 3})
    one, two = (tmp_path / f"in/bird/Right/{n}.jpg" for n in (0, 1))
    kept = two.read_bytes()
    one.write_bytes(encoded(photograph(50)))
    two.unlink()
    assert main(["box", str(path)]) == 0
    assert [line["rule"] for line in lines(tmp_path)] == ["picture", "picture", ""]
    assert "has changed since the scan; scan again" in lines(tmp_path)[0]["reason"]
    assert "cannot be opened" in lines(tmp_path)[1]["reason"]
    two.write_bytes(kept)
    assert main(["box", str(path)]) == 0
    assert [line["rule"] for line in lines(tmp_path)] == ["picture", "", ""]
    capsys.readouterr()
    two.unlink()
    (tmp_path / "out/review.html").unlink()
    assert main(["box", str(path), "--review-only"]) == 0
    assert "1 pictures cannot be opened any more" in capsys.readouterr().out
    assert server.calls == {"qwen2-vl": 2}


def test_without_anything_to_ask_the_page_is_still_written(tmp_path, capsys):
    cut = Image.new("RGBA", (60, 40), (0, 0, 0, 0))
    cut.paste((200, 0, 0, 255), (10, 10, 30, 30))
    (tmp_path / "in/bird/Wren").mkdir(parents=True)
    (tmp_path / "in/bird/Wren/cut.png").write_bytes(encoded(cut, "PNG"))
    path = project(tmp_path, None, {})
    assert main(["box", str(path)]) == 0
    said = capsys.readouterr().out
    assert "every picture has a box: there is nothing to ask about" in said
    assert f"1 boxes of all kinds to review, 0 of them ticked as bad: open {tmp_path / 'out/review.html'}" in said
    assert "Wren" in (tmp_path / "out/review.html").read_text()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"client": None}, "box.client: is missing, and 1 pictures have no box"),
        ({"client": {"class_path": "kvg.Nothing"}}, "box.client.class_path: 'kvg.Nothing' cannot be imported"),
        ({"client": {"class_path": "pathlib.Path"}}, "box.client: is not a client"),
        ({"codec": {"class_path": "pathlib.Path"}}, "box.codec: is not a box codec"),
        ({"second": {"class_path": "x"}}, "box.second.class_path: 'x' cannot be imported"),
        ({"max_aspect": 0}, "box.max_aspect: 0 allows"),
    ],
)
def test_settings_that_cannot_work_stop_before_anything_is_asked(tmp_path, server, capsys, settings, message):
    path = project(tmp_path, server, {"Right": 1}, **settings)
    assert main(["box", str(path)]) == 2
    assert message in capsys.readouterr().err
    assert not server.calls
    assert not (tmp_path / "out/boxes.jsonl").exists()


def test_ticked_boxes_are_left_out_and_stay_ticked_on_the_next_page(tmp_path, server, capsys):
    path = project(tmp_path, server, {"Right": 2, STRANGE: 2})
    assert main(["box", str(path)]) == 0
    page = (tmp_path / "out/review.html").read_text()
    assert "<script>alert" not in page
    assert page.count("<script") == 2  # data and code of the page
    shown = json.loads(re.search(r'<script type="application/json" id="page">(.*?)</script>', page)[1])
    assert shown["file"] == "bad_boxes.jsonl"
    strange = next(box for box in shown["boxes"] if "alert" in box["ref"])
    told = {**{name: strange[name] for name in ("source", "ref", "box_px")}, "bad": True, "saved": 1_700_000_000_000}
    # As a browser writes it: letters as they are, and whole numbers without a point.
    text = re.sub(r"\.0(?=[,\]])", "", json.dumps(told, ensure_ascii=False))
    (tmp_path / "out/bad_boxes.jsonl").write_text(text + "\n", "utf-8")
    left = [entry.ref for entry in boxed_entries(load_project(path))]
    assert len(left) == 3
    assert strange["ref"] not in left
    capsys.readouterr()
    assert main(["box", str(path)]) == 0
    assert "4 boxes of models to review, 1 of them ticked as bad" in capsys.readouterr().out
    assert (tmp_path / "out/review.html").read_text().count('role="checkbox" aria-checked="true"') == 1


def test_many_boxes_are_on_several_pages_that_are_not_made_twice(tmp_path):
    image, opened = Image.new("RGB", (40, 30)), []
    entries = [
        Entry("s", f"{n}.jpg", f"Kind {n}", "bird", 40, 30, "", "", (1, 2, 30, 20), "m") for n in range(PAGE + 2)
    ]

    def read(entry: Entry) -> Image.Image:
        opened.append(entry.ref)
        if entry.ref == "1.jpg":
            raise DataError(entry.ref, "image", "has <gone>")
        return image.copy()

    shown = [ReviewItem(entry, 0.9, n < 3, False) for n, entry in enumerate(entries)]
    (tmp_path / "review-notes.html").write_text("mine")
    pages, lost = write_pages(tmp_path, shown, read)
    assert [page.name for page in pages] == ["review-001.html", "review-002.html"]
    assert (lost, len(opened)) == (1, PAGE + 2)
    first, last = (page.read_text() for page in pages)
    assert "has &lt;gone&gt;" in first
    assert 'href="review-002.html"' in first
    assert 'href="review-001.html"' in last
    assert '"file": "bad_boxes-002.jsonl"' in last
    assert (first.count("<figure"), first.count("<figure class=doubtful"), last.count("<figure")) == (PAGE, 3, 2)
    opened.clear()
    write_pages(tmp_path, shown, read)
    assert opened == []
    write_pages(tmp_path, [*shown[:-1], ReviewItem(entries[-1], 0.9, False, True)], read)
    assert opened == ["200.jpg", "201.jpg"]  # one page has changed
    write_pages(tmp_path, shown[:1], read)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["review-notes.html", "review.html"]


CHECKED = """
import sys
from kvg.cli.kvg_data import main
code = main(sys.argv[1:])
assert "torch" not in sys.modules, "a command that asks a server has loaded torch"
sys.exit(code)
"""


def test_a_command_that_asks_a_server_starts_without_torch(tmp_path, server):
    path = project(tmp_path, server, {"Right": 1})
    done = subprocess.run([sys.executable, "-c", CHECKED, "box", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_model_of_this_machine_boxes_what_is_described(tmp_path, scenes):
    """The lab's base model, whose pictures are sent as they are."""
    (tmp_path / "in").mkdir()
    rows, truths = [], {}
    for number, sample in enumerate(scenes(12, k_weights={2: 1.0})):
        name = f"{number}.png"
        (tmp_path / "in" / name).write_bytes(sample.image)
        thing = sample.objects[sample.target]
        rows.append({"path": name, "entity": thing.description, "category": sample.category})
        truths[name] = thing.box_px
    (tmp_path / "in/list.json").write_text(json.dumps(rows))
    source = {"class_path": "kvg.catalogue.tables.Table", "init_args": {"path": str(tmp_path / "in/list.json")}}
    model = {
        "class_path": "kvg.backbones.backbone.Backbone",
        "init_args": {"checkpoint": "lab", "dtype": "float32"},
    }
    local = {"backbone": model, "temperature": 0.0, "max_tokens": 24, "batch_size": 4}
    box = {"client": {"class_path": "kvg.inference.local.LocalClient", "init_args": local}, "max_pixels": 19_600}
    path = tmp_path / "project.yaml"
    splits = {"val": 0, "test": 0, "copy_distance": 0}
    config = {"out": str(tmp_path / "out"), "sources": {"lab": source}, "splits": splits, "box": box}
    path.write_text(yaml.safe_dump(config))
    assert main(["scan", str(path)]) == 0
    assert main(["box", str(path)]) == 0
    found = lines(tmp_path)
    right = [line["ref"] for line in found if line["box_px"] and overlap(truths[line["ref"]], line["box_px"]) > 0.5]
    assert len(found) >= 10
    assert len(right) >= len(found) - 2  # it boxes 98% of what is described
    assert {line["box_from"] for line in found} == {"lab"}
