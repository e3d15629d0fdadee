"""An experiment of two axes, on whose file the tests of sweeps work."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

EXPERIMENT = """
out: OUT
seeds: [0, 1]
prepare:
  test: {run: "kvg-data compose --config configs/lab/test.yaml --out {out}/test --num 4", makes: "{out}/test"}
fit:
  configs: [configs/stage/cot_sft.yaml, configs/backbone/tiny.yaml]
  settings: {data.train: TRAIN, trainer.max_steps: 3, model.warmup: 0.5}
axes:
  size:
    small: {}
    large: {fit: {settings: {data.batch_size: 2}}}
  stage:
    sft: {}
    grpo:
      fit: {configs: [configs/stage/grpo.yaml], settings: {model.warmup: null, trainer.max_steps: 4}}
      predict: {settings: {data.mode: direct}}
predict:
  configs: [configs/stage/cot_sft.yaml, configs/backbone/tiny.yaml, configs/data/lab_test.yaml]
  settings: {data.test: "{out}/test", data.mode: think}
compare: {baseline: large+grpo, by: [split], curves: [val/iou_acc]}
"""


@pytest.fixture
def write_experiment(tmp_path):
    """Writes the file of the experiment, with sections replaced or, by None, left out."""

    def write_file(**changes: object) -> Path:
        text = EXPERIMENT.replace("OUT", str(tmp_path / "sweep")).replace("TRAIN", str(tmp_path / "train"))
        content = {**yaml.safe_load(text), **changes}
        path = tmp_path / "trial.yaml"
        kept = {name: value for name, value in content.items() if value is not None}
        path.write_text(yaml.safe_dump(kept, sort_keys=False))
        return path

    return write_file


@pytest.fixture(scope="session")
def experiment_text() -> str:
    """The file, in which OUT and TRAIN stand for folders."""
    return EXPERIMENT
