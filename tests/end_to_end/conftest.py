from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kvg.cli.kvg import main
from tests.end_to_end.short_fits import LOUD, SAVED, SAVING, fit

BACKBONE = "model.init_args.backbone.init_args"


@pytest.fixture(scope="session")
def kvg() -> Callable[..., None]:
    """Runs ``kvg COMMAND -c STAGE -c configs/backbone/tiny.yaml --KEY VALUE ...`` in this process."""

    def run(command: str, stage: str, folder: Path, *configs: str, **settings: object) -> None:
        args = [command, "-c", f"configs/stage/{stage}.yaml", "-c", "configs/backbone/tiny.yaml"]
        for config in configs:
            args += ["-c", config]
        short = {
            "trainer.default_root_dir": folder,
            "trainer.accelerator": "cpu",
            "trainer.max_epochs": -1,
            "trainer.log_every_n_steps": 1,
            "data.init_args.num_workers": 0,
            **{key.replace("__", "."): value for key, value in settings.items()},
        }
        args += [f"--{key}={value}" for key, value in short.items()]
        assert main(args) == 0

    return run


@pytest.fixture(scope="session")
def curves() -> Callable[[Path], dict[str, list[float]]]:
    """What a run logged to TensorBoard: values by key, all of them finite."""

    def read(folder: Path) -> dict[str, list[float]]:
        (version,) = (folder / "lightning_logs").iterdir()
        events = EventAccumulator(str(version))
        events.Reload()
        found = {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
        assert found
        assert all(math.isfinite(value) for values in found.values() for value in values)
        return found

    return read


@pytest.fixture(scope="session")
def finished_runs(tmp_path_factory, lab_shards):
    """A working folder with data and a finished run of each stage."""
    folder = tmp_path_factory.mktemp("home")
    lab_shards(folder / "data", 8, sizes=[(84, 84)], snap_px=None)
    (folder / "mine.py").write_text(LOUD)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for stage in ("cot_sft", "direct_sft", "grpo"):
            assert fit(stage, f"--trainer.callbacks={SAVING}", out=stage) == 0
            assert Path(stage, SAVED).is_file()
    return folder


@pytest.fixture
def here(finished_runs, tmp_path, monkeypatch):
    """A copy of that folder to work in."""
    shutil.copytree(finished_runs, tmp_path / "home", symlinks=True)
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "home"
