"""Trainings of two steps in the working folder, with a backbone that tells when it is loaded where it must not be."""

from __future__ import annotations

from pathlib import Path

from kvg.cli.kvg import main

# A backbone of the user's own in the working folder, which tells when it is loaded where it must not be.
LOUD = """
from pathlib import Path
from kvg.backbones.backbone import Backbone

class Loud(Backbone):
    def load(self, *args):
        if Path("forbidden").exists():
            Path("loaded").touch()
            raise RuntimeError("the weights have been asked for")
        return super().load(*args)
"""
SAVING = (
    "[{class_path: lightning.pytorch.callbacks.ModelCheckpoint, "
    "init_args: {every_n_train_steps: 1, save_top_k: -1, save_last: link, filename: 'step{step}', "
    "auto_insert_metric_name: false}}]"
)
SAVED = "lightning_logs/version_0/checkpoints/step1.ckpt"
LAST = "lightning_logs/version_0/checkpoints/step2.ckpt"


def fit(stage: str, *more: str, out: str, backbone: str = "mine.Loud") -> int:
    args = ["fit", "-c", f"configs/stage/{stage}.yaml", "-c", "configs/backbone/tiny.yaml"]
    args += [f"--model.backbone={backbone}", "--trainer.log_every_n_steps=1"]
    args += ["--data.train=data", "--data.batch_size=2", "--model.max_new_tokens=4", "--trainer.accelerator=cpu"]
    args += [f"--trainer.default_root_dir={out}", "--trainer.max_steps=2", "--trainer.max_epochs=-1"]
    args += ["--model.group_size=2"] if stage == "grpo" else []
    return main([*args, *more])


def files() -> dict[Path, int]:
    paths = (path for path in Path().rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path: path.stat().st_mtime_ns for path in paths}


def refused(capsys, stage: str, *more: str, out: str = "new", backbone: str = "mine.Loud") -> str:
    """The one line that a fit ends with; its backbone would tell if it were loaded."""
    Path("forbidden").touch()
    before = files()
    capsys.readouterr()
    assert fit(stage, *more, out=out, backbone=backbone) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("kvg: ")]
    assert len(lines) == 1
    assert files() == before, "something was loaded or written"
    Path("forbidden").unlink()
    return lines[0]
