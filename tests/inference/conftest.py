"""Questions about small pictures, and an client that does not wait long."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kvg.inference.request import Request
from kvg.inference.server import Server
from tests.catalogue.conftest import drawing, encoded
from tests.inference.scripted import MODEL, ScriptedServer

PICTURE = encoded(drawing(0))


def questions(num: int, answers: int = 1) -> list[Request]:
    return [Request(f"key-{n}", f"question {n}", PICTURE, answers) for n in range(num)]


def as_it_is(request: Request, text: str) -> str:
    return text


@pytest.fixture(scope="session")
def client() -> Callable[..., Server]:
    def make(server: ScriptedServer, **settings) -> Server:
        return Server(server.url, **{"model": MODEL, "backoff": 0.01, "retries": 3, "concurrency": 4, **settings})

    return make
