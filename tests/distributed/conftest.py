from __future__ import annotations

import multiprocessing
import os
import sys
import traceback
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import kvg.training.lightning_cli  # noqa: F401  (the forked processes need not import it again)
from kvg.cli.kvg import main

DEADLINE_S = 240


def _process(rank: int, port: int, args: list[str], log: str) -> None:
    os.environ.update(
        LOCAL_RANK=str(rank), NODE_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), OMP_NUM_THREADS="1"
    )
    with open(log, "w") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
        sys.stdout = sys.stderr = stream  # in the place of what pytest has put there
        try:
            code = main(args)
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


@pytest.fixture(scope="session")
def two_processes(find_port):
    """Runs ``kvg COMMAND ...`` in two processes, as Lightning or SLURM would start them; says what failed.

    Returns what each of them printed. Both have to end with ``exit_code``.
    """

    def run(
        command: str, stage: str, strategy: str, folder: Path, *, exit_code: int = 0, **settings: object
    ) -> list[str]:
        port = find_port()
        args = [command, "-c", f"configs/stage/{stage}.yaml", "-c", "configs/backbone/tiny.yaml"]
        args += ["-c", f"configs/strategy/{strategy}.yaml"]
        given = {
            "trainer.default_root_dir": folder,
            "trainer.accelerator": "cpu",
            "trainer.devices": 2,
            "trainer.max_epochs": -1,
            "trainer.log_every_n_steps": 1,
            **{key.replace("__", "."): value for key, value in settings.items()},
        }
        args += [f"--{key}={value}" for key, value in given.items()]
        folder.mkdir(parents=True, exist_ok=True)
        context = multiprocessing.get_context("fork")
        logs = [str(folder / f"log-{rank}.txt") for rank in range(2)]
        processes = [context.Process(target=_process, args=(rank, port, args, logs[rank])) for rank in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(DEADLINE_S)
        stuck = [process for process in processes if process.is_alive()]
        for process in stuck:
            process.kill()
            process.join()
        said = "\n".join(f"--- {log}\n{Path(log).read_text()[-6000:]}" for log in logs)
        assert not stuck, f"still running after {DEADLINE_S} s\n{said}"
        assert [process.exitcode for process in processes] == [exit_code] * 2, said
        return [Path(log).read_text() for log in logs]

    return run


@pytest.fixture(scope="session")
def curves():
    """What the first process logged to TensorBoard: values by key."""

    def read(folder: Path) -> dict[str, list[float]]:
        (version,) = (folder / "lightning_logs").iterdir()
        events = EventAccumulator(str(version))
        events.Reload()
        return {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}

    return read
