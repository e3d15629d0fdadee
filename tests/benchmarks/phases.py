"""A clock that splits a step into phases, wall and CPU seconds, for our trainer and its peer alike."""

from __future__ import annotations

import functools
import resource
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any


class PhaseClock:
    """Exclusive seconds by phase: a phase that is opened inside another one is taken off it."""

    def __init__(self, wait: Callable[[], object] = lambda: None) -> None:
        """``wait`` returns when all work that was asked for is done: a GPU's goes on behind the calls."""
        self.wait = wait
        self.steps: list[dict[str, float]] = []
        self._wall: dict[str, float] = defaultdict(float)
        self._open: list[list[Any]] = []
        self._last = (time.perf_counter(), time.process_time())

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Counts what happens inside for ``name``."""
        frame = [0.0]
        self._open.append(frame)
        start = time.perf_counter()
        try:
            yield
        finally:
            self.wait()
            spent = time.perf_counter() - start
            self._open.pop()
            self._wall[name] += spent - frame[0]
            if self._open:
                self._open[-1][0] += spent

    def wrap(self, owner: Any, method: str, name: str | Callable[[], str]) -> None:
        """Counts every call of a method for a phase."""
        inner = getattr(owner, method)

        @functools.wraps(inner)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.phase(name if isinstance(name, str) else name()):
                return inner(*args, **kwargs)

        setattr(owner, method, timed)

    def restart(self) -> None:
        """A step begins."""
        self._wall.clear()
        self._last = (time.perf_counter(), time.process_time())

    def step(self) -> None:
        """A step ends, and the next begins."""
        self.wait()
        now = (time.perf_counter(), time.process_time())
        step, cpu = (b - a for a, b in zip(self._last, now, strict=True))
        phases = {**self._wall}
        phases["other"] = step - sum(phases.values())
        self.steps.append({"step_s": step, "step_cpu_s": cpu, **phases})
        self.restart()

    def report(self, skip: int) -> dict[str, Any]:
        """Medians over the steps behind the first ``skip``."""
        steps = self.steps[skip:]
        names = sorted({name for step in steps for name in step} - {"step_s", "step_cpu_s"})
        return {
            "step_s": median(s["step_s"] for s in steps),
            "step_cpu_s": median(s["step_cpu_s"] for s in steps),
            "steps_s": [round(s["step_s"], 3) for s in self.steps],
            "phases_s": {name: round(median(s.get(name, 0.0) for s in steps), 4) for name in names},
            "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        }
