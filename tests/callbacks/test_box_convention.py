"""The look at the first answers, in a real Trainer with a module whose answers are written here."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import lightning as L
import pytest
import torch

from callbacks import BoxConvention
from kvg.errors import ConfigError
from kvg.text.box_codec import AbsoluteCodec, ImageSize, RelativeCodec
from kvg.types import Completion, Sample, SceneObject

SIDES = [(640, 480), (500, 375), (300, 400)]


def sample(number):
    width, height = SIDES[number % 3]
    x, y = 40.0 * (number % 5), 30.0 * (number % 4)
    boxes = [(x, y, x + 90 + 7 * number, y + 80), (x + 20, y + 90, x + 60, y + 200)]
    objects = tuple(SceneObject(name, box) for name, box in zip(("Merlin", "Hobby"), boxes, strict=True))
    return Sample(f"k{number}", b"%d" % number, width, height, "bird", "seen", objects, 0)


def image_size(width, height):
    return ImageSize(width, height, width // 28 * 28, height // 28 * 28)


class Answering(L.LightningModule):
    """Answers in the units of one codec, and declares another: rollouts in training, lines in validation."""

    def __init__(self, writes, declares, stage_2):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.writes, self.stage_2, self.scored = writes, stage_2, None
        self.backbone = SimpleNamespace(codec=declares, processor=SimpleNamespace(image_size=image_size))

    def texts(self, samples):
        return [self.writes.encode(one.box_px, image_size(one.width, one.height)) for one in samples]

    def training_step(self, batch, batch_idx):
        if self.stage_2:
            samples = [sample(8 * batch_idx + n) for n in range(8)]
            twice = [text for text in self.texts(samples) for _ in range(2)]
            answers = [SimpleNamespace(completion=Completion(text, 9, "stop")) for text in twice]
            self.scored = SimpleNamespace(samples=samples, answers=answers, group_size=2)
        return self.layer(batch.rows).sum()

    def validation_step(self, batch, batch_idx):
        return [{"answer": text} for text in self.texts(batch.samples)]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def batches(num):
    rows = torch.zeros(1, 1)
    made = [SimpleNamespace(rows=rows, samples=[sample(8 * at + n) for n in range(8)]) for at in range(num)]
    return torch.utils.data.DataLoader(made, batch_size=None)


def warned(module, tmp_path, **settings):
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=1, callbacks=[BoxConvention(16)], default_root_dir=tmp_path,
        enable_model_summary=False, **{**options, **settings},
    )  # fmt: skip
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(module, batches(4), batches(2))
    return [str(w.message) for w in caught if "kvg doctor" in str(w.message)]


@pytest.mark.parametrize("stage_2", [True, False])
def test_another_convention_is_warned_of_once(stage_2, tmp_path):
    settings = {"num_sanity_val_steps": 0 if stage_2 else 2}
    (message,) = warned(Answering(AbsoluteCodec(), RelativeCodec(), stage_2), tmp_path, **settings)
    assert message.startswith("the answers are boxes in pixels of the resized picture, as in this run (x1, y1, x2, y2)")
    assert "as declared, 0-1000 of width and height" in message


@pytest.mark.parametrize("codec", [AbsoluteCodec(), RelativeCodec()])
def test_the_declared_convention_is_left_alone(codec, tmp_path):
    assert warned(Answering(codec, codec, True), tmp_path) == []


def test_fewer_answers_than_wanted_are_not_looked_at(tmp_path):
    module = Answering(AbsoluteCodec(), RelativeCodec(), True)
    assert warned(module, tmp_path, limit_train_batches=1, limit_val_batches=0) == []


def test_too_few_answers_cannot_be_wanted():
    with pytest.raises(ConfigError, match=r"callbacks\.BoxConvention\.num"):
        BoxConvention(2)
