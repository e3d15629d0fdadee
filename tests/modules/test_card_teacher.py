"""The privileged teacher: weights by hand, prompts with the card, and scores against whole sequences, one by one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from data_modules import GRPODataModule
from kvg.errors import ConfigError, DataError
from kvg.modules.card_teacher import CardTeacher
from kvg.shards.reader import ShardFolder, Tally
from tests.modules.stage_2 import SMALL, SPACES, grpo


def test_weights_by_hand():
    policy = torch.tensor([[0.4, 0.2, 0.1], [0.4, 0.2, 0.1], [0.4, 0.2, 0.1]]).log()
    teacher = torch.tensor([[0.6, 0.1, 0.9], [0.6, 0.1, 0.9], [0.6, 0.1, 0.9]]).log()
    mask = torch.tensor([[True, True, True], [True, True, True], [True, True, False]])
    weights = CardTeacher(cap=4.0).weights(teacher, policy, torch.tensor([0.7, -2.0, 0.0]), mask)
    # Ratios 3/2, 1/2 and 9: as they are in a good completion, their inverses in a bad one, at most 4 and at least 1/4.
    expected = torch.tensor([[1.5, 0.5, 4.0], [2 / 3, 2.0, 0.25], [1.0, 1.0, 0.0]])
    torch.testing.assert_close(weights, expected)
    figures = CardTeacher(cap=4.0).figures(teacher, policy, mask)
    gain = 3 * torch.tensor(1.5).log() + 3 * torch.tensor(0.5).log() + 2 * torch.tensor(9.0).log()
    torch.testing.assert_close(figures["gain"], gain / 8)
    assert float(figures["beyond_cap"]) == pytest.approx(2 / 8)
    with pytest.raises(ConfigError, match=r"teacher\.cap"):
        CardTeacher(cap=1.0)


def batch_of(folder, backbone):
    samples = [sample for part in ShardFolder(folder).parts() for _, sample in part.read(Tally())][:2]
    processor = backbone.processor
    examples = [processor.encode(sample, mode="think", target=None) for sample in samples]
    return backbone.with_visual_tokens(processor.collate(examples, samples, pad_left=True))


def test_prompts_hold_the_card_and_the_same_picture(two, tiny):
    backbone = tiny()
    batch = batch_of(two, backbone)
    longer = CardTeacher().prompts(backbone, batch, "think")
    for row, sample in enumerate(batch.samples):
        text = backbone.processor.tokenizer.decode(longer.input_ids[row])
        traits = ", ".join(sample.objects[sample.target].traits)
        assert f"The {sample.entity} is {traits}. Find and give the bounding box of" in text
    assert longer.visual is batch.visual
    nameless = [replace(s, objects=tuple(replace(o, traits=()) for o in s.objects)) for s in batch.samples]
    with pytest.raises(DataError, match=r"model\.teacher"):
        CardTeacher().prompts(backbone, replace(batch, samples=nameless), "think")


def test_a_training_learns_with_the_weights_of_the_teacher(fit, two, tiny, adamw):
    """The weights of the surrogate are those of scores of each whole text alone, without a shared prompt."""
    module = grpo(tiny(), SPACES, adamw(0.0), group_size=2, beta=0.0, teacher=CardTeacher(cap=1.5), **SMALL)
    pieces, backbone = [], module.backbone
    learn = module._learn
    module._learn = lambda given: pieces.extend(given) or learn(given)
    log = fit(module, GRPODataModule(two, mode="think", batch_size=2), 1)
    (piece,) = pieces
    scores = []
    for batch in (piece.batch, CardTeacher().prompts(backbone, piece.batch, "think")):
        rows = []
        for row in range(4):
            prompt, tokens = row // 2, piece.tokens[row][piece.mask[row]]
            own = batch.take([prompt])
            ids = own.input_ids[0][own.attention_mask[0].bool()]
            text = torch.cat([ids, tokens])[None]
            whole = replace(own, input_ids=text, attention_mask=torch.ones_like(text), visual=None)
            with torch.no_grad():
                logits = backbone.logits(whole)[0, len(ids) - 1 : -1].float()
            rows.append(logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0])
        scores.append(rows)
    for row in range(4):
        sign = float(piece.advantages[row].sign())
        expected = (sign * (scores[1][row] - scores[0][row])).exp().clamp(1 / 1.5, 1.5)
        torch.testing.assert_close(piece.weights[row][piece.mask[row]], expected, rtol=1e-3, atol=1e-3)
    assert {"train/teacher/gain", "train/teacher/beyond_cap"} <= set(log.steps[0])
    assert float((piece.weights[piece.mask] - 1).abs().max()) > 1e-3
