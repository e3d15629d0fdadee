"""Runs commands that depend on each other, several at a time. If one fails, the others are stopped."""

from __future__ import annotations

import fcntl
import hashlib
import os
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
from kvg.workflow.step_logs import clock, last_lines

MODULES = {"kvg": "kvg", "kvg-data": "kvg.cli.kvg_data"}
_GRACE_S = 8.0  # seconds for a child to end after SIGTERM
_SAVING_S = 600.0  # seconds for a child that saves a checkpoint
_TAIL = 20  # lines of a failed step's log in its error


class StepError(KVGError):
    """A command that failed; the message ends with the last lines of its log."""


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        name: name of the step, its log and its stamp.
        title: description in a few words.
        command: program and arguments, as a user would type them.
        out: file or folder that it makes; it is removed before the step is run again.
        proof: file that exists when the step is complete.
        needs: names of the steps that must be complete before.
        reads: other files that the result depends on.
        cores: number of cores that it uses.
        extra_identity: text of everything else that the result depends on.
        resume: returns the arguments to add for resuming an interrupted step, or None if it cannot be resumed. Without
            this function the files of an interrupted step are removed.
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
        """Returns the command; commands of this package are run with the present interpreter."""
        program, *arguments = self.command
        return [sys.executable, "-m", MODULES[program], *arguments] if program in MODULES else list(self.command)


@dataclass
class Running:
    """A running step."""

    step: Step
    process: subprocess.Popen[bytes]
    log: Path
    lock: IO[bytes]
    start: float = field(default_factory=time.monotonic)


class StepRunner:
    """Runs steps in order, each as soon as the steps that it needs are complete.

    The identity of a step is the checksum of its command, of the files that it reads, and of the steps that it needs.
    It is saved in a stamp when the step is complete, so a second run only runs steps that are missing or have changed.

    Args:
        folder: for ``logs`` and ``stamps``.
        cores: number of single-core steps that may run at once.
        console: where progress is printed.
        keep_going: whether a failed step only stops those that need it; ``failures`` then has its error.
        finished: is called with each step that has been completed.

    Attributes:
        failures: errors of failed steps, with ``keep_going``.
    """

    def __init__(
        self,
        folder: Path,
        cores: int,
        console: Console,
        keep_going: bool = False,
        finished: Callable[[Step], None] | None = None,
    ) -> None:
        self.folder, self.cores, self.console = folder, max(1, cores), console
        self._keep_going, self._finished = keep_going, finished
        self.failures: list[StepError] = []
        self._running: list[Running] = []

    def run(self, steps: Sequence[Step]) -> None:
        """Runs all steps that are not complete.

        Raises:
            StepError: a step failed; the others have been stopped.
        """
        identities = self.identities_of(steps)
        kept = self.complete(steps)
        done, waiting = {s.name for s in kept}, [s for s in steps if s not in kept]
        if kept:
            self.console.print(f"[dim]complete: {', '.join(s.name for s in kept)}[/dim]")
        try:
            with Live(console=self.console, refresh_per_second=4, transient=True, get_renderable=self._view):
                while waiting or self._running:
                    self._start_ready(waiting, done, identities)
                    for ended in [r for r in self._running if r.process.poll() is not None]:
                        try:
                            self._finish(ended, identities[ended.step.name])
                        except StepError as error:
                            self._fail(error, ended.step, waiting)
                            continue
                        done.add(ended.step.name)
                        if self._finished is not None:
                            self._finished(ended.step)
                    time.sleep(0.05)
        finally:
            self._stop_all()

    def complete(self, steps: Sequence[Step]) -> list[Step]:
        """Returns the steps that are complete."""
        identities = self.identities_of(steps)
        return [step for step in steps if self.is_complete(step, identities[step.name])]

    def is_complete(self, step: Step, identity: str) -> bool:
        """Returns whether a step is complete with this identity, and its result exists."""
        return self._job(step, identity).is_complete(step.proof)

    def log(self, step: Step) -> Path:
        """Returns the path of a step's log."""
        return self.folder / "logs" / f"{step.name}.log"

    def _job(self, step: Step, identity: str) -> Job:
        """Returns the job of a step. Its only unit is saved at the start, so it marks a step as interrupted or new."""
        return Job(self.folder / "stamps", f"{step.name}.json", identity)

    @staticmethod
    def identities_of(steps: Iterable[Step]) -> Mapping[str, str]:
        """Returns the identity of each step by name; those that a step needs come before it."""
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
                return  # later steps must wait, or a step with many cores would never get them
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
            # A new session, so that Ctrl-C reaches only this program, which then ends the process groups.
            process = subprocess.Popen(
                [*step.argv, *more],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=env,
                start_new_session=True,
                preexec_fn=follow_parent,  # children also end if this process is killed
            )
            self._running.append(Running(step, process, log, lock))

    def _locked(self, step: Step) -> IO[bytes]:
        """Locks a step, because two programs would remove each other's files."""
        path = self.folder / "stamps" / f"{step.name}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("wb")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise StepError(f"{step.name} is being run by another program; wait for it, or stop it first") from error
        return lock

    def _prepare(self, step: Step, identity: str) -> tuple[str, ...]:
        """Removes the files of a step, or resumes it; returns the arguments for resuming."""
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

    def _fail(self, error: StepError, step: Step, waiting: list[Step]) -> None:
        """Leaves out the steps that need a failed one, or stops all.

        Raises:
            StepError: all are stopped.
        """
        if not self._keep_going:
            raise error
        self.failures.append(error)
        self.console.print(f"[red]✗[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        lost = {step.name}
        for following in list(waiting):  # in an order in which they can run
            if lost.intersection(following.needs):
                lost.add(following.name)
                waiting.remove(following)

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
            self.console.print("killing the remaining steps")
        for running in self._running:
            signal_group(running.process, signal.SIGKILL)  # also ends processes that the child has left
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
    """Runs the steps of a command; a signal that ends it also ends its children.

    Returns:
        Whether all steps are complete; errors have been printed.
    """
    with ends_interrupt():
        try:
            runner.run(steps)
        except StepError as error:
            runner.console.print(f"[red]✗[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
            runner.console.print("Complete steps are kept; run the same command again to resume.")
            return False
    return True
