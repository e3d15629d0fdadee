"""A fit that is asked to end saves, says how to go on, and what goes on from there is what would have been."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

# In a file of the user's own beside the config: sends a signal at a moment that the test chooses.
SENDER = """
import os, signal
from lightning.pytorch.callbacks import Callback

class Sender(Callback):
    def __init__(self, name: str, moment: str, step: int, rank: int = -1, times: int = 1) -> None:
        self.number, self.moment, self.step, self.rank, self.times = signal.Signals[name], moment, step, rank, times
        self.sent = False

    def send(self, moment, trainer):
        due = trainer.global_step == self.step and self.rank in (-1, trainer.global_rank)
        if moment == self.moment and due and not self.sent and not os.path.exists("quiet"):
            self.sent = True
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)

    def on_before_backward(self, trainer, module, loss):
        self.send("backward", trainer)

    def on_validation_batch_start(self, trainer, module, batch, batch_idx, dataloader_idx=0):
        if batch_idx == 1:
            self.send("validation", trainer)
"""
DDP = ("-c", "configs/strategy/ddp.yaml", "--trainer.devices=2")
FSDP2 = ("-c", "configs/strategy/fsdp2.yaml", "--trainer.devices=2")
GRPO = ("--model.group_size=2", "--data.mode=direct")
OVERLAP = (*GRPO, "--model.overlap=true")


class Runs:
    """Runs of one stage and strategy in a folder that holds their data and the sender."""

    def __init__(self, folder: Path, stage: str, more: tuple[str, ...]) -> None:
        self.folder = folder
        self.words = ["fit", "-c", f"configs/stage/{stage}.yaml", "-c", "configs/backbone/tiny.yaml", *more]
        self.words += ["--data.train=data", "--data.val=data", "--data.batch_size=2", "--trainer.accelerator=cpu"]
        self.words += ["--trainer.max_epochs=2", "--trainer.log_every_n_steps=1", "--trainer.val_check_interval=2"]
        self.words += ["--model.max_new_tokens=6"]

    def start(self, out: str, *more: str) -> subprocess.Popen[str]:
        return self.run_words([*self.words, f"--trainer.default_root_dir={out}", *more])

    def run_words(self, words: list[str]) -> subprocess.Popen[str]:
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        command = [sys.executable, "-m", "kvg", *words]
        return subprocess.Popen(command, cwd=self.folder, env=env, text=True, start_new_session=True, **streams)

    def interrupted(self, out: str, name: str, moment: str, step: int, **more: int) -> tuple[int, str]:
        """Exit code and output of a run that gets a signal at a moment of its own."""
        rest = "".join(f", {key}: {value}" for key, value in more.items())
        sender = f"[{{class_path: sender.Sender, init_args: {{name: {name}, moment: {moment}, step: {step}{rest}}}}}]"
        process = self.start(out, f"--trainer.callbacks+={sender}")
        said = process.communicate(timeout=240)[0]
        return process.returncode, said

    def go_on(self, said: str) -> str:
        """Runs the command that an interrupted run has printed."""
        program, *words = shlex.split(said.partition("to go on:\n")[2].splitlines()[0])
        assert [program, *words[:3]] == ["python", "-m", "kvg", "fit"]
        (self.folder / "quiet").touch()
        process = self.run_words(words[2:])
        output = process.communicate(timeout=240)[0]
        (self.folder / "quiet").unlink()
        assert process.returncode == 0, output
        return output

    def curves(self, out: str) -> dict[str, list[tuple[int, float]]]:
        """What the runs in a folder have logged, clocks left out."""
        found: dict[str, list[tuple[int, float]]] = {}
        for file in sorted((self.folder / out).rglob("events.out.*"), key=lambda path: path.stat().st_mtime):
            events = EventAccumulator(str(file))
            events.Reload()
            for tag in events.Tags()["scalars"]:
                if not (tag.startswith("time/") or tag.endswith("_s") or tag == "epoch"):
                    found.setdefault(tag, []).extend((event.step, event.value) for event in events.Scalars(tag))
        return found


@pytest.fixture
def runs(tmp_path, lab_shards):
    (tmp_path / "sender.py").write_text(SENDER)
    lab_shards(tmp_path / "data", 8, sizes=[(84, 84)], snap_px=None)

    def make(stage: str, *more: str) -> Runs:
        return Runs(tmp_path, stage, more)

    return make


def check_same(runs: Runs, said: str) -> None:
    """Continues the interrupted run, and compares it with one that nothing has interrupted."""
    runs.go_on(said)
    (runs.folder / "quiet").touch()
    whole = runs.start("whole")
    output = whole.communicate(timeout=240)[0]
    assert whole.returncode == 0, output
    assert runs.curves("run") == runs.curves("whole")
    weights = "export/model.safetensors"
    assert (runs.folder / "run" / weights).read_bytes() == (runs.folder / "whole" / weights).read_bytes()
    assert not list((runs.folder / "run").glob("*.ckpt")), "what was only left to go on from goes at the end"


@pytest.mark.parametrize(
    ("stage", "more", "name", "moment", "step"),
    [
        ("cot_sft", (), "SIGINT", "backward", 2),  # the epoch's third step
        pytest.param("cot_sft", (), "SIGTERM", "backward", 3, marks=pytest.mark.slow),  # its last, with a validation
        pytest.param("cot_sft", (), "SIGHUP", "validation", 2, marks=pytest.mark.slow),
        pytest.param("cot_sft", (), "SIGINT", "validation", 4, marks=pytest.mark.slow),  # between two epochs
        pytest.param("grpo", GRPO, "SIGTERM", "validation", 2, marks=pytest.mark.slow),
        pytest.param("grpo", OVERLAP, "SIGTERM", "backward", 2, marks=pytest.mark.slow),
        pytest.param("grpo", OVERLAP, "SIGTERM", "validation", 2, marks=pytest.mark.slow),
    ],
)
def test_what_goes_on_is_what_would_have_been(runs, stage, more, name, moment, step):
    own = runs(stage, *more)
    code, said = own.interrupted("run", name, moment, step)
    number = signal.Signals[name]
    assert code == (130 if number == signal.SIGINT else -number), said
    assert f"kvg: {name}: the run finishes its step, saves and ends" in said
    assert "Traceback" not in said
    done = step + (moment == "backward")
    assert f"kvg: saved after step {done} in run/interrupted-step{done}.ckpt" in said
    assert not (own.folder / "run/export").exists()
    check_same(own, said)


@pytest.mark.slow  # tests/callbacks/test_requeue.py has two processes that leave together in every run of the tests
@pytest.mark.parametrize(
    ("stage", "more", "name", "rank"),
    [
        ("cot_sft", DDP, "SIGTERM", -1),  # both in mid-backward, where Lightning's own handler hangs
        ("cot_sft", DDP, "SIGINT", 1),  # one only
        ("cot_sft", FSDP2, "SIGINT", -1),
        ("grpo", (*GRPO, *DDP), "SIGINT", 0),
        ("grpo", (*OVERLAP, *DDP), "SIGTERM", 1),
        ("grpo", (*GRPO, *FSDP2), "SIGTERM", 1),
    ],
)
def test_two_processes_leave_together(runs, stage, more, name, rank):
    own = runs(stage, *more)
    code, said = own.interrupted("run", name, "backward", 1, rank=rank)
    number = signal.Signals[name]
    assert code == (130 if number == signal.SIGINT else -number), said
    assert said.count("kvg: saved after step 2 in run/interrupted-step2.ckpt; to go on:") == 1
    assert "Traceback" not in said
    check_same(own, said)


def test_a_second_interrupt_ends_it_at_once(runs):
    own = runs("cot_sft")
    code, said = own.interrupted("run", "SIGINT", "backward", 1, times=2)
    assert code == -signal.SIGINT, said
    assert "Ctrl-C again ends it at once" in said
    assert not list((own.folder / "run").glob("*.ckpt*"))


def test_what_is_ignored_stays_so(runs):
    """As a job in the background of a script, which a Ctrl-C is not meant for."""
    own = runs("cot_sft")
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        code, said = own.interrupted("run", "SIGINT", "backward", 1)
    finally:
        signal.signal(signal.SIGINT, before)
    assert code == 0, said
    assert (own.folder / "run/export/config.json").is_file()


def test_interrupted_while_a_model_is_loaded(runs):
    own = runs("cot_sft")
    (own.folder / "mine.py").write_text(
        "import os, signal\nfrom kvg.backbones.backbone import Backbone\n\n"
        "class Slow(Backbone):\n    def load(self, *args):\n        os.kill(os.getpid(), signal.SIGINT)\n"
    )
    process = own.start("run", "--model.backbone=mine.Slow")
    said = process.communicate(timeout=240)[0]
    assert process.returncode == 130, said
    assert said.splitlines()[-1] == "kvg: interrupted"
    assert not (own.folder / "run").exists()
