"""What is refused before Gradio: other hosts' names, URLs, large bodies."""

from __future__ import annotations

import asyncio

import pytest

from kvg.app.guard import MAX_BODY, Guard


async def _application(scope, receive, send):
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def status(path="/", host="127.0.0.1:7860", parts=(b"",), local=True, **headers):
    messages, sent = [{"type": "http.request", "body": part, "more_body": True} for part in parts], []
    messages[-1]["more_body"] = False

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    head = [(name.replace("_", "-").encode(), value.encode()) for name, value in {"host": host, **headers}.items()]
    scope = {"type": "http", "path": path, "headers": head}
    asyncio.run(Guard(_application, local)(scope, receive, send))
    return sent[0]["status"]


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "localhost", "[::1]:7860"])
def test_this_machine_is_served(host):
    assert status(host=host) == 200


@pytest.mark.parametrize("host", ["evil.example:7860", "evil.example", "127.0.0.1.evil.example", ""])
def test_a_name_that_points_here_is_refused_unless_others_are_served(host):
    assert status(host=host) == 403
    assert status(host=host, local=False) == 200


@pytest.mark.parametrize("path", ["/gradio_api/file=http://a.example/b.png", "/gradio_api/proxy=https://a.example"])
def test_no_url_is_fetched(path):
    assert status(path) == 403


def test_bodies_are_bounded_with_and_without_a_length():
    assert status(content_length=str(MAX_BODY + 1)) == 413
    assert status(content_length="nonsense") == 400
    part = bytes(MAX_BODY // 4)
    assert status(parts=[part] * 4) == 200
    assert status(parts=[part] * 5) == 413
