"""A model behind an OpenAI-compatible server: vLLM, SGLang, llama.cpp, ``transformers serve``, or a hosted one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from kvg.errors import ConfigError
from kvg.inference.cache import AnswerCache
from kvg.inference.dispatcher import Dispatcher
from kvg.inference.http_call import Call
from kvg.inference.http_worker import HTTPSettings, HTTPWorker
from kvg.inference.request import Client, Outcome, Request, Validator
from kvg.inference.usage import Usage

T = TypeVar("T")
REPEATED_TEMPERATURE = 0.7  # smallest temperature of repeated requests: at 0 they would get the same answer again
WINDOW = 4  # requests held in memory, in multiples of the concurrency
_OWN = ("model", "temperature", "top_p", "max_tokens", "seed", "messages", "stream", "n")  # of the body


@dataclass
class Server(Client):
    """A client of an OpenAI-compatible server, with concurrent calls.

    In a project file::

        client:
          class_path: kvg.inference.server.Server
          init_args:
            url: http://127.0.0.1:8000/v1     # vllm serve Qwen/Qwen2-VL-7B-Instruct
            model: Qwen/Qwen2-VL-7B-Instruct
            temperature: 0.7
            max_tokens: 512
            concurrency: 64

    A hosted one may need ``key_env: NAME_OF_THE_VARIABLE``, ``requests_per_minute: 500``, ``price_prompt: 0.15``
    and ``price_completion: 0.6``.

    Each answer is a separate call with its own seed, which depends on the content. Answers are cached by content: equal
    calls are made only once, independent of the server's address. A request that is repeated after an invalid answer
    has a temperature of at least 0.7.

    Attributes:
        url: base of the server, up to ``/v1``.
        model: its name there.
        temperature: of the first attempt; at 0 all answers to one question are equal.
        top_p: nucleus sampling.
        max_tokens: longest answer; a truncated answer is a fault.
        seed: of sampling.
        system: message of the system; '' for none.
        extra: further fields of the body, such as ``{chat_template_kwargs: {enable_thinking: false}}``.
        key_env: name of the environment variable that holds the key; '' for none.
        concurrency: largest number of concurrent calls.
        requests_per_minute: largest number of calls; None for no limit.
        timeout: of one call, in seconds.
        retries: largest number of retries if the server is busy, fails, or cannot be reached.
        backoff: seconds before the first retry; doubled for each further retry, up to 30 s.
        check_model: whether to check first that the server lists the model.
        price_prompt: price per million prompt tokens.
        price_completion: price per million generated tokens.

    Raises:
        ConfigError: a setting is invalid.
    """

    url: str
    model: str
    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 512
    seed: int = 0
    system: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
    key_env: str = ""
    concurrency: int = 16
    requests_per_minute: float | None = None
    timeout: float = 120.0
    retries: int = 6
    backoff: float = 0.5
    check_model: bool = True
    price_prompt: float = 0.0
    price_completion: float = 0.0
    tally: Usage = field(default_factory=Usage, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Checks the settings, without the network."""
        for name in ("url", "model", "system", "key_env"):
            if not isinstance(getattr(self, name), str):
                raise ConfigError(name, f"{getattr(self, name)!r} is no text; put it in quotes")
        self.url = _base(self.url)
        if not self.model:
            raise ConfigError("model", "is empty; give the name under which the server has it")
        for name, low, high in (("max_tokens", 1, None), ("concurrency", 1, 4096), ("retries", 0, 100)):
            _check_number(name, getattr(self, name), low, high, whole=True)
        _check_number("seed", self.seed, None, None, whole=True)
        for name in ("temperature", "backoff", "price_prompt", "price_completion"):
            _check_number(name, getattr(self, name), 0, None)
        _check_number("top_p", self.top_p, 0, 1, above=True)
        _check_number("timeout", self.timeout, 0, None, above=True)
        if self.requests_per_minute is not None:
            _check_number("requests_per_minute", self.requests_per_minute, 0, None, above=True)
        if not isinstance(self.check_model, bool):
            raise ConfigError("check_model", f"{self.check_model!r} is neither true nor false")
        _check_extra(self.extra)
        self._key()

    def ask(
        self, requests: Iterable[Request], validator: Validator[T], work: Path, max_attempts: int = 1
    ) -> Iterator[Outcome[T]]:
        """See ``Client.ask``.

        A rejected call (picture too large, prompt too long) is a fault of its request only. A wrong key, url or model,
        and a server that is down, stop the run.

        Raises:
            ConfigError: ``max_attempts`` is less than 1, or the key is missing.
            DataError: no further request can be answered, or a file cannot be written; existing answers are kept.
        """
        _check_number("max_attempts", max_attempts, 1, None, whole=True)
        return self._outcomes(requests, validator, work, max_attempts, self._key())

    def summary(self) -> str:
        """Usage in one line."""
        return self.tally.summary(self.price_prompt, self.price_completion)

    def identity(self) -> str:
        """See ``Client.identity``: the content of the calls, without the server's address."""
        names = ("model", "temperature", "top_p", "max_tokens", "seed", "system", "extra")
        return json.dumps({name: getattr(self, name) for name in names}, sort_keys=True)

    def _outcomes(
        self, requests: Iterable[Request], validator: Validator[T], work: Path, max_attempts: int, key: str
    ) -> Iterator[Outcome[T]]:
        settings = HTTPSettings(
            url=self.url,
            model=self.model if self.check_model else "",
            key=key,
            concurrency=self.concurrency,
            timeout=self.timeout,
            retries=self.retries,
            backoff=self.backoff,
            requests_per_minute=self.requests_per_minute,
            seed=self.seed,
        )
        cache = AnswerCache(work)
        line = HTTPWorker(settings, cache, self.tally)
        try:
            order = Dispatcher(line, cache, self.tally, self._call, validator, max_attempts, WINDOW * self.concurrency)
            yield from order.outcomes(requests)
        finally:
            line.close()
            cache.close()

    def _call(self, request: Request, image_sha256: str, tried: int, answer: int, first_turn: str | None) -> Call:
        further = () if first_turn is None else (first_turn, request.second_turn)
        content = json.dumps([self.seed, self.system, request.text, image_sha256, tried, answer, *further])
        settings = {
            **self.extra,
            "model": self.model,
            "temperature": max(self.temperature, REPEATED_TEMPERATURE) if tried else self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_tokens,
            # 31 bits: what every server takes
            "seed": int.from_bytes(hashlib.sha256(content.encode("ascii")).digest()[:4], "big") >> 1,
        }
        return Call(settings, self.system, request.text, image_sha256, request.image, further)

    def _key(self) -> str:
        """The key from the environment.

        Raises:
            ConfigError: it is missing or has invalid characters.
        """
        if not self.key_env:
            return ""
        key = os.environ.get(self.key_env, "").strip()
        if not key:
            raise ConfigError("key_env", f"the environment has no '{self.key_env}'; `export {self.key_env}=...` first")
        if not (key.isascii() and key.isprintable()):
            raise ConfigError("key_env", f"'{self.key_env}' holds letters that no key has; set it again")
        return key


