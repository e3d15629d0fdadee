"""The runner of dependent commands, with real processes."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time

import pytest
from rich.console import Console

from kvg.workflow.dag import Step, StepError, StepRunner
from kvg.workflow.step_logs import clock, last_lines
from tests.work.killing import lives


@pytest.fixture
def make(tmp_path):
    """A step that runs a line of shell, notes when it began and ended, and leaves a file."""

    def step(name: str, script: str = "", needs=(), **more) -> Step:
        out = tmp_path / f"{name}.txt"
        diary = tmp_path / "diary"
        line = f"echo begin {name} >> {diary}; {script or 'true'} && echo made > {out} && echo end {name} >> {diary}"
        return Step(name, "a test", ("sh", "-c", line), out, out, tuple(needs), **more)

    return step


@pytest.fixture
def run(tmp_path):
    def run_all(*steps: Step, cores: int = 2) -> str:
        said = io.StringIO()
        StepRunner(tmp_path, cores, Console(file=said, width=200)).run(steps)
        return said.getvalue()

    return run_all


@pytest.fixture
def diary(tmp_path):
    def read() -> list[str]:
        path = tmp_path / "diary"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines

    return read


def test_what_is_needed_comes_first(make, run, diary):
    said = run(make("a"), make("b", needs=["a"]), make("c", needs=["a", "b"]), cores=4)
    assert diary() == [f"{word} {name}" for name in "abc" for word in ("begin", "end")]
    assert "$ sh -c" in said
    assert "✓ c" in said


def test_as_many_at_once_as_there_are_cores(make, run, diary):
    run(make("a", "sleep 0.4"), make("b", "sleep 0.4"), make("c"), cores=2)
    lines = diary()
    assert set(lines[:2]) == {"begin a", "begin b"}
    assert lines.index("begin c") > min(lines.index("end a"), lines.index("end b"))


def test_a_step_of_many_cores_is_not_overtaken(make, run, diary):
    run(make("a", "sleep 0.4"), make("wide", "sleep 0.1", cores=2), make("c"), cores=2)
    assert diary() == ["begin a", "end a", "begin wide", "end wide", "begin c", "end c"]
    run(make("wider", cores=9), cores=2)  # more than there are: alone, but run
    assert diary() == ["begin wider", "end wider"]


def test_only_what_is_missing_or_has_changed_runs_again(make, run, diary, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("lr: 1")

    def plan(script="true"):
        return make("a", script), make("b", needs=["a"]), make("c", reads=(config,)), make("d", needs=["c"])

    run(*plan())
    assert len(diary()) == 8
    assert "complete: a, b, c, d" in run(*plan())
    assert diary() == []
    config.write_text("lr: 2")
    run(*plan())
    assert diary() == ["begin c", "end c", "begin d", "end d"]
    run(*plan("echo other"))
    assert diary() == ["begin a", "end a", "begin b", "end b"]
    (tmp_path / "b.txt").unlink()
    run(*plan("echo other"))
    assert diary() == ["begin b", "end b"]


def test_leftovers_are_removed_before_a_step_runs_again(run, tmp_path):
    out = tmp_path / "model"
    (out / "old").mkdir(parents=True)
    script = f"test ! -e {out} && mkdir {out} && touch {out}/proof"
    run(Step("fit", "a test", ("sh", "-c", script), out, out / "proof"))
    assert [path.name for path in out.iterdir()] == ["proof"]


def test_a_failure_shows_the_log_and_ends_the_others(make, run, diary, tmp_path):
    child = tmp_path / "child"
    endless = f"sh -c 'echo $$ > {child}; sleep 600'"
    fails = f"while [ ! -s {child} ]; do sleep 0.05; done; for i in $(seq 50); do echo line $i; done; exit 3"
    start = time.monotonic()
    with pytest.raises(StepError) as caught:
        run(make("long", endless), make("bad", fails), make("never", needs=["bad"]))
    assert time.monotonic() - start < 20
    message = str(caught.value)
    assert message.startswith(f"bad ended with exit code 3. The end of {tmp_path / 'logs/bad.log'}:")
    assert "line 31\n" in message
    assert "line 30\n" not in message
    assert message.endswith("line 50")
    wait_until_gone(int(child.read_text()))  # a child's child
    assert "begin never" not in diary()
    assert not (tmp_path / "stamps/bad.json").exists()


def wait_until_gone(pid: int) -> None:
    """A signal has been sent by now; on a busy machine the process may still be dying of it."""
    deadline = time.monotonic() + 20
    while lives(pid):
        assert time.monotonic() < deadline, f"process {pid} was left behind"
        time.sleep(0.02)


def test_success_without_a_result_is_a_failure(run, tmp_path):
    with pytest.raises(StepError, match=r"ended without .*nothing\.txt"):
        run(Step("lazy", "a test", ("true",), tmp_path / "nothing.txt", tmp_path / "nothing.txt"))


def test_one_thread_a_command(make, run, tmp_path):
    run(make("a", "echo $OMP_NUM_THREADS"))
    assert (tmp_path / "logs/a.log").read_text() == "1\n"


def test_last_lines(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(b"first\n\n\x1b[32mgreen\x1b[0m\nstep 1\rstep 2\rstep 3\n   \n\xff\n")
    assert last_lines(log, 3) == ["green", "step 3", "�"]
    assert last_lines(tmp_path / "missing", 3) == []


def test_clock():
    assert [clock(s) for s in (0.4, 59.6, 3600)] == ["0:00", "1:00", "60:00"]


def test_interrupted_while_a_child_starts(make, run, tmp_path):
    """The child itself sends the interrupt, as early as can be; it must not be left behind."""
    for _ in range(5):
        with pytest.raises(KeyboardInterrupt):
            run(make("a", f"echo $$ > {tmp_path}/pid; kill -INT $PPID; sleep 60"))
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_step_that_can_go_on_keeps_what_it_has_left(run, tmp_path):
    """It fails until it finds what it made the time before; the words that have it go on come last."""
    out, words = tmp_path / "model", tmp_path / "words"
    script = (
        f"echo $0 > {words}; test -e {out}/part && touch {out}/proof || {{ mkdir -p {out}; touch {out}/part; false; }}"
    )

    def fit(inputs: str = "", script: str = script) -> Step:
        def resume() -> tuple[str, ...] | None:
            return ("from-part",) if (out / "part").exists() else None

        return Step("fit", "a test", ("sh", "-c", script), out, out / "proof", extra_identity=inputs, resume=resume)

    with pytest.raises(StepError, match="fit ended with exit code 1"):
        run(fit())
    assert words.read_text() != "from-part\n"
    with pytest.raises(StepError):
        run(fit("other data"))  # another step: from the beginning
    assert words.read_text() != "from-part\n"
    run(fit("other data"))
    assert words.read_text() == "from-part\n"
    assert (out / "proof").exists()
    assert "complete: fit" in run(fit("other data"))
    with pytest.raises(StepError):
        run(fit())  # complete is not interrupted, and it is another step
    assert not (out / "proof").exists()


def test_two_programs_do_not_run_the_same_step(run, tmp_path):
    """The second one would clear away what the first is making."""
    out, begun = tmp_path / "made", tmp_path / "begun"
    step = Step("slow", "a test", ("sh", "-c", f"touch {begun}; sleep 2; touch {out}"), out, out)
    script = (
        "import sys; from pathlib import Path; from rich.console import Console\n"
        "from kvg.workflow.dag import Step, StepRunner\n"
        f"step = Step('slow', 'a test', {step.command!r}, Path({str(out)!r}), Path({str(out)!r}))\n"
        f"StepRunner(Path({str(tmp_path)!r}), 1, Console(file=sys.stderr)).run([step])\n"
    )
    first = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 20
    while not begun.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with pytest.raises(StepError, match="slow is being run by another program"):
        run(step)
    _, said = first.communicate(timeout=30)
    assert first.returncode == 0, said
    assert out.exists()


def test_a_killed_runner_leaves_no_child(tmp_path):
    """A kill cannot be caught; what has been started ends with the program all the same."""
    pid = tmp_path / "pid"
    script = (
        "import sys; from pathlib import Path; from rich.console import Console\n"
        "from kvg.workflow.dag import Step, StepRunner\n"
        f"step = Step('long', 'a test', ('sh', '-c', 'echo $$ > {pid}; exec sleep 600'), Path('x'), Path('x'))\n"
        f"StepRunner(Path({str(tmp_path)!r}), 1, Console(file=sys.stderr)).run([step])\n"
    )
    runner = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while not (pid.exists() and pid.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    runner.kill()
    runner.wait()
    wait_until_gone(int(pid.read_text()))
