"""Runs commands that depend on each other: several at a time, each once, and none left behind when one fails."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.spinner import Spinner
from rich.text import Text

from kvg.errors import KVGError
from kvg.work.job import Job
from kvg.work.pool import follow_parent
from kvg.workflow.signals import ends_interrupt, signal_group, signals_wait

MODULES = {"kvg": "kvg", "kvg-data": "kvg.cli.kvg_data"}
_GRACE_S = 8.0  # for a child to end by itself once it has been asked to
_SAVING_S = 600.0  # for one that saves what it goes on from
_TAIL = 20  # lines of a failed step's log that are shown
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class StepError(KVGError):
    """A command that failed; the message ends with the last lines of its log."""


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        name: also that of its log and of its stamp.
        title: what it does, in a few words.
        command: program and arguments, as a user would type them.
        out: file or folder that it makes; removed before the step is run again.
        proof: exists when the step is complete.
        needs: names of the steps before it.
        reads: other files that decide the result.
        cores: how many it keeps busy.
        extra_identity: what else decides the result, as text.
        resume: gives the words to add where an interrupted step goes on with what it has left, or None where that is of
            no use. Without such a function what is left is removed.
    """

    name: str
    title: str
    command: tuple[str, ...]
    out: Path
    proof: Path
    needs: tuple[str, ...] = ()
    reads: tuple[Path, ...] = ()
    cores: int = 1
    extra_identity: str = ""
    resume: Callable[[], tuple[str, ...] | None] | None = field(default=None, compare=False)

    @property
    def argv(self) -> list[str]:
        """The command, with this very interpreter for those of this package."""
        program, *arguments = self.command
        return [sys.executable, "-m", MODULES[program], *arguments] if program in MODULES else list(self.command)


@dataclass
class Running:
    """A step under way."""

    step: Step
    process: subprocess.Popen[bytes]
    log: Path
    lock: IO[bytes]
    start: float = field(default_factory=time.monotonic)


