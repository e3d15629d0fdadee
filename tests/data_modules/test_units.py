"""Training and evaluation straight from files whose boxes stand in a declared unit."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from data_modules import CoTSFTDataModule, EvaluationDataModule, GRPODataModule
from kvg.errors import ConfigError, DataError

BOX = '{"bbox_2d": [10, 10, 60, 60]}'


@pytest.fixture
def files(tmp_path):
    """A ShareGPT file in pixels, and one on the published grid."""
    Image.new("RGB", (120, 90), (9, 90, 120)).save(tmp_path / "a.jpg")

    def write(name, answer):
        turns = [{"role": "user", "content": "<image>Find and give the bounding box of Merlin"}]
        turns.append({"role": "assistant", "content": f"<think>It is {answer}.</think><answer>{answer}</answer>"})
        (tmp_path / name).write_text(json.dumps([{"messages": turns, "images": ["a.jpg"]}] * 4))
        return str(tmp_path / name)

    return write("pixels.json", BOX), write("grid.json", "(500,500),(1000,1000)")


def boxes(loader):
    return {sample.box_px for batch in loader for sample in batch.samples}


@pytest.mark.parametrize("kind", [CoTSFTDataModule, GRPODataModule])
def test_sets_of_two_units_train_and_validate(files, backbone, kind):
    pixels, grid = files
    data = kind(pixels, grid, batch_size=2, box_unit={"train": "pixels"})
    data.connect(backbone)
    data.setup("fit")
    assert boxes(data.train_dataloader()) == {(10, 10, 60, 60)}
    assert boxes(data.val_dataloader()[0]) == {(60, 45, 120, 90)}


def test_without_a_unit_no_sample_is_left(files, backbone):
    data = CoTSFTDataModule(files[0], batch_size=2)
    data.connect(backbone)
    data.setup("fit")
    with pytest.raises(DataError, match=r"none can be read .* state box_unit"):
        next(iter(data.train_dataloader()))


@pytest.mark.parametrize("unit", ["pixels", {"mine": "pixels", "theirs": "relative_1000"}])
def test_evaluation_by_the_names_of_its_sets(files, backbone, unit):
    pixels, grid = files
    test = {"mine": pixels} if isinstance(unit, str) else {"mine": pixels, "theirs": grid}
    data = EvaluationDataModule(test, batch_size=2, box_unit=unit)
    data.connect(backbone)
    data.setup("predict")
    assert [len(one.places) for one in data.batches.sets] == [4] * len(test)
    samples = [sample for _, _, rows in data.batches.read(range(len(data.batches.sizes))) for _, sample in rows]
    expected = [(10, 10, 60, 60), (60, 45, 120, 90)][: len(test)]
    assert {sample.box_px for sample in samples} == set(expected)
    sets = data.batches.settings()["sets"]
    assert sets["mine"][-1] == {"box_unit": "pixels"}  # other answers would be right in another unit
    with pytest.raises(DataError, match="state box_unit"):
        EvaluationDataModule(test, batch_size=2).setup("predict")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"box_unit": "percent"}, "data.box_unit: 'percent' is none of pixels, relative_1000, unit"),
        ({"box_unit": {"train": "percent"}}, "data.box_unit: 'percent' is none of"),
        ({"box_unit": {"trian": "pixels"}}, "data.box_unit: 'trian' is no set; there are train, val"),
        ({"boxes_of": "turned"}, "data.boxes_of: 'turned' is none of upright, raw"),
    ],
)
def test_settings_that_cannot_be(files, settings, message):
    with pytest.raises(ConfigError) as caught:
        CoTSFTDataModule(files[0], **settings)
    assert message in str(caught.value)
