"""A SLURM of two nodes on this host: its daemons run in a folder of their own, on loopback, and end with the tests."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel")
NODES = ("n1", "n2")
CONFIG = """
ClusterName=kvg
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={controller}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
SlurmdParameters=config_overrides
JobRequeue=1
ReturnToService=2
KillWait=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={first} CPUs=1 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={second} CPUs=1 State=UNKNOWN
PartitionName=main Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP
"""


def missing_programs() -> list[str]:
    """What has to be installed first; daemons often lie outside a user's path."""
    return [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]


def _path() -> str:
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])


class Cluster:
    """Two nodes with a processor each, from ``with`` to its end.

    Args:
        folder: for configuration, state and logs; its path must be short, as it holds a socket.
        find_port: gives a free port.
    """

    def __init__(self, folder: Path, find_port: Callable[[], int]) -> None:
        self.folder = folder
        self.env = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": _path()}
        self._daemons: list[subprocess.Popen[bytes]] = []
        for name in ("state", *(f"spool-{node}" for node in NODES)):
            (folder / name).mkdir()
        ports = dict(zip(("controller", "first", "second"), (find_port() for _ in range(3)), strict=True))
        text = CONFIG.format(host=socket.gethostname(), user=getpass.getuser(), folder=folder, **ports)
        (folder / "slurm.conf").write_text(text)
        key = folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)

    def __enter__(self) -> Cluster:
        """Starts the daemons and waits until both nodes are idle."""
        files = {name: f"--{name}-file={self.folder}/munge.{name}" for name in ("key", "log", "pid", "seed")}
        try:
            self._start("munged", "--foreground", "--force", f"--socket={self.folder}/munge.socket", *files.values())
            wait_for(lambda: (self.folder / "munge.socket").exists(), 20, "munged opens its socket")
            self._start("slurmctld", "-D")
            for node in NODES:
                self._start("slurmd", "-D", "-N", node)
            wait_for(self._is_idle, 60, "both nodes are idle", self.logs)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cancels what is left, and ends the daemons that were started here."""
        self._stop()

    def submit(self, words: Sequence[str], env: Mapping[str, str]) -> str:
        """Submits a job; returns its number."""
        return self.call("sbatch", "--parsable", *words, env=env)

    def state(self, job: str) -> str:
        """What SLURM says of a job: PENDING, RUNNING, COMPLETED, ..."""
        words = dict(pair.partition("=")[::2] for pair in self.call("scontrol", "-o", "show", "job", job).split())
        return words["JobState"]

    def call(self, *command: str, env: Mapping[str, str] | None = None) -> str:
        """Runs one of SLURM's programs; returns what it prints."""
        done = subprocess.run(command, env={**self.env, **(env or {})}, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout.strip()

    def logs(self) -> str:
        """The ends of all logs."""
        return "\n".join(f"--- {path}\n{path.read_text()[-3000:]}" for path in sorted(self.folder.glob("*.log")))

    def _is_idle(self) -> bool:
        done = subprocess.run(["scontrol", "-o", "show", "node"], env=self.env, capture_output=True, text=True)
        return done.stdout.count("State=IDLE ") == len(NODES)

    def _start(self, program: str, *words: str) -> None:
        path = shutil.which(program, path=_path())
        assert path is not None
        with (self.folder / f"{program}-{len(self._daemons)}.log").open("wb") as log:
            self._daemons.append(subprocess.Popen([path, *words], env=self.env, stdout=log, stderr=log))

    def _stop(self) -> None:
        if len(self._daemons) > 1:
            subprocess.run(["scancel", "--user", getpass.getuser()], env=self.env, capture_output=True, timeout=60)
            time.sleep(2)  # a node ends the processes of its jobs
        for daemon in reversed(self._daemons):
            daemon.terminate()
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self._daemons.clear()


def wait_for(is_so: Callable[[], bool], seconds: float, what: str, details: Callable[[], str] = lambda: "") -> None:
    """Waits until something is so, and fails where it is not in time."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, f"after {seconds} s still not: {what}\n{details()}"
        time.sleep(0.3)
