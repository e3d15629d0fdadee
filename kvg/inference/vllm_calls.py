"""Calls of a vLLM server: prompts out, sampled tokens with their log-probabilities back, and new weights."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from kvg.errors import EngineError
from kvg.inference.http_call import quoted
from kvg.inference.vllm_completions import PromptCompletions, SampledCompletion

_PAUSE = 0.5  # seconds between two looks at a server that is starting


class VLLMCalls:
    """Calls one server; does not retry, because a server that was started again has lost the weights of the run.

    Args:
        url: base of the server, up to ``/v1``.
        concurrency: calls at a time.
        timeout: seconds for one call.
    """

    def __init__(self, url: str, concurrency: int, timeout: float) -> None:
        self.url, self.concurrency, self.timeout = url, concurrency, timeout
        self.root = url.removesuffix("/v1")
        self._opener = build_opener(ProxyHandler({}))  # as all other calls of this project, see http_worker

    def wait(self, seconds: float) -> list[str]:
        """Waits until the server answers, which may be starting.

        Args:
            seconds: longest wait.

        Returns:
            Names of its models and adapters.

        Raises:
            EngineError: it does not answer in time.
        """
        end = time.monotonic() + seconds
        while True:
            try:
                return [entry["id"] for entry in json.loads(self._call("/v1/models", None))["data"]]
            except (EngineError, ValueError, KeyError, TypeError) as error:
                if time.monotonic() > end:
                    raise EngineError(self.url, f"no vLLM server within {seconds:g} s ({error}); start it") from error
            time.sleep(_PAUSE)

    def post(self, path: str, body: Mapping[str, Any]) -> bytes:
        """Posts JSON.

        Args:
            path: below the root of the server.
            body: what is sent.

        Returns:
            The body of the answer.

        Raises:
            EngineError: the server cannot be reached, or refuses.
        """
        return self._call(path, json.dumps(body).encode("ascii"))

    def complete(self, bodies: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Posts chat completions, ``concurrency`` at a time.

        Returns:
            The answers, in order.

        Raises:
            EngineError: one of them is not answered.
        """
        with ThreadPoolExecutor(min(self.concurrency, len(bodies))) as pool:
            answers = list(pool.map(lambda body: self.post("/v1/chat/completions", body), bodies))
        try:
            return [dict(json.loads(answer)) for answer in answers]
        except (ValueError, TypeError) as error:
            raise EngineError(self.url, f"an answer that is no JSON object ({error}); is it a vLLM server?") from error

    def _call(self, path: str, data: bytes | None) -> bytes:
        request = Request(f"{self.root}{path}", data, {"Content-Type": "application/json"})
        try:
            with self._opener.open(request, timeout=self.timeout) as response:
                content: bytes = response.read()
                return content
        except HTTPError as error:
            words = quoted(error.read(), "")
            raise EngineError(self.url, f"{path} answers {error.code} {words}{_REMEDIES.get(path, '')}") from error
        except (OSError, HTTPException) as error:  # URLError is an OSError
            reason = getattr(error, "reason", None) or str(error) or type(error).__name__
            raise EngineError(self.url, f"the server is lost ({reason}); start it again") from error


_REMEDIES = {
    "/v1/load_lora_adapter": "; start vLLM with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1, --enable-lora, --max-lora-rank",
    "/collective_rpc": "; start vLLM with VLLM_SERVER_DEV_MODE=1, and let it see the folder of the weights",
}


def read_completions(answer: Mapping[str, Any], url: str) -> PromptCompletions:
    """The completions in an answer of ``/v1/chat/completions``.

    Args:
        answer: of the server.
        url: of the server, for errors.

    Raises:
        EngineError: it holds no token ids or log-probabilities.
    """
    try:
        completions = tuple(
            SampledCompletion(
                tuple(int(token) for token in choice["token_ids"]),
                tuple(float(entry["logprob"]) for entry in choice["logprobs"]["content"]),
                choice["finish_reason"] == "length",
            )
            for choice in answer["choices"]
        )
        return PromptCompletions(tuple(answer["prompt_token_ids"]), completions)
    except (KeyError, TypeError, ValueError) as error:
        remedy = f"an answer without token ids and log-probabilities ({error!r}); use vLLM 0.11 or later"
        raise EngineError(url, remedy) from error
