"""Asks in a process of its own, to be killed, interrupted, or kept from writing: URL WORK NUM CATCH LIMIT."""

from __future__ import annotations

import logging
import resource
import sys
from pathlib import Path

from kvg.errors import KVGError
from kvg.inference.server import Server
from tests.inference.conftest import as_it_is, questions
from tests.inference.scripted import MODEL

if __name__ == "__main__":
    url, work, num, catch, limit = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4], int(sys.argv[5])
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # that a busy machine is slow is no fault
    if limit:  # bytes that a file may have
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    server = Server(url, MODEL, concurrency=4, backoff=0.01, retries=1)
    try:
        for outcome in server.ask(questions(num), as_it_is, work):
            print(outcome.request.key, *outcome.values, *outcome.faults, flush=True)
    except KVGError as error:
        print(error)
        sys.exit(2)
    except KeyboardInterrupt:
        if catch == "catch":
            sys.exit(130)
        raise
    print("torch" in sys.modules)
