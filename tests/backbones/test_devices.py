"""Every family on every device: sharing the prompt changes rounding alone, both stages learn, kernels have names."""

from __future__ import annotations

import logging

import pytest
import torch

from kvg.backbones import shared_prefix
from kvg.backbones.lora import LoRASettings
from kvg.losses.family import GRPOLoss
from kvg.losses.policy import Counts
from kvg.rl.rollout import rollout
from kvg.rl.sampling import SamplingSettings
from tests.devices import CUDA, DEVICES

GROUP = 3
BFLOAT16 = {"dtype": "bfloat16", "freeze_vision": False, "freeze_projector": False}


@pytest.fixture(params=DEVICES)
def device(request):
    return request.param


def completions(backbone, num, device):
    """Random texts of different lengths, after each of the prompts."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(300, 1000, (num * GROUP, 12), generator=generator)
    lengths = torch.randint(1, 13, (num * GROUP, 1), generator=generator)
    return tokens.to(device), (torch.arange(12) < lengths).to(device)


def scores(family, device, prompts, **settings):
    backbone = family("tiny", **settings).eval().to(device)
    batch = prompts(backbone).to(device)
    with torch.no_grad():
        return backbone.completion_logprobs(batch, *completions(backbone, len(batch), device))[0].float().cpu()


def test_a_shared_prompt_is_a_repeated_one(family, device, prompts):
    """In float32 up to the order of sums; in bfloat16 no further from float32 than the repeated prompt is."""
    exact = scores(family, device, prompts, dtype="float32", share_prefix=False)
    torch.testing.assert_close(scores(family, device, prompts, dtype="float32"), exact, atol=2e-4, rtol=0)
    shared, plain = (
        (scores(family, device, prompts, dtype="bfloat16", share_prefix=share) - exact).abs() for share in (True, False)
    )
    assert shared.mean() < 1.5 * plain.mean() + 1e-3
    assert shared.max() < 2 * plain.max() + 2e-2


@pytest.mark.two_families
def test_stage_1_learns_in_bfloat16(family, device, prompts, samples):
    backbone = family("tiny", **BFLOAT16).train().to(device)
    examples = [backbone.processor.encode(s, mode="think", target="rationale") for s in samples]
    batch = backbone.processor.collate(examples, samples).to(device)
    optimizer, losses = torch.optim.AdamW(backbone.parameters(), lr=3e-3, fused=True), []
    for _ in range(4):
        loss, _ = backbone.label_loss(batch)
        loss.backward()
        assert all(bool(p.grad.isfinite().all()) for p in backbone.parameters() if p.grad is not None)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.98 * losses[0]


@pytest.mark.two_families
@pytest.mark.parametrize("lora", [None, LoRASettings(r=4)], ids=["whole", "adapters"])
def test_stage_2_learns_in_bfloat16(family, device, prompts, lora):
    """What is rewarded becomes likelier."""
    backbone = family("tiny", lora=lora, **(BFLOAT16 if lora is None else {"dtype": "bfloat16"})).to(device)
    batch = prompts(backbone).to(device)
    out = rollout(backbone.eval(), batch, SamplingSettings(8), GROUP, torch.Generator().manual_seed(0))
    assert out.tokens.device.type == device
    mask = out.completion_mask
    advantages = torch.tensor([1.0, -0.5, -0.5], device=device).repeat(len(batch))
    trained = [p for p in backbone.parameters() if p.requires_grad]
    optimizer, loss_of = torch.optim.AdamW(trained, lr=2e-3, fused=True), GRPOLoss(beta=0.0)
    counts = Counts(len(mask), float(mask.sum()), float(mask.sum()))
    seen = []
    for _ in range(3):
        logprobs, entropies = backbone.train().completion_logprobs(batch, out.tokens, mask)
        loss, _ = loss_of(logprobs, logprobs.detach(), None, advantages, mask, entropies, counts, None)
        loss.backward()
        assert all(bool(p.grad.isfinite().all()) for p in trained if p.grad is not None)
        optimizer.step()
        optimizer.zero_grad()
        seen.append(float((logprobs.detach().sum(1) * advantages).sum()))
    assert seen[-1] > seen[0]


def test_the_kernel_of_shared_prompts_is_named(backbone, device, prompts, caplog):
    shared_prefix._log_once.cache_clear()
    backbone = backbone.to(device)
    batch = prompts(backbone).to(device)
    with caplog.at_level(logging.INFO, shared_prefix.log.name), torch.no_grad():
        backbone.completion_logprobs(batch, *completions(backbone, len(batch), device))
    (said,) = [record.getMessage() for record in caplog.records if record.name == shared_prefix.log.name]
    assert said.startswith("attention over shared prefixes: ")


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=CUDA)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_sampled_is_what_is_scored(family, device, prompts, dtype):
    """On a CPU, tests/backbones/test_rollout.py says so in float32."""
    backbone = family("tiny", dtype=dtype).eval().to(device)
    batch = prompts(backbone).to(device)
    out = rollout(backbone, batch, SamplingSettings(12), GROUP, torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, _ = backbone.completion_logprobs(batch, out.tokens, out.completion_mask)
    limit = 1e-3 if dtype == "float32" else 0.1
    assert (out.logprobs - found).abs().mean() < limit
