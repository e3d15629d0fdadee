"""The exam's choices and descriptions: probabilities added by hand, texts read by hand, and the shipped model."""

from __future__ import annotations

import pytest
import torch

from kvg.backbones.backbone import Backbone
from kvg.composites.compositor import Compositor
from kvg.lab.skills import describe
from kvg.lab.world import TraitSource, lab_canvas
from kvg.pipeline.exam_choices import choose_card, compare, described, most_probable
from kvg.text.prompts import fill_boxes


@pytest.fixture(scope="module")
def lab():
    return Backbone("lab", max_pixels=None).eval()


@pytest.fixture(scope="module")
def scenes():
    compositor = Compositor(TraitSource(families=20, variants=1, seed=5), lab_canvas(5, {2: 1.0}, 0.5))
    return [compositor.sample(number) for number in range(8)]


def test_the_most_probable_answer_is_that_of_sums_over_single_texts(lab):
    texts = [["the Hoopoe is red.", "zzz", "the the"], ["a", "blue, spots, horns, slim."]]
    questions = [[lab.processor.encode_text("What is it?", text) for text in own] for own in texts]
    expected = []
    for own in questions:
        sums = []
        for example in own:
            ids = example.input_ids[None]
            with torch.no_grad():
                logprobs = lab.model(input_ids=ids).logits[0].log_softmax(-1)
            places = [n for n, label in enumerate(example.labels.tolist()) if label >= 0]
            sums.append(sum(float(logprobs[n - 1, ids[0, n]]) for n in places))
        expected.append(sums.index(max(sums)))
    assert most_probable(lab, questions) == expected


def test_a_description_is_read_by_hand(lab, scenes):
    sample = scenes[0]
    right = fill_boxes(describe(sample, None)[1], lab.processor.box_texts(sample))
    first, second = sample.objects
    assert described(lab, [sample], [right]) == 1.0
    number = next(n for n, trait in enumerate(first.traits) if trait not in second.traits)
    wrong = right.replace(first.traits[number], "plaid", 1)  # one of eight traits
    assert described(lab, [sample], [wrong]) == pytest.approx(7 / 8)
    assert described(lab, [sample], ["nothing"]) == 0.0


def test_the_shipped_model_knows_its_cards_and_compares(lab, scenes):
    figures = choose_card(lab, seed=1)
    assert set(figures) == {"choose card seen", "choose card unseen"}
    assert min(figures.values()) > 0.5  # a guess is right in a quarter
    assert compare(lab, scenes, seed=1) > 0.6
