"""Questions on their way to a model: the same batches for any number of processes and workers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from kvg.errors import DataError
from kvg.evaluation.records.question_sets import check_set, question_batches
from kvg.inference.prepared import PreparedBatches
from kvg.inference.questions import QuestionRequests
from kvg.shards.writer import ShardWriter
from kvg.text.prompts import PUBLISHED
from kvg.work.job import share_of
from tests.data_modules.conftest import LetterProcessor, build

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create .* worker processes")  # on a single core


@pytest.fixture
def backbone():
    return SimpleNamespace(processor=LetterProcessor())


def write_set(folder, num):
    with ShardWriter(folder, 5) as writer:
        for number in range(num):
            writer.write(build(number))
    return str(folder)


@pytest.fixture
def batches(tmp_path):
    sets = [check_set(name, write_set(tmp_path / name, num)) for name, num in (("a", 7), ("b", 2))]
    return question_batches(sets, 2)  # of 2, 2, 2, 1 and 2 questions


@pytest.fixture
def load(batches, backbone):
    def made(share, num_workers=0, mode="direct", of=None):
        loader = PreparedBatches(QuestionRequests(of or batches, mode, PUBLISHED), backbone.processor, share).loader(
            num_workers
        )
        found = list(loader)
        assert len(loader) == len(found)
        return found

    return made


def seen(found):
    return [(b["number"], b["due"], [f"{r.question.set_name}/{r.key}" for r in b["requests"]]) for b in found]


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
    assert plain["examples"] == []
    (first,) = load([(3, True)], mode="describe")
    assert "".join(map(chr, first["inputs"].input_ids[0].tolist())).startswith(
        "Which object in this image is Merlin? Give"
    )
    assert len(first["examples"]) == 1


class Refusing(LetterProcessor):
    def encode_turns(self, sample, turns):
        if sample.key in ("k0001", "k0002", "k0003"):
            raise DataError(sample.key, "image", "it does not decode")
        return super().encode_turns(sample, turns)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_pictures_that_do_not_decode_are_told_with_their_batch(tmp_path, backbone, load, num_workers):
    backbone.processor = Refusing()
    of = question_batches([check_set("set", write_set(tmp_path / "set", 4))], 2)
    first, second = load(share_of(range(2), 0, 1), num_workers, of=of)
    assert [r.key for r in first["requests"]] == ["k0000"]
    assert first["faults"][0] is None
    assert str(first["faults"][1]) == f"{tmp_path / 'set'} row 1 (k0001): image: it does not decode"
    assert second["requests"] == second["samples"] == []
    assert all(second["faults"])
    assert len(second["inputs"]) == 1  # a blank picture, so that all processes take the step
