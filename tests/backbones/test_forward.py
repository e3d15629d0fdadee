"""The wrapper's forward pass against plain transformers, and what of a batch is learnt."""

from __future__ import annotations

import copy

import pytest
import torch

TOLERANCE = 2e-5
NUM_TOKENS = {  # of a picture of 140 x 140
    "qwen2_vl": 25,  # 28 px each: patches of 14, merged 2 x 2
    "qwen2_5_vl": 25,
    "glm4v": 25,
    "qwen3_vl": 16,  # 32 px each, and 4.4 is rounded
    "qwen3_vl_moe": 16,
    "internvl": 20,  # 2 x 2 tiles, and one of the whole picture; 4 tokens each
    "smolvlm": 20,
}
STARTS = {  # of the model's turn, behind the user's
    "smolvlm": "<end_of_utterance>\nAssistant:",
    "glm4v": "<|assistant|>\n",
}


@pytest.mark.parametrize("pad_left", [False, True])
@pytest.mark.parametrize("with_text", [False, True])
def test_logits_are_those_of_transformers(backbone, samples, plain, pad_left, with_text):
    processor = backbone.processor
    examples = [processor.encode(s, mode="think", target="rationale") for s in samples]
    if with_text:
        examples.insert(1, processor.encode_text("What is the Magpie?", "a bird."))
        examples.append(processor.encode_text(None, "The Magpie is black."))
    batch = processor.collate(examples, samples, pad_left=pad_left)
    with torch.no_grad():
        ours, theirs = backbone.logits(batch), backbone.model(**plain(batch)).logits
    counted = batch.attention_mask.bool()
    assert not counted.all()
    assert (ours - theirs)[counted].abs().max() < TOLERANCE
    assert theirs[counted].std() > 0.1  # not equal because all are zero


def test_a_batch_of_text_alone(backbone, plain):
    processor = backbone.processor
    batch = processor.collate([processor.encode_text("Who?", "me"), processor.encode_text(None, "nobody at all")], [])
    with torch.no_grad():
        ours, theirs = backbone.logits(batch), backbone.model(**plain(batch)).logits
    assert (ours - theirs)[batch.attention_mask.bool()].abs().max() < TOLERANCE


def test_other_calls_between_do_not_matter(backbone, samples):
    """Transformers remembers positions of the last call; the wrapper must not."""
    processor = backbone.processor
    one, two = (processor.collate([processor.encode(s, mode="direct", target="answer")], [s]) for s in samples[:2])
    with torch.no_grad():
        before = backbone.logits(one)
        backbone.prefill(two)
        assert torch.equal(backbone.logits(one), before)


def test_label_loss_is_that_of_transformers(backbone, samples, plain):
    processor = backbone.processor
    batch = processor.collate([processor.encode(s, mode="think", target="rationale") for s in samples], samples)
    loss, num = backbone.label_loss(batch)
    theirs = backbone.model(**plain(batch), labels=batch.labels).loss
    assert loss.item() == pytest.approx(theirs.item(), abs=TOLERANCE)
    assert num == (batch.labels != -100).sum()
    loss.backward()
    assert backbone.model.get_input_embeddings().weight.grad.abs().sum() > 0


def test_labels_cover_the_assistants_words_and_nothing_else(backbone, samples):
    processor = backbone.processor
    for target in ("rationale", "answer"):
        example = processor.encode(samples[0], mode="think", target=target)
        learnt = example.labels != -100
        said = processor.tokenizer.decode(example.labels[learnt])
        family, (picture,) = backbone.family, example.pictures
        assert said == family.answer_start + processor.completion(samples[0], target) + family.turn_end
        assert torch.equal(example.labels[learnt], example.input_ids[learnt])
        asked = processor.tokenizer.decode(example.input_ids[~learnt])
        before = processor.chat("", num_images=1).partition(family.image_token)[0]
        assert asked.startswith(before + family.placeholders(picture)[0][0])
        assert f"{family.prompt_format.mark(samples[0].entity)}  Output the thinking" in asked
        assert asked.endswith(STARTS.get(family.model_type, "<|im_end|>\n<|im_start|>assistant\n"))
        assert asked.count(family.image_token) == picture.num_tokens == NUM_TOKENS[family.model_type]
    assert "<think>Plan: the " in processor.completion(samples[0], "rationale")
    assert (processor.encode(samples[0], mode="think", target=None).labels == -100).all()


def test_text_alone_is_learnt_from_its_start(backbone):
    processor = backbone.processor
    example = processor.encode_text(None, "The Magpie is black.")
    assert processor.tokenizer.decode(example.labels[1:]) == "The Magpie is black." + backbone.family.turn_end
    assert example.labels[0] == -100


def test_frozen_parts_by_config(family):
    def trained(**settings):
        backbone = family("tiny", **settings)
        kind, model = backbone.family, backbone.model
        projector = [p for module in kind.projector(model) for p in module.parameters()]
        inside = {id(p) for p in projector}
        parts = {
            "vision": [p for p in kind.tower(model).parameters() if id(p) not in inside],
            "projector": projector,
            "language": kind.language(model).parameters(),
        }
        moved = {name: {p.requires_grad for p in own} for name, own in parts.items()}
        assert all(len(states) == 1 for states in moved.values())
        return {name: states == {True} for name, states in moved.items()}

    assert trained() == {"vision": False, "projector": False, "language": True}
    assert trained(freeze_vision=False) == {"vision": True, "projector": False, "language": True}
    assert trained(freeze_projector=False) == {"vision": False, "projector": True, "language": True}


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "glm4v"], indirect=True)
def test_patches_go_through_the_convolution_as_a_product(backbone, prompts):
    embed = copy.deepcopy(backbone.model.model.visual).patch_embed.double()
    patches = backbone.processor.pictures.pixel_values(prompts(backbone).pictures.tensors["patches"]).double()
    with torch.no_grad():
        torch.testing.assert_close(embed(patches), type(embed).forward(embed, patches))
        embed.proj.weight.zero_()  # a copy answers with its own weight
        assert embed(patches).abs().sum() == 0
