"""Visual tokens that are computed once: in a step, and from epoch to epoch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kvg.backbones.feature_cache import FeatureCache
from kvg.errors import ConfigError


@pytest.fixture
def pictures(prompts):
    """Features, and what was encoded to make them."""

    def make(backbone, cache, num=4, samples=None):
        batch = prompts(backbone, num)
        encoded = []

        def encode(own):
            encoded.append(len(own))
            return backbone.see(own)

        if samples:
            batch.pictures = replace(batch.pictures, sources=tuple(sample.image for sample in samples))
        found, plain = cache(batch.pictures, backbone.device, encode), backbone.see(batch.pictures)
        assert found.counts == plain.counts
        for one, other in zip((found.tokens, *found.deep), (plain.tokens, *plain.deep), strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)
        return encoded

    return make


def test_a_picture_is_encoded_once(backbone, pictures):
    cache = FeatureCache(2**20)
    assert pictures(backbone, cache, num=2) == [2]
    assert pictures(backbone, cache, num=4) == [2]  # the other two
    assert pictures(backbone, cache, num=4) == []
    assert (cache.num_misses, cache.num_hits) == (4, 6)


def test_pictures_are_told_apart_by_their_bytes(backbone, pictures, samples):
    cache = FeatureCache(2**20)
    pictures(backbone, cache)
    assert pictures(backbone, cache, samples=[replace(s, key="same") for s in samples]) == []
    changed = [replace(samples[0], image=samples[0].image + b"\0"), *samples[1:]]
    assert pictures(backbone, cache, samples=changed) == [1]


def test_the_oldest_leaves_first(backbone, pictures, prompts):
    first = backbone.see(prompts(backbone, 2).pictures)
    cache = FeatureCache(sum(layer.numel() * 4 for layer in (first.tokens, *first.deep)))
    pictures(backbone, cache, num=2)
    assert cache.num_bytes == cache.max_bytes
    assert pictures(backbone, cache, num=4) == [2]
    assert cache.num_bytes <= cache.max_bytes


def test_features_of_a_batch_stand_for_its_patches(family, prompts):
    backbone = family("tiny", feature_cache_mb=1).eval()
    batch = prompts(backbone)
    expected = backbone.logits(batch)
    for _ in range(2):
        found = backbone.with_visual_tokens(batch)
        torch.testing.assert_close(backbone.logits(found), expected, atol=1e-5, rtol=1e-5)
    assert backbone.feature_cache.num_hits == 4
    tensors = {name: value if name == "grid" else None for name, value in batch.pictures.tensors.items()}
    spoilt = replace(found, pictures=replace(batch.pictures, tensors=tensors))
    torch.testing.assert_close(backbone.logits(spoilt), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("part", ["projector", "vision"])
def test_what_a_tower_that_learns_sees_is_never_kept(family, part):
    with pytest.raises(ConfigError, match=r"feature_cache_mb: 1 keeps .*, which change while the .* trained"):
        family("tiny", **{f"freeze_{part}": False}, feature_cache_mb=1)


@pytest.mark.two_families
@pytest.mark.parametrize("frozen", [True, False])
def test_label_loss_without_padding_is_that_with_it(family, samples, frozen):
    """Rows of different length, one of them text alone; the same gradients."""
    found = []
    for share in (True, False):
        torch.manual_seed(0)
        backbone = family("tiny", share_prefix=share, freeze_vision=frozen, freeze_projector=frozen)
        examples = [backbone.processor.encode(s, mode="think", target="rationale") for s in samples]
        examples.append(backbone.processor.encode_text("Describe the Hoopoe.", "orange, crest"))
        examples.append(backbone.processor.encode_text(None, "The Hoopoe is orange."))
        batch = backbone.processor.collate(examples, samples)
        loss, num = backbone.label_loss(batch)
        loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in backbone.parameters() if p.grad is not None])
        found.append((loss.detach(), int(num), gradient))
    (loss, num, gradient), (expected, expected_num, expected_gradient) = found
    assert num == expected_num == int((batch.labels[:, 1:] != -100).sum())
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    assert (gradient - expected_gradient).norm() < 1e-5 * expected_gradient.norm()
