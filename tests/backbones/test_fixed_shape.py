"""Sampling of fixed shapes: the tokens of one a pass, and nothing between them that a CUDA graph could not repeat."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kvg.backbones.backbone import Backbone
from kvg.errors import ConfigError
from kvg.rl.fixed_shape import LOOK, FixedStep
from kvg.rl.rollout import rollout
from kvg.rl.sampling import SamplingSettings

# Operators whose result the host reads, or whose shape depends on values: on a GPU each waits for all work before it.
SYNCHRONISING = {
    "aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal", "aten::nonzero", "aten::masked_select",
    "aten::_unique2", "aten::unique_dim", "aten::unique_consecutive", "aten::repeat_interleave", "aten::bincount",
}  # fmt: skip


class Recorder(TorchDispatchMode):
    """Names of the operators that run, and the shapes of the tensors that go in."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        self.calls.append((func._schema.name, *(tuple(x.shape) for x in tensors)))
        return func(*args, **(kwargs or {}))

    def synchronising(self):
        return [call for call in self.calls if call[0] in SYNCHRONISING]


def sample(backbone, batch, decoding, **settings):
    backbone.decoding = decoding
    settings = SamplingSettings(**{"max_new_tokens": 40, **settings})
    return rollout(backbone, batch, settings, 3, torch.Generator().manual_seed(0))


@pytest.mark.two_families
@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {}, {"top_p": 0.8, "top_k": 50}], ids=str)
def test_tokens_are_those_of_one_a_pass(family, prompts, settings):
    backbone = family("tiny").eval()
    batch = prompts(backbone)
    free = sample(backbone, batch, "one_token", **settings)
    backbone.end_token_ids = tuple({int(row[3 + 5 * n]) for n, row in enumerate(free.tokens[:9:2])})  # end early
    plain, out = (sample(backbone, batch, decoding, **settings) for decoding in ("one_token", "fixed_shape"))
    assert not plain.completion_mask.all()
    assert torch.equal(out.tokens, plain.tokens)
    assert torch.equal(out.completion_mask, plain.completion_mask)
    assert torch.equal(out.truncated, plain.truncated)
    torch.testing.assert_close(out.logprobs, plain.logprobs, atol=5e-5, rtol=0)


def step_of(backbone, batch, **settings):
    settings = SamplingSettings(max_new_tokens=8, **settings)
    logits, state = backbone.prefill(batch, 3, settings.max_new_tokens)
    uniforms = torch.rand(len(logits), settings.max_new_tokens, dtype=torch.float64) if settings.temperature else None
    return FixedStep(backbone, logits, state, settings, uniforms)


@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {"temperature": 0.7}, {"top_p": 0.8, "top_k": 5}], ids=str)
@torch.no_grad()
def test_all_tokens_are_the_same_work_and_none_waits(family, prompts, settings):
    backbone = family("tiny").eval()
    step = step_of(backbone, prompts(backbone), **settings)
    step()
    kept = [x for pair in step.state.own for x in pair]
    kept += [step.logits, step.place, step.state.place, step.state.position, *vars(step.made).values()]
    kept = [x for x in kept if isinstance(x, torch.Tensor)]
    addresses, passes = [x.data_ptr() for x in kept], []
    for _ in range(3):
        with Recorder() as passed:
            step()
        passes.append(passed)
    assert [x.data_ptr() for x in kept] == addresses
    assert step.place.item() == 4
    for passed in passes:
        assert len(passed.calls) > 50
        assert passed.synchronising() == []
        assert passed.calls == passes[0].calls


@torch.no_grad()
def test_the_count_sees_what_waits(backbone, prompts):
    backbone.decoding = "one_token"
    with Recorder() as passed:
        rollout(backbone, prompts(backbone), SamplingSettings(4), 3, torch.Generator().manual_seed(0))
    assert len(passed.synchronising()) >= 4  # one a token at least


def test_the_host_looks_once_in_so_many_tokens(backbone, prompts):
    batch = prompts(backbone)
    free = sample(backbone, batch, "one_token", temperature=0.0)
    backbone.end_token_ids = tuple({int(row[2]) for row in free.tokens})  # all end with the third at the latest
    calls = []
    decode = backbone.decode
    backbone.decode = lambda tokens, state: (calls.append(len(tokens)), decode(tokens, state))[1]
    out = sample(backbone, batch, "fixed_shape", temperature=0.0)
    assert out.tokens.shape[1] <= 3
    assert calls == [12] * LOOK


def test_it_needs_a_shared_prefix(prompts):
    backbone = Backbone("tiny", share_prefix=False, decoding="fixed_shape").eval()
    with pytest.raises(ConfigError, match=r"backbone\.decoding.*share_prefix"):
        sample(backbone, prompts(backbone), "fixed_shape")


def test_an_unknown_way_is_refused():
    with pytest.raises(ConfigError, match=r"decoding: 'graph' is not one of speculative, one_token, fixed_shape"):
        Backbone("tiny", decoding="graph")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_recorded_step_samples_the_same_tokens(family, prompts):
    backbone = family("tiny").eval().cuda()
    batch = prompts(backbone).to("cuda")
    plain, out = (sample(backbone, batch, decoding, temperature=0.0) for decoding in ("one_token", "fixed_shape"))
    assert torch.equal(out.tokens, plain.tokens)
