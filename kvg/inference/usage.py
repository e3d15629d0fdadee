"""Usage of a client: counts, tokens, time and cost."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

from kvg.inference.http_call import Reply


@dataclass
class Usage:
    """Usage of one client.

    Attributes:
        requests: number of requests.
        answers: number of answers from the server, valid or not.
        cached: number of answers from the cache.
        failed: number of calls without an answer.
        retries: number of repeated calls by kind of failure.
        prompt_tokens: number of prompt tokens.
        completion_tokens: number of generated tokens.
        untold: number of answers without token counts.
        seconds: time with at least one open call, up to the last idle moment.
    """

    requests: int = 0
    answers: int = 0
    cached: int = 0
    failed: int = 0
    retries: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    untold: int = 0
    seconds: float = 0.0
    _under_way: int = field(default=0, init=False)
    _since: float = field(default=0.0, init=False)

    def begin(self) -> None:
        """Records the start of a call."""
        if not self._under_way:
            self._since = time.monotonic()
        self._under_way += 1

    def end(self) -> None:
        """Records the end of a call."""
        self._under_way -= 1
        if not self._under_way:
            self.seconds += time.monotonic() - self._since

    def answered(self, reply: Reply) -> None:
        """Records an answer."""
        self.answers += 1
        self.prompt_tokens += reply.prompt_tokens or 0
        self.completion_tokens += reply.completion_tokens or 0
        self.untold += reply.prompt_tokens is None or reply.completion_tokens is None

    def elapsed(self) -> float:
        """Seconds with at least one open call, until now."""
        return self.seconds + (time.monotonic() - self._since if self._under_way else 0.0)

    def cost(self, price_prompt: float, price_completion: float) -> float:
        """Cost of the tokens.

        Args:
            price_prompt: price per million prompt tokens.
            price_completion: price per million generated tokens.
        """
        return (self.prompt_tokens * price_prompt + self.completion_tokens * price_completion) / 1e6

    def summary(self, price_prompt: float, price_completion: float) -> str:
        """The usage in one line."""
        parts = [f"{self.requests:,} questions", f"{self.answers:,} answers and {self.cached:,} from the cache"]
        if self.failed:
            parts.append(f"{self.failed:,} refused or left without an answer")
        if self.retries:
            kinds = ", ".join(f"{kind} {num:,}" for kind, num in sorted(self.retries.items()))
            parts.append(f"{self.retries.total():,} repeated ({kinds})")
        seconds = self.elapsed()
        rate = self.completion_tokens / seconds if seconds else 0.0
        parts.append(f"{self.prompt_tokens:,} tokens read and {self.completion_tokens:,} written")
        if self.untold:
            parts.append(f"no token counts for {self.untold:,} answers")
        parts.append(f"{seconds:.1f} s ({rate:,.0f} tokens written a second)")
        if price_prompt or price_completion:
            parts.append(f"cost {self.cost(price_prompt, price_completion):,.4f}")
        return "; ".join(parts)