def _base(url: str) -> str:
    """The url without what may be appended by mistake."""
    if "@" in url:
        raise ConfigError("url", "holds a password; name the environment variable with the key in `key_env`")
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise ConfigError(
            "url", f"'{url.split('?')[0]}' is no address; give the server's base, such as http://127.0.0.1:8000/v1"
        )
    if parts.query or parts.fragment:
        raise ConfigError("url", "holds more than an address; give it without `?` and `#`, up to /v1")
    return url.rstrip("/").removesuffix("/chat/completions")


def _check_number(
    name: str, value: Any, low: float | None, high: float | None, whole: bool = False, above: bool = False
) -> None:
    kind, word = (int, "a whole number") if whole else (int | float, "a number")
    fits = isinstance(value, kind) and not isinstance(value, bool)
    fits = fits and (low is None or (value > low if above else value >= low)) and (high is None or value <= high)
    if not fits or value in (float("inf"), float("-inf")):
        wanted = word + (f" above {low}" if above else f" from {low}" if low is not None else "")
        raise ConfigError(name, f"{value!r} does not fit; give {wanted}{f' to {high}' if high is not None else ''}")


def _check_extra(extra: Any) -> None:
    try:
        json.dumps(extra, allow_nan=False, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            "extra", f"cannot be sent as JSON ({error}); give texts, numbers, lists and mappings"
        ) from error
    if not isinstance(extra, Mapping):
        raise ConfigError("extra", f"{extra!r} are no fields; write `name: value` lines")
    for name in extra:
        if name in _OWN:
            raise ConfigError(f"extra.{name}", f"is not for here; set `{name}` itself, or leave it out")
