"""The HTTP worker: a thread that makes concurrent calls to a server, and repeats calls after transient failures."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import queue
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import aiohttp

from kvg.errors import DataError
from kvg.inference.cache import AnswerCache
from kvg.inference.http_call import EMPTY, Call, Passing, Refused, Reply, read_reply, served_names
from kvg.inference.usage import Usage

log = logging.getLogger(__name__)
Ticket = tuple[int, int, int]  # number of the request, attempt, number of the answer; lower tickets have priority
Result = Reply | Exception
_PROBE = 10.0  # timeout in seconds for connecting and for listing models
_LONGEST = 30.0  # longest backoff in seconds, unless the server requests more
_LARGEST = 64 * 2**20  # largest response in bytes
_CHUNK = 2**16


@dataclass(frozen=True)
class HTTPSettings:
    """Settings for calling a server.

    Attributes:
        url: its base.
        model: name of a model that it must serve; '' for any.
        key: secret; '' for none.
        concurrency: largest number of concurrent calls.
        timeout: of one call, in seconds.
        retries: largest number of retries per call.
        backoff: seconds before the first retry; doubled for each further retry, times a random factor in 0.5-1.
        requests_per_minute: largest number of calls, including retries; None for no limit.
        seed: of the random factor.
    """

    url: str
    model: str
    key: str = field(repr=False)
    concurrency: int
    timeout: float
    retries: int
    backoff: float
    requests_per_minute: float | None
    seed: int


class RateLimiter:
    """Limits the rate of calls, and pauses when the server requests it."""

    def __init__(self, per_minute: float | None) -> None:
        self._gap = 60.0 / per_minute if per_minute else 0.0
        self._next = 0.0

    async def turn(self) -> None:
        """Waits for a turn, and takes it."""
        while (left := self._next - time.monotonic()) > 0:
            await asyncio.sleep(left)
        self._next = time.monotonic() + self._gap

    def hold(self, seconds: float) -> None:
        """Pauses for this many seconds."""
        self._next = max(self._next, time.monotonic() + seconds)


class HTTPWorker:
    """Makes calls in its own thread, which starts with the first call.

    An answer is stored in the cache before it is returned. If a call has used all retries, only this call has failed if
    the server still answers at ``/models``; otherwise the server is down. It also counts as down if ``concurrency``
    calls in a row, and at least three, have used all retries.

    Args:
        settings: see ``HTTPSettings``.
        cache: stores the answers.
        tally: counts usage.
    """

    def __init__(self, settings: HTTPSettings, cache: AnswerCache, tally: Usage) -> None:
        self._settings, self._cache, self._tally = settings, cache, tally
        self._results: queue.SimpleQueue[tuple[Ticket, Result]] = queue.SimpleQueue()
        self._ready = threading.Event()
        self._thread: threading.Thread | None = None
        self._lost = 0  # calls in a row that have used all retries
        self._over = False  # whether every further call would fail

    def submit(self, ticket: Ticket, call: Call) -> None:
        """Queues a call; ``results`` returns its ticket with the result."""
        if self._thread is None:
            # A daemon thread, so that a generator that is never closed does not keep the process alive.
            self._thread = threading.Thread(target=self._run, name="asking", daemon=True)
            self._thread.start()
            self._ready.wait()
            atexit.register(self.close)
        self._loop.call_soon_threadsafe(self._calls.put_nowait, (ticket, call))

    def results(self, wait: bool) -> Iterator[tuple[Ticket, Result]]:
        """The available results.

        Args:
            wait: wait for at least one result.

        Yields:
            Tickets with a reply or an error: ``Refused`` if only that call has failed, any other error if all further
            calls would fail.
        """
        if wait:
            yield self._results.get()
        while not self._results.empty():
            yield self._results.get()

    def close(self) -> None:
        """Cancels open calls and ends the thread."""
        if self._thread is not None:
            self._ready.wait()
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()
            self._thread = None
            atexit.unregister(self.close)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        finally:
            self._ready.set()  # unblocks callers if the loop could not start

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._calls: asyncio.PriorityQueue[tuple[Ticket, Call]] = asyncio.PriorityQueue()
        self._limiter, self._checking, self._checked = (
            RateLimiter(self._settings.requests_per_minute),
            asyncio.Lock(),
            False,
        )
        self._in_flight: dict[str, asyncio.Event] = {}
        headers = {"Content-Type": "application/json"}
        if self._settings.key:
            headers["Authorization"] = f"Bearer {self._settings.key}"
        connector = aiohttp.TCPConnector(limit=0)  # the workers are the limit
        async with aiohttp.ClientSession(headers=headers, connector=connector) as self._session:
            workers = [asyncio.create_task(self._work()) for _ in range(self._settings.concurrency)]
            self._ready.set()
            await self._stop.wait()
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self) -> None:
        while not self._over:
            ticket, call = await self._calls.get()
            try:
                result: Result = await self._answer(call)
            except Exception as error:  # is raised where the results are taken
                result = error
                self._over = self._over or not isinstance(error, Refused)
            self._results.put((ticket, result))

    async def _answer(self, call: Call) -> Reply:
        while call.key in self._in_flight:  # an equal call of another request is in flight
            await self._in_flight[call.key].wait()
        reply = self._cache.get(call.key)
        if reply is not None:
            self._tally.cached += 1
            return reply
        self._in_flight[call.key] = asyncio.Event()
        self._tally.begin()
        try:
            await self._check()
            reply = await self._insist(call)
            self._cache.put(call.key, reply)
            self._tally.answered(reply)
            return reply
        except Refused:
            self._tally.failed += 1
            raise
        finally:
            self._tally.end()
            self._in_flight.pop(call.key).set()

    async def _check(self) -> None:
        """Checks once that the server lists the model, if it lists models.

        Raises:
            DataError: the model is not served, or the key is wrong.
        """
        url, model = self._settings.url, self._settings.model
        async with self._checking:
            if self._checked or not model:
                return
            try:
                status, headers, data = await self._request("GET", "models", _PROBE)
            except Passing:  # the call itself reports the failure, after its retries
                self._checked = True
                return
            if status in (401, 403):
                read_reply(status, headers, data, url, self._settings.key)
            names = served_names(data) if status == 200 else []
            if names and model not in names:
                more = f" and {len(names) - 5} more" if len(names) > 5 else ""
                remedy = "name one of them, or set `check_model: false` if the server loads what it does not list"
                raise DataError(url, "model", f"'{model}' is not served, but {', '.join(names[:5])}{more}; {remedy}")
            self._checked = True

    async def _insist(self, call: Call) -> Reply:
        """Makes a call, with retries.

        Raises:
            Refused: this call has failed.
            DataError: all further calls would fail.
        """
        settings, rng = self._settings, random.Random(f"{self._settings.seed}/{call.key}")
        body = call.body()
        for attempt in range(settings.retries + 1):
            await self._limiter.turn()
            try:
                answer = await self._request("POST", "chat/completions", settings.timeout, body)
                reply = read_reply(*answer, settings.url, settings.key)
            except Passing as passing:
                last = passing
            except Refused:
                self._lost = 0
                raise
            else:
                self._lost = 0
                return reply
            self._limiter.hold(last.wait)
            if last.wait > _LONGEST:
                log.warning("%s requests a pause of %.0f s", settings.url, last.wait)
            if attempt < settings.retries:
                if not self._tally.retries[last.kind]:
                    log.warning("%s: %s; retrying, also in later cases without a message", settings.url, last.words)
                self._tally.retries[last.kind] += 1
                await asyncio.sleep(min(_LONGEST, settings.backoff * 2**attempt) * rng.uniform(0.5, 1.0))
        raise await self._given_up(last)

    async def _given_up(self, last: Passing) -> Exception:
        times = self._settings.retries + 1
        self._lost += 1
        alive = await self._alive()
        if alive and self._lost < max(3, self._settings.concurrency):
            return Refused(f"failed {times} times: {last.words}", final=last.kind != EMPTY)
        url, todo = self._settings.url, "check" if alive else "start"
        kept = f"existing answers are kept in {self._cache.folder}; {todo} the server and run it again"
        return DataError(url, "server", f"no answer after {times} attempts: {last.words}; {kept}")

    async def _alive(self) -> bool:
        try:
            status, _, _ = await self._request("GET", "models", _PROBE)
        except Passing:
            return False
        return status < 500

    async def _request(
        self, method: str, path: str, timeout: float, body: bytes | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body.

        Raises:
            Passing: there is no connection, or it is cut, or nothing comes in time.
        """
        limit = aiohttp.ClientTimeout(total=timeout, sock_connect=min(timeout, _PROBE))
        try:
            async with self._session.request(
                method, f"{self._settings.url}/{path}", data=body, timeout=limit, allow_redirects=False
            ) as response:
                data = bytearray()
                async for chunk in response.content.iter_chunked(_CHUNK):
                    data += chunk
                    if len(data) > _LARGEST:
                        raise Passing("endless answer", f"an answer longer than {_LARGEST:,} bytes")
                names = {
                    name: response.headers[name] for name in ("Retry-After", "Location") if name in response.headers
                }
                return response.status, names, bytes(data)
        except aiohttp.ConnectionTimeoutError as error:
            raise Passing("no connection", f"no connection within {limit.sock_connect:g} s") from error
        except asyncio.TimeoutError as error:
            raise Passing("time-out", f"nothing within {timeout:g} s") from error
        except aiohttp.ClientConnectorCertificateError as error:
            raise Passing("no connection", f"no trust in the certificate ({error.certificate_error})") from error
        except aiohttp.ClientConnectorError as error:
            raise Passing("no connection", f"no connection ({_why(error.os_error)})") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Passing("cut connection", f"the connection was cut ({str(error) or type(error).__name__})") from error


def _why(error: OSError) -> str:
    if error.errno is not None and error.errno > 0:  # those of name resolution are negative
        return os.strerror(error.errno)
    return str(error.strerror or error)