class StepRunner:
    """Runs steps in their order as soon as what they need is there.

    A step's identity is the checksum of its command, of the files it reads and of the steps it needs. It is kept in a
    stamp when the step is complete, so that a second run does only what is missing or has changed.

    Args:
        folder: for ``logs`` and ``stamps``.
        cores: number of single-core steps that may run at once.
        console: where progress is printed.
    """

    def __init__(self, folder: Path, cores: int, console: Console) -> None:
        self.folder, self.cores, self.console = folder, max(1, cores), console
        self._running: list[Running] = []

    def run(self, steps: Sequence[Step]) -> None:
        """Runs all that is not yet complete.

        Raises:
            StepError: a step failed; the others have been stopped.
        """
        identities = self._identities(steps)
        kept = self.complete(steps)
        done, waiting = {s.name for s in kept}, [s for s in steps if s not in kept]
        if kept:
            self.console.print(f"[dim]there already: {', '.join(s.name for s in kept)}[/dim]")
        try:
            with Live(console=self.console, refresh_per_second=4, transient=True, get_renderable=self._view):
                while waiting or self._running:
                    self._start_ready(waiting, done, identities)
                    for ended in [r for r in self._running if r.process.poll() is not None]:
                        self._finish(ended, identities[ended.step.name])
                        done.add(ended.step.name)
                    time.sleep(0.05)
        finally:
            self._stop_all()

    def complete(self, steps: Sequence[Step]) -> list[Step]:
        """Those of the steps that have nothing left to do."""
        identities = self._identities(steps)
        return [step for step in steps if self.is_complete(step, identities[step.name])]

    def is_complete(self, step: Step, identity: str) -> bool:
        """Whether the step has been run to its end with this identity, and its result is there."""
        return self._job(step, identity).is_complete(step.proof)

    def log(self, step: Step) -> Path:
        """Where the step's output goes."""
        return self.folder / "logs" / f"{step.name}.log"

    def _job(self, step: Step, identity: str) -> Job:
        """The step as a job. Its only unit is saved when it begins, and so tells an interrupted step from a new one."""
        return Job(self.folder / "stamps", f"{step.name}.json", identity)

    @staticmethod
    def _identities(steps: Iterable[Step]) -> Mapping[str, str]:
        identities: dict[str, str] = {}
        for step in steps:
            digest = hashlib.sha256("\0".join(step.command).encode())
            for path in step.reads:
                digest.update(path.read_bytes())
            digest.update(step.extra_identity.encode())
            for name in step.needs:
                digest.update(identities[name].encode())
            identities[step.name] = digest.hexdigest()
        return identities

    def _start_ready(self, waiting: list[Step], done: set[str], identities: Mapping[str, str]) -> None:
        for step in list(waiting):
            if not done.issuperset(step.needs):
                continue
            free = self.cores - sum(r.step.cores for r in self._running)
            if self._running and step.cores > free:
                return  # nothing later may overtake it, or a step of many cores would wait for ever
            waiting.remove(step)
            self._start(step, identities[step.name])

    def _start(self, step: Step, identity: str) -> None:
        lock = self._locked(step)
        more = self._prepare(step, identity)
        log = self.log(step)
        log.parent.mkdir(parents=True, exist_ok=True)
        self.console.print(f"[bold]{step.name}[/bold]  [dim]{step.title}[/dim]")
        self.console.print(Text(f"  $ {shlex.join([*step.command, *more])}", style="cyan"), soft_wrap=True)
        env = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": str(self.console.width), "PYTHONUNBUFFERED": "1"}
        with log.open("wb") as stream, signals_wait():
            # A session of its own: Ctrl-C reaches this program alone, which then ends whole process groups.
            process = subprocess.Popen(
                [*step.argv, *more],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=env,
                start_new_session=True,
                preexec_fn=follow_parent,  # a kill that cannot be caught ends the children, too
            )
            self._running.append(Running(step, process, log, lock))

    def _locked(self, step: Step) -> IO[bytes]:
        """A file that no other program has while this one does: two of them would clear away each other's work."""
        path = self.folder / "stamps" / f"{step.name}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("wb")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise StepError(f"{step.name} is being run by another program; wait for it, or end it first") from error
        return lock

    def _prepare(self, step: Step, identity: str) -> tuple[str, ...]:
        """Makes room for a step, or has it go on with what is there; returns the words that do so."""
        job = self._job(step, identity)
        more = step.resume() if step.resume and job.done() else None
        job.reopen()
        if more is None:
            job.discard()
            if step.out.is_dir():
                shutil.rmtree(step.out)
            step.out.unlink(missing_ok=True)
        if step.resume:
            job.save(0, "begun")
        return more or ()

    def _finish(self, ended: Running, identity: str) -> None:
        self._running.remove(ended)
        ended.lock.close()
        step, code = ended.step, ended.process.returncode
        seconds = time.monotonic() - ended.start
        if code or not step.proof.exists():
            fault = f"ended with exit code {code}" if code else f"ended without {step.proof}"
            tail = "\n".join(f"  {line}" for line in last_lines(ended.log, _TAIL))
            raise StepError(f"{step.name} {fault}. The end of {ended.log}:\n{tail}")
        job = self._job(step, identity)
        job.complete({"command": shlex.join(step.command), "seconds": round(seconds, 1)})
        self.console.print(f"[green]✓[/green] {step.name}  {clock(seconds)}")

    def _view(self) -> Group:
        lines = []
        for running in self._running:
            line = (last_lines(running.log, 1) or [""])[0].strip()
            text = f"{running.step.name}  {clock(time.monotonic() - running.start)}  {line}"
            lines.append(Spinner("dots", Text(text, no_wrap=True, overflow="ellipsis")))
        return Group(*lines)

    def _stop_all(self) -> None:
        start = time.monotonic()
        for running in self._running:
            signal_group(running.process, signal.SIGTERM)
        try:
            for running in self._running:
                if not self._ended(running, start + _GRACE_S) and running.step.resume is not None:
                    self.console.print(f"{running.step.name} is saving; Ctrl-C again ends it at once")
                    self._ended(running, start + _SAVING_S)
        except KeyboardInterrupt:
            self.console.print("ending what has not ended yet")
        for running in self._running:
            signal_group(running.process, signal.SIGKILL)  # also what the child has left behind
            running.process.wait()
            running.lock.close()
        self._running = []

    @staticmethod
    def _ended(running: Running, deadline: float) -> bool:
        try:
            running.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return False
        return True


def carry_out(runner: StepRunner, steps: Sequence[Step]) -> bool:
    """Runs the steps of a command; whoever ends it ends its children, too.

    Returns:
        Whether all of them are complete; what failed has been printed.
    """
    with ends_interrupt():
        try:
            runner.run(steps)
        except StepError as error:
            runner.console.print(f"[red]✗[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
            runner.console.print("What is complete is kept: run the same command again to go on from there.")
            return False
    return True


def last_lines(log: Path, num: int) -> list[str]:
    """The last lines of a log that say something, as they stood on the screen.

    Colours are left out, and of a line that was drawn over and over only its last state is kept.
    """
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - 20_000))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return []
    lines = (line.rstrip("\r").rpartition("\r")[2].rstrip() for line in _ESCAPES.sub("", text).split("\n"))
    return [line for line in lines if line.strip()][-num:]


def clock(seconds: float) -> str:
    """Minutes and seconds.

    >>> clock(75.2)
    '1:15'
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"
