"""The base model as shipped: whole, small, and able to do what stage 1 builds on."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from kvg.backbones.answers import completion_texts, completions, read_answers
from kvg.backbones.backbone import Backbone
from kvg.backbones.builtin import lab_folder
from kvg.batches import Example
from kvg.boxes import box_rows
from kvg.composites.compositor import Compositor
from kvg.lab.traits import load_cards
from kvg.lab.world import TraitSource, lab_canvas
from kvg.metrics.functional import iou_accuracy
from kvg.rl.rollout import rollout
from kvg.rl.sampling import SamplingSettings

pytestmark = pytest.mark.skipif(not (lab_folder() / "model.safetensors").is_file(), reason="the base is not built")


@pytest.fixture(scope="module")
def base():
    return Backbone("lab").eval()


def test_files_are_those_that_were_signed():
    for line in (lab_folder() / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split()
        assert hashlib.sha256((lab_folder() / name).read_bytes()).hexdigest() == digest, name
    assert sum(file.stat().st_size for file in lab_folder().iterdir()) < 16 * 2**20


def test_true_architecture_of_one_to_eight_million_weights(base):
    assert type(base.model).__name__ == "Qwen2VLForConditionalGeneration"
    assert 1e6 <= sum(p.numel() for p in base.parameters()) <= 8e6
    assert base.processor.image_size(140, 140).resized_width == 140


def test_cards_are_recalled(base):
    """Continued from the words with which a rationale begins."""
    cards = [card for card in load_cards() if card.known]
    examples = [base.processor.encode_text(None, f"<think>Plan: the {card.name} is") for card in cards]
    examples = [Example(one.input_ids[:-1], one.labels[:-1]) for one in examples]  # without the end of the turn
    out = rollout(base, base.processor.collate(examples, [], pad_left=True), SamplingSettings(16, temperature=0.0))
    texts = completion_texts(base, out.tokens, out.completion_mask)
    right = [text.strip().startswith(card.traits.text) for text, card in zip(texts, cards, strict=True)]
    assert sum(right) / len(right) >= 0.95


@pytest.mark.parametrize(("k", "least"), [(1, 0.95), (3, 0.85)])
def test_objects_are_boxed_by_their_traits(base, k, least):
    """On drawings and combinations of traits that pretraining has not seen; half of the others are one trait away."""
    compositor = Compositor(TraitSource(families=8, siblings=3, variants=1, seed=99), lab_canvas(99, {k: 1.0}, 0.5))
    samples = [compositor.sample(index) for index in range(48)]
    samples = [replace(s, objects=tuple(replace(o, entity=o.description) for o in s.objects)) for s in samples]
    examples = [base.processor.encode(sample, mode="direct", target=None) for sample in samples]
    batch = base.processor.collate(examples, samples, pad_left=True)
    out = rollout(base, batch, SamplingSettings(32, temperature=0.0))
    boxes = box_rows([answer.box_px for answer in read_answers(base, completions(base, out), samples)])
    assert iou_accuracy(boxes, box_rows([s.box_px for s in samples])) >= least
