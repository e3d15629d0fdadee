"""A server that answers as grounding models do, and projects with photographs on which it sees something."""

from __future__ import annotations

import asyncio
import base64
import io
import random
import re
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import yaml
from aiohttp import web
from PIL import Image

from kvg.cli.kvg_data import main
from tests.catalogue.conftest import drawing, encoded

MAGENTA = (255, 0, 255)


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
