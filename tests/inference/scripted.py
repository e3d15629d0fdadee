"""An OpenAI-compatible server on loopback that does what a script says, request by request."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

Act = Callable[[web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]
MODEL = "org/seer"
USAGE = {"prompt_tokens": 100, "completion_tokens": 20}


def answer(content: Any, finish: str = "stop", **message: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}
    return {"choices": [choice], "usage": USAGE}


def says(found: Any, code: int = 200, **headers: str) -> Act:
    """Answers with JSON, or with bytes as they are."""
    data = found if isinstance(found, bytes) else json.dumps(found).encode()

    async def act(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        return web.Response(
            body=data,
            status=code,
            content_type="application/json",
            headers={name.replace("_", "-"): v for name, v in headers.items()},
        )

    return act


def waits(seconds: float) -> Act:
    async def act(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return web.json_response(answer(f"late {question(body)}"))

    return act


async def cuts(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    """Promises more bytes than come, and cuts the connection."""
    response = web.StreamResponse(headers={"Content-Length": "1000", "Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(b'{"choices": [{"mess')
    request.transport.close()
    return response


async def resets(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    request.transport.abort()
    return web.Response()


def question(body: Mapping[str, Any]) -> str:
    return body["messages"][-1]["content"][1]["text"]


class ScriptedServer:
    """Serves in a thread of its own.

    Args:
        script: acts by the number of the request (0 is the first POST), or a function of number and body.
        latency: seconds before a plain answer.
        models: names at ``/models``; None for a server without.
    """

    def __init__(self, script=None, latency: float = 0.0, models: list[str] | None = (MODEL,)) -> None:
        self.script = script if callable(script) else lambda number, body: (script or {}).get(number)
        self.latency, self.models = latency, models
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.paths: Counter[str] = Counter()
        self.answered = self.now = self.most = 0
        self._ready = threading.Event()

    @property
    def asked(self) -> list[str]:
        return [question(body) for body in self.bodies]

    def __enter__(self) -> ScriptedServer:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def vanish(self) -> None:
        """Closes the door and cuts all that is under way, as a killed process does."""
        self._loop.call_soon_threadsafe(lambda: self._loop.create_task(self._vanish()))

    async def _vanish(self) -> None:
        self._site._server.close()
        for connection in self._runner.server.connections:
            if connection.transport is not None:
                connection.transport.abort()

    def come_back(self, port: int, after: float) -> None:
        """Opens the door again."""

        async def open_later() -> None:
            await asyncio.sleep(after)
            await web.TCPSite(self._runner, "127.0.0.1", port).start()

        self._loop.call_soon_threadsafe(lambda: self._loop.create_task(open_later()))

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(client_max_size=2**24)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._models)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        self._site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await self._site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"
        self._ready.set()
        await self._stop.wait()
        await self._runner.cleanup()

    async def _models(self, request: web.Request) -> web.Response:
        self.paths["models"] += 1
        if self.models is None:
            return web.Response(status=404)
        return web.json_response({"data": [{"id": name} for name in self.models]})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        self.paths["chat"] += 1
        number = len(self.bodies)
        body = await request.json()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        self.times.append(time.monotonic())
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            act = self.script(number, body)
            if act is not None:
                return await act(request, body)
            if self.latency:
                await asyncio.sleep(self.latency)
            return web.json_response(answer(f"{question(body)} seen"))
        finally:
            self.now -= 1
            self.answered += 1
