"""What it took to ask: counts, tokens, time and cost."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

from kvg.inference.http_call import Reply


@dataclass
class Usage:
    """Counts of everything that was asked by one client.

    Attributes:
        requests: questions that were put.
        answers: that came from the server, good or not.
        cached: that had been given before.
        failed: calls that the server refused or left without an answer.
        retries: calls that were made again, by what had happened.
        prompt_tokens: that were read.
        completion_tokens: that were written.
        untold: answers whose tokens the server did not tell.
        seconds: in which at least one call was under way, up to the last moment when none was.
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
        """A call is under way."""
        if not self._under_way:
            self._since = time.monotonic()
        self._under_way += 1

    def end(self) -> None:
        """It is no more."""
        self._under_way -= 1
        if not self._under_way:
            self.seconds += time.monotonic() - self._since

    def answered(self, reply: Reply) -> None:
        """An answer has come."""
        self.answers += 1
        self.prompt_tokens += reply.prompt_tokens or 0
        self.completion_tokens += reply.completion_tokens or 0
        self.untold += reply.prompt_tokens is None or reply.completion_tokens is None

    def elapsed(self) -> float:
        """Seconds in which at least one call was under way, until now."""
        return self.seconds + (time.monotonic() - self._since if self._under_way else 0.0)

    def cost(self, price_prompt: float, price_completion: float) -> float:
        """What the tokens cost.

        Args:
            price_prompt: of a million tokens that are read.
            price_completion: of a million that are written.
        """
        return (self.prompt_tokens * price_prompt + self.completion_tokens * price_completion) / 1e6

    def summary(self, price_prompt: float, price_completion: float) -> str:
        """All of it in one line."""
        parts = [f"{self.requests:,} questions", f"{self.answers:,} answers and {self.cached:,} from the cache"]
        if self.failed:
            parts.append(f"{self.failed:,} refused or left without an answer")
        if self.retries:
            kinds = ", ".join(f"{kind} {num:,}" for kind, num in sorted(self.retries.items()))
            parts.append(f"{self.retries.total():,} asked again ({kinds})")
        seconds = self.elapsed()
        rate = self.completion_tokens / seconds if seconds else 0.0
        parts.append(f"{self.prompt_tokens:,} tokens read and {self.completion_tokens:,} written")
        if self.untold:
            parts.append(f"tokens of {self.untold:,} answers not told")
        parts.append(f"{seconds:.1f} s ({rate:,.0f} tokens written a second)")
        if price_prompt or price_completion:
            parts.append(f"cost {self.cost(price_prompt, price_completion):,.4f}")
        return "; ".join(parts)
