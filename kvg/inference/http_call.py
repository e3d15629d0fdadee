"""One call of an OpenAI-compatible server: the request body, and the parsing of the response."""

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
PASSING = (408, 409, 425, 429)  # and all from 500: transient, the call is repeated
FATAL = {  # every other call would fail too
    401: ("key", "give the right key in the environment variable that `key_env` names"),
    402: ("account", "check the account's balance"),
    403: ("key", "the key may not use this; take another key or model"),
    404: ("model, url", "correct the name of the model, or the url, which is the server's base such as http://host/v1"),
    405: ("url", "give the server's base, such as http://host/v1"),
}
EMPTY = "an empty answer"
_QUOTED = 200  # characters of a server's message


@dataclass(frozen=True)
class Call:
    """One call.

    Attributes:
        settings: fields of the body that change the answer: model, temperature, top_p, max_tokens, seed, and others.
        system: the system's message; '' for none.
        text: the question.
        image_sha256: of the image.
        image: an encoded JPEG or PNG.
        further: following turns, alternately of the model and the user.
    """

    settings: Mapping[str, Any]
    system: str
    text: str
    image_sha256: str
    image: bytes = field(repr=False)
    further: tuple[str, ...] = ()

    @cached_property
    def key(self) -> str:
        """Hash of the content: equal calls have equal keys, independent of the server's address."""
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
    """A model's answer.

    Attributes:
        text: the answer, after its reasoning in think tags; only a truncated answer may be empty.
        cut: whether it was truncated at ``max_tokens``.
        prompt_tokens: number of prompt tokens; None if the server does not report it.
        completion_tokens: number of generated tokens; None if the server does not report it.
    """

    text: str
    cut: bool
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Passing(Exception):
    """A transient failure.

    Args:
        kind: short name, by which such failures are counted.
        words: description.
        wait: seconds to wait, as requested by the server.
    """

    def __init__(self, kind: str, words: str, wait: float = 0.0) -> None:
        super().__init__(words)
        self.kind, self.words, self.wait = kind, words, wait


class Refused(Exception):
    """A permanent failure of one call.

    Args:
        words: reason.
        final: whether the call would also fail with another seed.
    """

    def __init__(self, words: str, final: bool = True) -> None:
        super().__init__(words)
        self.words, self.final = words, final


def read_reply(status: int, headers: Mapping[str, str], data: bytes, url: str, key: str) -> Reply:
    """Parses the response of a server.

    Args:
        status: HTTP status.
        headers: of the response.
        data: body of the response.
        url: of the server, for errors.
        key: secret, which is removed from errors.

    Raises:
        Passing: the failure is transient.
        Refused: the server rejects this call.
        DataError: the server would reject every call.
    """
    if status in PASSING or status >= 500:
        raise Passing(f"status {status}", f"{status} {quoted(data, key)}", _retry_after(headers.get("Retry-After", "")))
    if status in FATAL:
        what, remedy = FATAL[status]
        raise DataError(url, what, f"the server answers {status} {quoted(data, key)}; {remedy}")
    if 300 <= status < 400:
        where = headers.get("Location", "another address").replace(key or "\0", "***")
        raise DataError(url, "url", f"the server redirects to {where}; set that as the url")
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
    text = text.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair cannot be written to a file
    if not text.strip() and finish != "length":
        raise Passing(EMPTY, EMPTY)
    return Reply(text, finish == "length", _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens")))


def _text_of(message: Any) -> str:
    """The model's text; some servers return the reasoning in a separate field, with one of two names.

    Raises:
        KeyError: there is no content.
        TypeError: the content is not text.
    """
    text, thought = message["content"], message.get("reasoning_content") or message.get("reasoning")
    if not isinstance(text, str | None):
        raise TypeError
    return f"<think>{thought}</think>{text or ''}" if isinstance(thought, str) else text or ""


def served_names(data: bytes) -> list[str]:
    """Model names in a response of ``/models``; empty if it has another format."""
    try:
        return [entry["id"] for entry in json.loads(data)["data"] if isinstance(entry["id"], str)]
    except (ValueError, RecursionError, KeyError, TypeError):
        return []


def quoted(data: bytes, key: str) -> str:
    """The error message of a server, shortened and without the key."""
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
    """Seconds to wait by the header, which holds seconds or a date; 0 if it is invalid."""
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
