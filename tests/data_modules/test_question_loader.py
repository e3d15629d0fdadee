"""Questions on their way to a model: the same batches for any number of processes and workers."""

from __future__ import annotations

import pytest
import torch

from data_modules import EvaluationDataModule
from data_modules.question_loader import PreparedQuestions, question_loader
from kvg.errors import ConfigError, DataError
from kvg.evaluation.records.question_sets import check_set, question_batches
from kvg.shards.writer import ShardWriter
from kvg.work.batch_files import share_of
from tests.data_modules.conftest import LetterProcessor, build

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create .* worker processes")  # on a single core


@pytest.fixture
def batches(write_set):
    sets = [check_set(name, write_set(num, name=name)) for name, num in (("a", 7), ("b", 2))]
    return question_batches(sets, 2)  # of 2, 2, 2, 1 and 2 questions


@pytest.fixture
def load(batches, backbone):
    def made(share, num_workers=0, mode="direct", skip_bad=False, of=None):
        prepared = PreparedQuestions(of or batches, backbone.processor, mode, share, skip_bad)
        loader = question_loader(prepared, num_workers)
        found = list(loader)
        assert len(loader) == len(found)
        return found

    return made


def seen(found):
    return [(b["number"], b["due"], [f"{q.set_name}/{q.sample.key}" for q in b["questions"]]) for b in found]


ALL = [
    (0, True, ["a/k0000", "a/k0001"]),
    (1, True, ["a/k0002", "a/k0003"]),
    (2, True, ["a/k0004", "a/k0005"]),
    (3, True, ["a/k0006"]),
    (4, True, ["b/k0000", "b/k0001"]),
]


@pytest.mark.parametrize("num_workers", [0, 1, 3, 9])
def test_each_question_comes_once_and_in_order(load, num_workers):
    assert seen(load(share_of(range(5), 0, 1), num_workers)) == ALL


@pytest.mark.parametrize("num_workers", [0, 2])
def test_processes_take_turns_with_what_is_left_and_stay_in_step(load, num_workers):
    first, second = (load(share_of([0, 2, 4], rank, 2), num_workers) for rank in range(2))
    assert seen(first) == [ALL[0], ALL[4]]
    assert seen(second) == [ALL[2], (2, False, ALL[2][2])]
    whole = load(share_of(range(5), 0, 1))
    for mine, theirs in ((first[1], whole[4]), (second[0], whole[2])):
        assert torch.equal(mine["inputs"].input_ids, theirs["inputs"].input_ids)  # padded alike


@pytest.mark.parametrize("num_workers", [0, 2])
def test_where_nothing_is_left_there_is_one_batch_without_questions(load, num_workers):
    assert load([], num_workers) == [{"number": None}]


def test_what_is_asked(load):
    (plain,) = load([(3, True)])
    text = "".join(map(chr, plain["inputs"].input_ids[0].tolist()))
    assert text == "Find and give the bounding box of <|object_ref_start|>Merlin<|object_ref_end|>"
    assert (plain["describes"], plain["examples"], plain["mode"]) == (False, [], "direct")
    (first,) = load([(3, True)], mode="describe")
    assert "".join(map(chr, first["inputs"].input_ids[0].tolist())).startswith(
        "Which object in this image is Merlin? Give"
    )
    assert first["describes"]
    assert len(first["examples"]) == 1


class Refusing(LetterProcessor):
    def encode_turns(self, sample, turns):
        if sample.key in ("k0001", "k0002", "k0003"):
            raise DataError(sample.key, "image", "it does not decode")
        return super().encode_turns(sample, turns)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_pictures_that_do_not_decode_are_told_with_their_batch(tmp_path, backbone, load, num_workers):
    backbone.processor = Refusing()
    with ShardWriter(tmp_path / "set", 2) as writer:
        for number in range(4):
            writer.write(build(number))
    of = question_batches([check_set("set", str(tmp_path / "set"))], 2)
    first, second = load(share_of(range(2), 0, 1), num_workers, of=of, skip_bad=True)
    assert [q.sample.key for q in first["questions"]] == ["k0000"]
    assert first["faults"][0] is None
    assert str(first["faults"][1]) == f"{tmp_path / 'set'} row 1 (k0001): image: it does not decode"
    assert second["questions"] == second["samples"] == []
    assert all(second["faults"])
    assert len(second["inputs"].input_ids) == 1  # a blank picture, so that all processes take the step
    assert first["skip_bad"]


def test_auto_asks_as_the_model_was_trained(write_set, backbone, caplog):
    data = EvaluationDataModule(write_set(2))
    data.connect(backbone)
    assert data.mode == "direct"  # it does not tell
    backbone.trained_mode = "think"
    assert data.mode == "think"
    assert EvaluationDataModule(write_set(2, name="other"), mode="json").mode == "json"


def test_settings_that_cannot_work(write_set, tmp_path):
    with pytest.raises(ConfigError, match=r"data\.mode: 'thinking' is not one of auto, think, direct, cot, json, des"):
        EvaluationDataModule("set", mode="thinking")
    options = {"provenance": {"options": ["Merlin", "Osprey"]}}
    data = EvaluationDataModule(write_set(2, **options), mode="describe")
    with pytest.raises(ConfigError, match=r"data\.mode: describe asks for boxes, and test holds names"):
        data.setup("test")


def test_sets_are_gone_through_once(write_set, monkeypatch):
    data = EvaluationDataModule(write_set(3))
    data.setup("test")
    known = data.batches
    monkeypatch.setattr("data_modules.evaluation.check_set", None)
    data.setup("test")
    assert data.batches is known
    assert [[row for row, _ in rows] for _, _, rows in known.read([0])] == [[0, 1, 2]]
