"""Commands in processes of their own, and how far they are: to be killed in the middle of their work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ANSWERS = ("asked", "box.asked", "box.asked.second")  # folders of raw answers, which stay
CACHES = (*ANSWERS, "lightning_logs")


@dataclass(frozen=True)
class Command:
    """A resumable command.

    Attributes:
        words: program ("kvg" or "kvg-data") and arguments.
        out: folder that it makes; removed before the command starts from nothing.
        result: exists when the work is complete.
        goals: units (or lines of answers) that must be done before each kill.
        ignored: names of files whose contents are not compared, such as those that hold times.
        calls: number of calls that a server has had so far; None without a server.
    """

    words: tuple[str, ...]
    out: Path
    result: str = "manifest.json"
    goals: tuple[int, ...] = (2, 5)
    ignored: tuple[str, ...] = ()
    calls: Callable[[], int] | None = None

    def start(self) -> subprocess.Popen[str]:
        """The command in a process and a session of its own."""
        program, *arguments = self.words
        module = {"kvg": "kvg", "kvg-data": "kvg.cli.kvg_data"}[program]
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )

    def finish(self) -> str:
        """Runs the command to its end; returns what it printed."""
        process = self.start()
        printed, _ = process.communicate(timeout=240)
        assert process.returncode == 0, printed
        return printed

    def units(self) -> dict[Path, int]:
        """Results of units that are there, and when each was written."""
        found: dict[Path, int] = {}
        for folder in self.out.rglob("*.units"):
            for path in folder.rglob("*.json"):
                try:
                    found[path] = path.stat().st_mtime_ns
                except FileNotFoundError:  # the work has just come to its end
                    continue
        return found

    def progress(self) -> int:
        """Units that are done, and answers that are kept."""
        answers = [path for name in ANSWERS for path in self.out.rglob(f"{name}/*.jsonl")]
        answers += self.out.rglob("*.units/**/*.jsonl")
        return len(self.units()) + sum(path.read_bytes().count(b"\n") for path in answers if path.exists())

    def outputs(self) -> dict[str, bytes]:
        """Contents of all files of the result by relative path."""
        paths = (path for path in self.out.rglob("*") if path.is_file())
        kept = (path for path in paths if not set(path.parts) & set(CACHES) and path.name not in self.ignored)
        return {str(path.relative_to(self.out)): path.read_bytes() for path in kept}

    def kill(self, goal: int, with_signal: signal.Signals) -> bool:
        """Starts the command and ends it when it has come so much further.

        Returns:
            Whether it was ended in the middle of its work. No process is left behind in either case.
        """
        process, due = self.start(), self.progress() + goal
        while process.poll() is None and self.progress() < due:
            time.sleep(0.005)
        started, running = list(children(process.pid)), process.poll() is None
        process.send_signal(with_signal)
        printed, _ = process.communicate(timeout=60)
        if with_signal == signal.SIGINT and running and process.returncode != 0:
            assert process.returncode == 130, printed
            assert "Traceback" not in printed
        deadline = time.monotonic() + 20
        while any(lives(pid) for pid in started):
            assert time.monotonic() < deadline, "a process has outlived the one that started it"
            time.sleep(0.02)
        return running and not (self.out / self.result).exists()


def children(pid: int) -> Iterator[int]:
    """Processes that a process has started, and those that they have started."""
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found = [int(child) for child in task.read_text().split()]
        except OSError:  # the thread has just ended
            continue
        for child in found:
            yield child
            yield from children(child)


def lives(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
