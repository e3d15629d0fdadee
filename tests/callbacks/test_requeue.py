"""A signal to one of two processes ends both after the same step, with a checkpoint and the job back in the queue."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

RUN = """
import os, signal, sys
import lightning as L, torch
from torch.utils.data import DataLoader
from callbacks import Requeue

class OneWeight(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch, batch_idx):
        if batch_idx == 5 and self.global_rank == 1 and "quiet" not in sys.argv:
            os.kill(os.getpid(), signal.SIGUSR1)  # in mid-batch, and while gradients are being accumulated
        return self.weight * batch.mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

torch.set_num_threads(1)
trainer = L.Trainer(
    accelerator="cpu", strategy="ddp", num_nodes=2, devices=1, max_epochs=1, accumulate_grad_batches=3, logger=False,
    default_root_dir=sys.argv[1], callbacks=[Requeue()], enable_progress_bar=False, enable_checkpointing=False,
)
trainer.fit(OneWeight(), DataLoader(torch.ones(48, 1), batch_size=2))
"""


def start(folder: Path, port: int, *args: str) -> list[subprocess.CompletedProcess[str]]:
    """Runs two processes as SLURM's srun would, with a scontrol that notes what it is asked."""
    tools = folder / "bin"
    tools.mkdir(parents=True, exist_ok=True)
    (tools / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {folder}/asked\n')
    (tools / "scontrol").chmod(0o755)
    processes = []
    for rank in ("0", "1"):
        job = {"JOB_ID": "4711", "JOB_NAME": "fit", "NTASKS": "2", "NTASKS_PER_NODE": "1", "NNODES": "2"}
        job |= {"PROCID": rank, "NODEID": rank, "LOCALID": "0"}
        env = {**os.environ, **{f"SLURM_{key}": value for key, value in job.items()}, "OMP_NUM_THREADS": "1"}
        env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "PATH": f"{tools}:{os.environ['PATH']}"}
        command = [sys.executable, "-c", RUN, str(folder / "run"), *args]
        processes.append(subprocess.Popen(command, env=env, text=True, stderr=subprocess.PIPE))
    ended = [(process, process.communicate(timeout=240)[1]) for process in processes]
    return [subprocess.CompletedProcess("fit", process.returncode, stderr=stderr) for process, stderr in ended]


def test_both_processes_leave_after_the_step_in_which_one_was_told(
    tmp_path: Path, find_port: Callable[[], int]
) -> None:
    ended = start(tmp_path, find_port())
    assert [process.returncode for process in ended] == [0, 0], ended
    # Batches 3-5 make the second step; the signal came in the last of them.
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["requeue-step2.ckpt"]
    assert (tmp_path / "asked").read_text() == "requeue 4711\n"


def test_a_finished_run_leaves_nothing_to_continue_from(tmp_path: Path, find_port: Callable[[], int]) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/requeue-step2.ckpt").touch()
    assert [process.returncode for process in start(tmp_path, find_port(), "quiet")] == [0, 0]
    assert list((tmp_path / "run").iterdir()) == []
    assert not (tmp_path / "asked").exists()
