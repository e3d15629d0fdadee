"""What is refused before Gradio sees it: large bodies, names of other hosts, and whatever would fetch a URL."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

MAX_BODY: Final = 32 * 2**20  # bytes of a request
_LOCAL: Final = ("127.0.0.1", "localhost", "[::1]")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class _TooLarge(Exception):  # becomes an answer, never a traceback
    pass


class Guard:
    """ASGI middleware.

    Args:
        app: the application behind it.
        local: whether only this machine may ask. Then a request must name it as its host: a page elsewhere whose name
            was made to point to 127.0.0.1 is refused.
    """

    def __init__(self, app: App, local: bool) -> None:
        self.app, self.local = app, local

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answers 400, 403 or 413, or passes the request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        if self.local and _host(headers.get(b"host", "")) not in _LOCAL:
            await _refuse(send, 403, "this host is not served; see --host")
        elif ":/" in scope["path"] or "proxy=" in scope["path"]:  # Gradio would fetch the URL and hand it on
            await _refuse(send, 403, "no URL is fetched")
        elif not (length := headers.get(b"content-length", "0")).isdecimal():
            await _refuse(send, 400, "Content-Length is no number")
        elif int(length) > MAX_BODY:
            await _refuse(send, 413, f"more than {MAX_BODY} bytes")
        else:
            await self._bounded(scope, receive, send)

    async def _bounded(self, scope: Message, receive: Receive, send: Send) -> None:
        """Counts the body, since a request may come in parts without a length."""
        size, started = 0, False

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > MAX_BODY:
                raise _TooLarge
            return message

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, counted, noted)
        except _TooLarge:
            if not started:
                await _refuse(send, 413, f"more than {MAX_BODY} bytes")


def _host(value: str) -> str:
    """The host of a header without its port."""
    return value.rpartition(":")[0] if value.rpartition(":")[2].isdigit() else value


async def _refuse(send: Send, status: int, reason: str) -> None:
    body = reason.encode()
    head = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})
