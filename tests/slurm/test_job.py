"""A real job on two nodes, which is told to stop, goes back into the queue and ends as if nothing had happened."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.slurm.cluster import Cluster, wait_for

pytestmark = pytest.mark.slurm
ROOT = Path(__file__).parents[2]
STEPS = 150
OVERLAY = f"""
trainer:
  accelerator: cpu
  max_epochs: -1
  max_steps: {STEPS}
  log_every_n_steps: 1
  callbacks:
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {{every_n_train_steps: 5, save_top_k: -1, filename: "{{step}}"}}
data:
  init_args: {{batch_size: 1}}
"""


@pytest.fixture
def submit(cluster: Cluster, tmp_path: Path, lab_shards: Callable[..., str], find_port: Callable[[], int]):
    """Submits ``configs/slurm/fit.sbatch`` for a run of this name on both nodes; returns the job's number."""
    data = lab_shards(tmp_path / "data", 8, sizes=[(84, 84)], snap_px=None)
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(OVERLAY)

    def begin(name: str) -> str:
        options = ["--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=1", "--gpus-per-node=0", "--time=60"]
        options.append(f"--output={tmp_path / name}.out")
        overlays = ["stage/cot_sft", "backbone/tiny", "strategy/ddp"]
        configs = [word for one in overlays for word in ("-c", f"configs/{one}.yaml")]
        env = {
            "KVG_HOME": str(ROOT),
            "KVG_PYTHON": sys.executable,
            "KVG_RUN": str(tmp_path / name),
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "MASTER_ADDR": "127.0.0.1",  # the nodes' names stand for this host in SLURM alone
            "MASTER_PORT": str(find_port()),
            "OMP_NUM_THREADS": "1",
        }
        script = str(ROOT / "configs/slurm/fit.sbatch")
        return cluster.submit([*options, script, *configs, "-c", str(overlay), "--data.train", data], env)

    return begin


def losses(run: Path) -> dict[int, float]:
    """The training's losses by step."""
    found: dict[int, float] = {}
    for folder in sorted((run / "lightning_logs").iterdir()):
        events = EventAccumulator(str(folder))
        events.Reload()
        found |= {event.step: event.value for event in events.Scalars("train/loss")}
    return found


@pytest.mark.timeout(900)
def test_a_job_that_is_told_to_stop_ends_as_one_that_is_left_alone(
    cluster: Cluster, submit: Callable[[str], str], tmp_path: Path
) -> None:
    def output(name: str) -> str:
        path = tmp_path / f"{name}.out"
        return f"{path.read_text() if path.exists() else ''}\n{cluster.logs()}"

    def is_in(job: str, state: str) -> Callable[[], bool]:
        def check() -> bool:
            now = cluster.state(job)
            assert now in (state, "PENDING", "RUNNING", "COMPLETING"), f"{now}\n{output('stopped')}"
            return now == state

        return check

    stopped = submit("stopped")
    saved = tmp_path / f"stopped/lightning_logs/version_{stopped}/checkpoints/step=5.ckpt"
    wait_for(saved.exists, 240, "the fifth step is saved", lambda: output("stopped"))
    cluster.call("scancel", "--signal=USR1", stopped)
    wait_for(is_in(stopped, "PENDING"), 120, "the job is back in the queue", lambda: output("stopped"))
    (checkpoint,) = (tmp_path / "stopped").glob("requeue-step*.ckpt")
    step = int(checkpoint.stem.removeprefix("requeue-step"))
    assert 5 <= step < STEPS
    # SLURM makes it wait for two minutes; a node refuses a job that comes back before it has let go of it.
    cluster.call("scontrol", "update", f"JobId={stopped}", "StartTime=now+10")
    wait_for(is_in(stopped, "COMPLETED"), 300, "the job has gone on to its end", lambda: output("stopped"))
    text = (tmp_path / "stopped.out").read_text()
    assert f"job {stopped} on n[1-2], start number 1, in {tmp_path / 'stopped'}" in text
    assert f"Saved step {step} in {checkpoint}; job {stopped} is back in the queue." in text
    assert f"job {stopped} on n[1-2], start number 2, in {tmp_path / 'stopped'}" in text
    assert f"continuing from {checkpoint}" in text
    assert f"Continuing after step {step}." in text
    assert text.count("GLOBAL_RANK: 1, MEMBER: 2/2") == 2  # both times on two nodes
    assert not checkpoint.exists()  # cleared away by the run that came to its end

    whole = submit("whole")
    wait_for(is_in(whole, "COMPLETED"), 300, "the job has come to its end", lambda: output("whole"))
    assert "Continuing after step" not in (tmp_path / "whole.out").read_text()
    left_alone, interrupted = losses(tmp_path / "whole"), losses(tmp_path / "stopped")
    assert len(left_alone) == STEPS
    assert interrupted == left_alone
    expected, weights = (load_file(tmp_path / name / "export/model.safetensors") for name in ("whole", "stopped"))
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
