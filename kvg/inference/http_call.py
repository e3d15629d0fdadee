"""One call of an OpenAI-compatible server: what is sent, and what is made of what comes back."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any

from kvg.errors import DataError
from kvg.shards.schema import image_extension

MIME = {"jpg": "image/jpeg", "png": "image/png"}
PASSING = (408, 409, 425, 429)  # and all from 500: the same call may succeed a little later
FATAL = {  # no other call would fare better
    401: ("key", "give the right key in the environment variable that `key_env` names"),
    402: ("account", "see to the account"),
    403: ("key", "the key may not use this; take another key or model"),
    404: ("model, url", "correct the name of the model, or the url, which is the server's base such as http://host/v1"),
    405: ("url", "give the server's base, such as http://host/v1"),
}
EMPTY = "an empty answer"
_QUOTED = 200  # characters of a server's words


@dataclass(frozen=True)
class Call:
    """What is sent.

    Attributes:
        settings: fields of the body that change the answer: model, temperature, top_p, max_tokens, seed, and others.
        system: the system's message; '' for none.
        text: the question.
        image_sha256: of the image.
        image: an encoded JPEG or PNG.
        further: turns of the model and the user alternately that follow on the question.
    """

    settings: Mapping[str, Any]
    system: str
    text: str
    image_sha256: str
    image: bytes = field(repr=False)
    further: tuple[str, ...] = ()

    @cached_property
    def key(self) -> str:
        """Names the content: equal calls have equal keys, whatever the server's address."""
        content = [dict(self.settings), self.system, self.text, self.image_sha256, *self.further]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode("ascii")).hexdigest()

    def body(self) -> bytes:
        """The JSON to be posted to ``/chat/completions``; the image comes before the text.

        Raises:
            DataError: the image is neither JPEG nor PNG.
        """
        kind = MIME[image_extension(self.image)]
        url = f"data:{kind};base64,{base64.b64encode(self.image).decode('ascii')}"
        content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": self.text}]
        messages: list[dict[str, Any]] = [{"role": "system", "content": self.system}] if self.system else []
        messages.append({"role": "user", "content": content})
        roles = ("assistant", "user")
        messages += [{"role": roles[n % 2], "content": turn} for n, turn in enumerate(self.further)]
        return json.dumps({**self.settings, "messages": messages, "stream": False}).encode("ascii")


@dataclass(frozen=True)
class Reply:
    """What a model answered.

    Attributes:
        text: with what was thought first, inside think tags; never empty, unless it was cut off.
        cut: whether it was cut off at ``max_tokens``.
        prompt_tokens: that the model read; None where the server does not tell.
        completion_tokens: that it wrote.
    """

    text: str
    cut: bool
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Passing(Exception):
    """A failure that may pass.

    Args:
        kind: a few words, by which such failures are counted.
        words: what happened.
        wait: seconds that the server asks to be left alone.
    """

    def __init__(self, kind: str, words: str, wait: float = 0.0) -> None:
        super().__init__(words)
        self.kind, self.words, self.wait = kind, words, wait


class Refused(Exception):
    """A call that has failed, and fails alone.

    Args:
        words: why.
        final: whether another seed would not help, either.
    """

    def __init__(self, words: str, final: bool = True) -> None:
        super().__init__(words)
        self.words, self.final = words, final


def read_reply(status: int, headers: Mapping[str, str], data: bytes, url: str, key: str) -> Reply:
    """Makes a reply of what a server has sent.

    Args:
        status: of HTTP.
        headers: of the response.
        data: its body.
        url: of the server, for errors.
        key: secret that no error may tell.

    Raises:
        Passing: it may be asked again.
        Refused: the server does not want this very call.
        DataError: it would want no other call, either.
    """
    if status in PASSING or status >= 500:
        raise Passing(f"status {status}", f"{status} {quoted(data, key)}", _retry_after(headers.get("Retry-After", "")))
    if status in FATAL:
        what, remedy = FATAL[status]
        raise DataError(url, what, f"the server answers {status} {quoted(data, key)}; {remedy}")
    if 300 <= status < 400:
        where = headers.get("Location", "another address").replace(key or "\0", "***")
        raise DataError(url, "url", f"the server sends on to {where}; give that as the url")
    if status != 200:
        raise Refused(f"the server refused it: {status} {quoted(data, key)}")
    return _reply_of(data, key)


def _reply_of(data: bytes, key: str) -> Reply:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Passing("broken JSON", f"an answer that is no JSON: {quoted(data, key)}") from error
    try:
        choice = content["choices"][0]
        text, finish = _text_of(choice["message"]), choice.get("finish_reason")
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise Passing("wrong schema", f"an answer without a choice with text: {quoted(data, key)}") from error
    usage = content.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    text = text.encode("utf-8", "replace").decode("utf-8")  # half a character could not be written to a file
    if not text.strip() and finish != "length":
        raise Passing(EMPTY, EMPTY)
    return Reply(text, finish == "length", _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens")))


def _text_of(message: Any) -> str:
    """What the model wrote; some servers set apart what was thought, under one of two names.

    Raises:
        KeyError: there is no content.
        TypeError: it is no text.
    """
    text, thought = message["content"], message.get("reasoning_content") or message.get("reasoning")
    if not isinstance(text, str | None):
        raise TypeError
    return f"<think>{thought}</think>{text or ''}" if isinstance(thought, str) else text or ""


def served_names(data: bytes) -> list[str]:
    """Names in an answer to ``/models``; none where it is something else."""
    try:
        return [entry["id"] for entry in json.loads(data)["data"] if isinstance(entry["id"], str)]
    except (ValueError, RecursionError, KeyError, TypeError):
        return []


def quoted(data: bytes, key: str) -> str:
    """A server's words on an error, short and without the key."""
    text = data.decode("utf-8", "replace")
    try:
        content = json.loads(text)
        inner = content.get("error", content)
        text_of_error = inner if isinstance(inner, str) else inner.get("message") or inner.get("detail")
        text = text_of_error if isinstance(text_of_error, str) else text
    except (ValueError, RecursionError, AttributeError):
        pass
    text = " ".join((text.replace(key, "***") if key else text).split())
    text = "".join(letter for letter in text if letter.isprintable())
    return f'"{text[:_QUOTED]}{"..." if len(text) > _QUOTED else ""}"' if text else "(no words)"


def _retry_after(value: str) -> float:
    """Seconds of the header, which holds them or a date; 0 where it holds neither."""
    try:
        return max(0.0, float(int(value)))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return 0.0


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
