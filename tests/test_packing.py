"""Packed rows: the same logits as one row a segment, the model's own positions, and a mask that can be read off."""

from __future__ import annotations

import pytest
import torch

from kvg.backbones.backbone import Backbone
from kvg.batches import Batch, Pictures
from kvg.packing import pack_batch, pack_row, packed_mask, prefix_positions

QUESTIONS = [("What is this?", "a bird."), ("Where?", "on the left of it"), ("Why?", "because.")]


@pytest.fixture(scope="module")
def backbone():
    return Backbone("tiny").eval()


def pieces(backbone, sample):
    """Prefix, segments as tokens, and the picture."""
    processor = backbone.processor
    picture = processor.picture(processor.open(sample))
    before, after = processor.chat("\0").split("\0")
    prefix = processor.ids(processor.expand(before, picture))
    segments = [(processor.ids(q + after), processor.ids(a + "<|im_end|>")) for q, a in QUESTIONS]
    return prefix, segments, picture


def merged(picture):
    _, rows, columns = picture.tensors["grid"][0].tolist()
    return rows // 2, columns // 2


@torch.no_grad()
def packed_logits(backbone, batch, pictures):
    features = backbone.see(pictures).tokens
    states = backbone.language.text_model(
        inputs_embeds=backbone.embed(batch["input_ids"], features),
        position_ids=batch["position_ids"],
        attention_mask=packed_mask(batch["segments"]),
        use_cache=False,
    ).last_hidden_state
    return backbone.model.lm_head(states)


@pytest.fixture
def packed(backbone, scenes):
    """Two packed rows of different length, and what they were packed from."""
    parts = [pieces(backbone, sample) for sample in scenes(2, [(140, 140), (168, 84)])]
    token = backbone.processor.image_token_id
    rows = [pack_row(p, s[: 3 - n], token, merged(g)) for n, (p, s, g) in enumerate(parts)]
    batch = pack_batch(rows, backbone.processor.pad_token_id)
    return parts, batch, Pictures.pack([[part[2]] for part in parts])


def test_segments_neither_leak_nor_shift(backbone, packed):
    parts, batch, pixels = packed
    logits = packed_logits(backbone, batch, pixels)
    assert (batch["segments"] == -1).any()
    for row, (prefix, segments, picture) in enumerate(parts):
        start = len(prefix)
        for asked, answer in segments[: 3 - row]:
            ids = torch.tensor([[*prefix, *asked, *answer]])
            alone = Batch(ids, torch.ones_like(ids), ids, pictures=Pictures.pack([[picture]]))
            with torch.no_grad():
                expected = backbone.logits(alone)[0]
            length = len(asked) + len(answer)
            assert (logits[row, : len(prefix)] - expected[: len(prefix)]).abs().max() < 1e-5
            assert (logits[row, start : start + length] - expected[len(prefix) :]).abs().max() < 1e-5
            start += length
        assert (batch["segments"][row, start:] == -1).all()


def test_a_changed_segment_changes_no_other(backbone, packed):
    _, batch, pixels = packed
    before = packed_logits(backbone, batch, pixels)
    second = batch["segments"] == 2
    changed = packed_logits(backbone, {**batch, "input_ids": batch["input_ids"].masked_fill(second, 300)}, pixels)
    assert torch.equal(before[~second], changed[~second])
    assert not torch.equal(before[second], changed[second])


def test_positions_are_the_models_own(backbone, packed):
    parts, batch, _ = packed
    for row, (prefix, segments, picture) in enumerate(parts):
        start = len(prefix)
        for asked, answer in segments[: 3 - row]:
            ids = torch.tensor([[*prefix, *asked, *answer]])
            kinds = (ids == backbone.processor.image_token_id).int()
            expected, _ = backbone.model.model.get_rope_index(ids, kinds, image_grid_thw=picture.tensors["grid"])
            length = len(asked) + len(answer)
            assert torch.equal(batch["position_ids"][:, row, :start][:, : len(prefix)], expected[:, 0, : len(prefix)])
            assert torch.equal(batch["position_ids"][:, row, start : start + length], expected[:, 0, len(prefix) :])
            start += length


def test_positions_by_hand():
    """Two tokens, a picture of 2 rows and 3 columns, one token: it goes on at 2 + max(2, 3)."""
    expected = [
        [0, 1, 2, 2, 2, 2, 2, 2, 5],
        [0, 1, 2, 2, 2, 3, 3, 3, 5],
        [0, 1, 2, 3, 4, 2, 3, 4, 5],
    ]
    assert prefix_positions([7, 8, 9, 9, 9, 9, 9, 9, 7], 9, (2, 3)).tolist() == expected
    assert prefix_positions([7, 8, 7], 9, None).tolist() == [[0, 1, 2]] * 3
    assert prefix_positions([], 9, None).shape == (3, 0)


def test_row_by_hand():
    row = pack_row([5, 6], [([1], [2, 3]), ([], [4])], image_token_id=9, grid=None)
    assert row.input_ids.tolist() == [5, 6, 1, 2, 3, 4]
    assert row.labels.tolist() == [-100, -100, -100, 2, 3, 4]
    assert row.segments.tolist() == [0, 0, 1, 1, 1, 2]
    assert row.position_ids.tolist() == [[0, 1, 2, 3, 4, 2]] * 3


def test_first_label_of_a_segment_is_not_predicted_by_its_neighbour():
    """Labels are shifted by one, so a segment that began with a label would be guessed from the segment before it."""
    row = pack_row([], [([5], [1]), ([6], [2])], image_token_id=9, grid=None)
    learnt = (row.labels[1:] != -100).nonzero()[:, 0]
    assert all(row.segments[i] == row.segments[i + 1] for i in learnt.tolist())


def test_mask_by_hand():
    """Prefix P, segments A A and B, one padding."""
    mask = packed_mask(torch.tensor([[0, 1, 1, 2, -1]]))
    assert mask.shape == (1, 1, 5, 5)
    assert mask[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 0, 0, 1, 0],
        [0, 0, 0, 0, 1],
    ]


def test_padding_of_a_batch():
    rows = [pack_row([5], [([1], [2])], 9, None), pack_row([], [([3], [4])], 9, None)]
    batch = pack_batch(rows, pad_id=99)
    assert batch["input_ids"].tolist() == [[5, 1, 2], [3, 4, 99]]
    assert batch["labels"].tolist() == [[-100, -100, 2], [-100, 4, -100]]
    assert batch["segments"].tolist() == [[0, 1, 1], [1, 1, -1]]
    assert batch["position_ids"].shape == (3, 2, 3)
    assert batch["position_ids"][0].tolist() == [[0, 1, 2], [0, 1, 0]]
