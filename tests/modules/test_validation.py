"""Validation in the midst of training: figures by the categories that the samples have."""

from __future__ import annotations

from dataclasses import replace

import lightning as L
import pytest

from data_modules import EvaluationDataModule
from kvg.modules.cot_sft import CoTSFTModule
from kvg.shards.writer import ShardWriter

OWN = ("tram", "tea cup", "bird")


@pytest.fixture
def own_categories(tmp_path, scenes):
    with ShardWriter(tmp_path / "set", 3) as writer:
        for number, sample in enumerate(scenes(5, sizes=[(84, 84)], snap_px=None)):
            writer.write(replace(sample, category=OWN[number % 3]))
    return str(tmp_path / "set")


def validated(backbone, data, tmp_path, **settings):
    module, data = CoTSFTModule(backbone, max_new_tokens=4), EvaluationDataModule(data, batch_size=2)
    data.connect(backbone)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(accelerator="cpu", default_root_dir=tmp_path, **quiet, **settings)
    (logged,) = trainer.validate(module, data, verbose=False)
    return {name: value for name, value in logged.items() if name.startswith("val/n")}


@pytest.mark.parametrize("settings", [{"devices": 1}, {"devices": 2, "strategy": "ddp_fork"}], ids=["one", "two"])
def test_every_category_of_the_samples_has_its_curve(tiny, own_categories, tmp_path, settings):
    """Each of two processes has three samples or two, and not all categories."""
    counts = validated(tiny(), own_categories, tmp_path, **settings, use_distributed_sampler=False)
    unseen = {name: value for name, value in counts.items() if name in ("val/n/seen", "val/n/unseen")}
    assert sum(unseen.values()) == 5
    by_category = {"val/n/tram": 2, "val/n/tea cup": 2, "val/n/bird": 1}
    assert {**counts, **by_category} == counts
    assert counts["val/n"] == 5
