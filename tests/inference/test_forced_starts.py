"""An answer that has begun: the start is part of the prompt, and of the answer, and decides what is asked again."""

from __future__ import annotations

import pytest
import torch

from kvg.errors import DataError
from kvg.evaluation.records.forced_starts import ForcedStart, ForcedStarts
from kvg.evaluation.records.question_sets import check_set, question_batches
from kvg.inference.questions import QuestionRequests
from kvg.pipeline.compose import compose, load_config
from kvg.text.prompts import PUBLISHED


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    out = tmp_path_factory.mktemp("set") / "test"
    compose(load_config("configs/lab/test.yaml"), out, 3, seed=3)
    return check_set("test", str(out))


def requests_of(questions, **more):
    batches = question_batches([questions], 8, **more)
    return batches, next(iter(QuestionRequests(batches, "think", PUBLISHED).read([0])))[1]


def test_the_start_of_a_case_comes_with_its_request(questions):
    keys = [f"s3-000000{n}" for n in range(3)]
    starts = {(key, "", 0): ForcedStart(f"<think>{key}", 1, None) for key in keys}
    batches, made = requests_of(questions, forced=ForcedStarts("none", "a", starts))
    assert [request.start for request in made] == [f"<think>{key}" for key in keys]
    other, _ = requests_of(questions, forced=ForcedStarts("none", "b", starts))
    free, _ = requests_of(questions)
    assert batches.settings() != other.settings()
    assert "forced" not in free.settings()
    assert made[0].forced.record("none") == {"kind": "none", "start": "<think>s3-0000000", "other": 1, "before": None}


def test_a_case_without_an_answer_before_is_an_error(questions):
    _, made = requests_of(questions, forced=ForcedStarts("none", "a", {}))
    assert all(isinstance(request, DataError) and "thoughts" in str(request) for request in made)


def test_the_card_stands_before_the_question(questions):
    _, made = requests_of(questions, card=True)
    sample = made[0].sample
    traits = sample.objects[sample.target].description
    assert made[0].text.startswith(f"The {sample.entity} is {traits}. Find and give the bounding box of ")


def test_tokens_of_the_start_end_the_prompt():
    from kvg.backbones.backbone import Backbone

    processor = Backbone("lab", max_pixels=None).processor
    example = processor.encode_text("What is it?", "a bird")
    begun = processor.begun(example, "<think>Plan: the <|box_start|>(1,2),(3,4)<|box_end|>", "k")
    added = begun.input_ids[len(example.input_ids) :]
    assert processor.tokenizer.decode(added) == "<think>Plan: the <|box_start|>(1,2),(3,4)<|box_end|>"
    assert torch.equal(begun.input_ids[: len(example.input_ids)], example.input_ids)
    assert set(begun.labels[len(example.input_ids) :].tolist()) == {-100}
    with pytest.raises(DataError, match="start"):
        processor.begun(example, "<|im_end|>", "k")
