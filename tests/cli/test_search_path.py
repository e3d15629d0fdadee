"""A user's own files in the working folder hide nothing of ours, and their classes are found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(sys.executable).parent
REWARD = "from kvg.rewards.format import FormatReward\n\nclass {name}(FormatReward):\n    pass\n"
LOSS = "from kvg.losses.family import GRPOLoss\n\nclass MyLoss(GRPOLoss):\n    pass\n"
CONFIG = """
trainer:
  callbacks+:
    - class_path: mywatch.Watch
model:
  init_args:
    reward:
      class_path: kvg.rewards.combine.WeightedReward
      init_args:
        parts:
          here: {class_path: myrl.MyReward}
          beside: {class_path: beside.OtherReward}
    loss: {class_path: myrl.MyLoss}
"""
WATCH = """
from pathlib import Path
from lightning.pytorch.callbacks import Callback

class Watch(Callback):
    def on_train_end(self, trainer, module):
        kinds = [type(part).__name__ for part in module.reward.parts.values()] + [type(module.loss).__name__]
        Path(f"watched-{trainer.global_rank}").write_text(" ".join(kinds))
"""
SOURCE = """
from kvg.lab.world import LabSource

class MySource(LabSource):
    pass
"""


@pytest.fixture
def home(tmp_path, lab_shards):
    """A working folder in which everything has an unlucky name."""
    lab_shards(tmp_path / "set", 4, sizes=[(84, 84)], snap_px=None)
    for name in ("callbacks", "data_modules"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("mine = 1\n")
    for name in ("yaml", "torch", "lightning", "rich", "numpy"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name}.py of the user has been imported')\n")
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp/mine.yaml").write_text(CONFIG)
    (tmp_path / "exp/beside.py").write_text(REWARD.format(name="OtherReward"))
    (tmp_path / "myrl.py").write_text(REWARD.format(name="MyReward") + "\n\n" + LOSS)
    (tmp_path / "mywatch.py").write_text(WATCH)
    (tmp_path / "mysource.py").write_text(SOURCE)
    return tmp_path


def run(home: Path, program: str, *args: str, path: str = "") -> subprocess.CompletedProcess[str]:
    """Runs a console script, or a module by ``python -m``."""
    command = [sys.executable, *program.split()] if program.startswith("-m") else [str(SCRIPTS / program)]
    entries = [path, os.environ.get("PYTHONPATH", "")] if path else [os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(entries), "OMP_NUM_THREADS": "1"}
    if not entries[-1]:
        del env["PYTHONPATH"]
    return subprocess.run([*command, *args], cwd=home, env=env, capture_output=True, text=True, timeout=240)


def fit(home: Path, program: str, *more: str, path: str = "") -> subprocess.CompletedProcess[str]:
    args = ["fit", "-c", "configs/stage/grpo.yaml", "-c", "configs/backbone/tiny.yaml", "-c", "exp/mine.yaml"]
    args += ["--data.train=set", "--data.batch_size=2", "--model.group_size=2", "--model.max_new_tokens=4"]
    args += ["--trainer.accelerator=cpu", "--trainer.max_steps=1", "--trainer.default_root_dir=run"]
    return run(home, program, *args, *more, path=path)


@pytest.mark.parametrize(
    ("program", "more", "path"),
    [
        ("kvg", (), ""),
        ("kvg", ("-c", "configs/strategy/ddp.yaml", "--trainer.devices=2"), ""),
        pytest.param("kvg", (), os.curdir, marks=pytest.mark.slow),  # PYTHONPATH=.
        pytest.param("kvg", (), os.pathsep, marks=pytest.mark.slow),  # an empty entry is the working folder
        pytest.param("-m kvg", (), "", marks=pytest.mark.slow),
        pytest.param("-m kvg", ("-c", "configs/strategy/ddp.yaml", "--trainer.devices=2"), "", marks=pytest.mark.slow),
    ],
)
def test_a_fit_with_classes_of_ones_own(home, program, more, path):
    done = fit(home, program, *more, path=path)
    assert done.returncode == 0, done.stdout + done.stderr
    for rank in range(1 + bool(more)):
        assert (home / f"watched-{rank}").read_text() == "MyReward OtherReward MyLoss"


@pytest.mark.parametrize("program", ["kvg-data", "-m kvg.cli.kvg_data"])
def test_a_source_of_ones_own(home, program):
    (home / "exp/compose.yaml").write_text("source: {class_path: mysource.MySource, init_args: {pool: train}}\n")
    done = run(home, program, "compose", "--config", "exp/compose.yaml", "--out", "made", "--num", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (home / "made/manifest.json").is_file()


@pytest.mark.parametrize("name", ["callbacks.Mine", "callbacks.mine.Mine"])
def test_what_ours_hides_is_named(home, name):
    done = fit(home, "kvg", f"--trainer.callbacks+={name}")
    assert done.returncode == 2
    said = done.stderr.strip().splitlines()[-1]
    assert f"'callbacks' is a package of this project and hides {home.resolve()}/callbacks: rename that" in said


def test_what_is_nowhere_is_named(home):
    done = fit(home, "kvg", "--model.loss=nowhere.Loss")
    assert (done.returncode, "No module named 'nowhere'" in done.stderr) == (2, True)
    (home / "exp/compose.yaml").write_text("source: {class_path: callbacks.MySource}\n")
    done = run(home, "kvg-data", "compose", "--config", "exp/compose.yaml", "--out", "made", "--num", "2")
    assert done.returncode == 2
    assert "'callbacks.MySource' cannot be imported" in done.stderr
    assert f"hides {home.resolve()}/callbacks: rename that" in done.stderr
