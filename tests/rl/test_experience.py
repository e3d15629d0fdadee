"""Experience cut by prompts: pictures, completions and scores stay together, and files hold all of it."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import pytest
import torch

from kvg.backbones.backbone import Backbone
from kvg.batches import Batch
from kvg.rl.experience import Experience, first_prompts, in_minibatches

SIZES = ((140, 140), (168, 84), (112, 196))


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return Backbone("tiny")


@pytest.fixture
def batch(backbone, scenes) -> Batch:
    samples = scenes(4, SIZES)
    examples = [backbone.processor.encode(s, mode="think", target=None) for s in samples]
    return backbone.with_visual_tokens(backbone.processor.collate(examples, samples, pad_left=True))


@pytest.fixture
def found(batch) -> Experience:
    """Two completions each; every number tells its row."""
    rows = torch.arange(8)[:, None].expand(8, 3)
    return Experience(batch, rows, rows >= 0, torch.arange(8.0), rows + 0.5, None)


def test_pictures_stay_with_their_prompts(backbone, batch):
    alone = batch.take([2, 0])
    assert [s.key for s in alone.samples] == [batch.samples[2].key, batch.samples[0].key]
    tokens, mask = torch.zeros(2, 1, dtype=torch.long), torch.ones(2, 1, dtype=torch.bool)
    scores, _ = backbone.completion_logprobs(alone, tokens, mask)
    everything, _ = backbone.completion_logprobs(batch, tokens[:1].expand(4, 1), mask[:1].expand(4, 1))
    torch.testing.assert_close(scores, everything[[2, 0]], atol=1e-5, rtol=1e-5)
    without = replace(alone, visual=None)  # the patches were cut as well as the visual tokens
    torch.testing.assert_close(backbone.completion_logprobs(without, tokens, mask)[0], scores, atol=1e-5, rtol=1e-5)


def test_completions_stay_with_their_prompts(found):
    part = found.take([3, 1])
    assert part.tokens[:, 0].tolist() == [6, 7, 2, 3]
    assert part.advantages.tolist() == [6, 7, 2, 3]
    assert part.old_logprobs is not None
    assert part.old_logprobs[:, 0].tolist() == [6.5, 7.5, 2.5, 3.5]
    assert part.ref_logprobs is None
    assert found.take(range(4)) is found


def test_minibatches_and_their_parts(found):
    def sizes(num_minibatches, microbatch_size):
        return [
            [p.num_prompts for p in parts]
            for parts in in_minibatches([found, found.take([0])], num_minibatches, microbatch_size)
        ]

    assert sizes(1, 0) == [[4, 1]]  # a part never spans two pieces
    assert sizes(1, 3) == [[3, 1, 1]]
    assert sizes(2, 0) == [[3], [1, 1]]
    assert sizes(2, 1) == [[1, 1, 1], [1, 1]]
    rows = [p.tokens[:, 0].tolist() for parts in in_minibatches([found], 2, 0) for p in parts]
    assert rows == [[0, 1, 2, 3], [4, 5, 6, 7]]
    with pytest.raises(ValueError, match="4 prompts cannot be spread over 5"):
        in_minibatches([found], 5, 0)


def test_the_first_prompts_of_several_pieces(found):
    pieces = [found.take([0, 1]), found.take([2]), found.take([3])]
    kept = first_prompts(pieces, 3)
    assert [piece.tokens[:, 0].tolist() for piece in kept] == [[0, 1, 2, 3], [4, 5]]
    assert [piece.num_prompts for piece in first_prompts(pieces, 1)] == [1]


def test_a_file_holds_everything(found, tmp_path):
    found.save(tmp_path / "a" / "b.pt")
    again = Experience.load(tmp_path / "a" / "b.pt")
    assert again.batch.samples == found.batch.samples
    for one, other in ((again.batch, found.batch), (again.batch.pictures, found.batch.pictures)):
        for name, value in vars(other).items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, vars(one)[name])
            elif not dataclasses.is_dataclass(value) and not isinstance(value, dict):
                assert value == vars(one)[name]
    for name, value in found.batch.pictures.tensors.items():
        assert torch.equal(value, again.batch.pictures.tensors[name])
    assert torch.equal(again.batch.visual.tokens, found.batch.visual.tokens)
    assert torch.equal(again.tokens, found.tokens)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.pt"]


def test_a_file_leaves_out_what_leads_back_to_a_tower(found, tmp_path):
    tokens = found.batch.visual.tokens.clone().requires_grad_()
    trained = replace(found.batch, visual=replace(found.batch.visual, tokens=tokens))
    Experience(trained, found.tokens, found.mask, found.advantages).save(tmp_path / "b.pt")
    assert Experience.load(tmp_path / "b.pt").batch.visual is None
