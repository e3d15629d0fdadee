"""Adapters on layers in four bits: what is computed, exported and refused."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec

import pytest
import torch

from kvg.backbones.backbone import Backbone
from kvg.backbones.find_family import family_of_type
from kvg.backbones.lora import LoRASettings
from kvg.errors import ConfigError
from kvg.rl.rollout import rollout
from kvg.rl.sampling import SamplingSettings

here = find_spec("bitsandbytes")
needed = pytest.mark.skipif(not here, reason="bitsandbytes is not installed (extra four_bit)")
TINY = partial(Backbone, "tiny", family_of_type("qwen2_vl"), dtype="bfloat16")
LORA = LoRASettings(r=4, alpha=8, bits=4)


@pytest.mark.skipif(here is not None, reason="bitsandbytes is installed")
def test_without_bitsandbytes_there_is_one_message():
    with pytest.raises(ConfigError, match=r"backbone\.lora\.bits: 4 needs bitsandbytes, which is not installed; `pip"):
        TINY(lora=LORA)


@pytest.fixture
def backbone():
    backbone = TINY(lora=LORA).eval()
    torch.manual_seed(1)
    for parameter in backbone.parameters():
        if parameter.requires_grad:
            parameter.data.add_(torch.randn_like(parameter) * 0.05)
    return backbone


@needed
def test_the_language_models_layers_lie_in_four_bits(backbone):
    from bitsandbytes.functional import dequantize_4bit

    plain = TINY().model.state_dict()
    packed = [name for name, p in backbone.model.named_parameters() if p.dtype == torch.uint8]
    layers = len(backbone.language.text_model.layers)
    assert len(packed) == 7 * layers
    for name in packed:
        weight = backbone.model.get_parameter(name)
        whole = plain[name.replace(".base_layer", "")]
        assert weight.numel() == whole.numel() // 2
        error = (dequantize_4bit(weight.data, weight.quant_state) - whole).abs().float()
        assert 0 < error.mean() < 0.12 * whole.abs().float().mean()  # 16 levels, fitted to a normal distribution


@needed
def test_merged_weights_answer_as_the_model_did(backbone, prompts, tmp_path):
    batch = prompts(backbone)
    before = {name: value.clone() for name, value in backbone.model.state_dict().items()}
    backbone.export(tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in backbone.model.state_dict().items())
    merged = Backbone(str(tmp_path)).eval()
    assert not any("absmax" in name or "lora" in name for name in merged.model.state_dict())
    assert {value.dtype for value in merged.model.state_dict().values()} == {torch.bfloat16}
    with torch.no_grad():
        ours, its, bare = (one.logits(batch).float() for one in (backbone, merged, TINY().eval()))
    mask = batch.attention_mask.bool()
    assert (ours - its)[mask].abs().mean() < 0.1 * (ours - bare)[mask].abs().mean()


@needed
def test_adapters_learn_and_the_reference_is_the_base_in_four_bits(backbone, prompts, samples):
    examples = [backbone.processor.encode(s, mode="direct", target="answer") for s in samples]
    batch = backbone.processor.collate(examples, samples)
    with torch.no_grad(), backbone.base_weights():
        reference = backbone.logits(batch)
    optimizer = torch.optim.AdamW([p for p in backbone.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(4):
        loss, _ = backbone.train().label_loss(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    with torch.no_grad(), backbone.eval().base_weights():
        assert torch.equal(backbone.logits(batch), reference)
    out = rollout(backbone, prompts(backbone), SamplingSettings(6), 2, torch.Generator().manual_seed(0))
    with torch.no_grad():
        scores, _ = backbone.completion_logprobs(prompts(backbone), out.tokens, out.completion_mask)
    assert (out.logprobs - scores).abs().mean() < 0.1


@needed
def test_shards_are_refused(backbone):
    with pytest.raises(ConfigError, match=r"trainer\.strategy: cannot share weights in four bits"):
        backbone.shard(None)
