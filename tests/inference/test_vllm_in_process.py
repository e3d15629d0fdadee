"""vLLM in this process beside the built-in engine; needs a Python that has both vLLM 0.32 and this project.

``tests/inference/real_server.py`` says how vLLM is installed on a CPU. The requirements of this project go there by
``pip install --no-deps``, since those of vLLM are stricter, and the project by ``PYTHONPATH``.
"""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

from kvg.backbones.backbone import Backbone
from kvg.errors import EngineError
from kvg.inference.vllm_in_process import VLLMEngine
from kvg.rl.mismatch import MismatchCorrection
from kvg.rl.sampling import SamplingSettings
from tests.inference.vllm_cases import (
    GREEDY,
    LORA,
    NUM,
    SIZES,
    greedy_alike,
    moved,
    prompts,
    sample,
    sampled_alike,
    trained,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(find_spec("vllm") is None, reason="no vllm in this Python"),
]
OPTIONS = {"gpu_memory_utilization": 0.05, "kv_cache_memory_bytes": 2**29, "max_model_len": 512, "enforce_eager": True}


@pytest.fixture(scope="module")
def make_batch(scenes):
    return lambda backbone, num=NUM: prompts(backbone, scenes(num, SIZES))


def test_whole_weights_are_brought(make_batch):
    """The lab's model shares embeddings and output layer, which vLLM renews only when it is made to."""
    backbone, engine = Backbone("lab"), VLLMEngine(OPTIONS)
    batch = make_batch(backbone)
    torch.manual_seed(3)
    state, threads, set_threads = torch.get_rng_state(), torch.get_num_threads(), torch.set_num_threads
    engine.sync(backbone, 0)
    before = greedy_alike(engine, backbone, batch)
    assert not before.truncated.all()
    assert torch.equal(torch.get_rng_state(), state)
    assert (torch.get_num_threads(), torch.set_num_threads) == (threads, set_threads)
    sampled_alike(engine, backbone, make_batch(backbone, 6))
    engine.sync(moved(backbone), 1)
    after = greedy_alike(engine, backbone, batch)
    assert before.tokens.shape != after.tokens.shape or not torch.equal(before.tokens, after.tokens)
    sampled_alike(engine, backbone, make_batch(backbone, 6))


def test_adapters_are_brought(make_batch):
    backbone, engine = Backbone("lab", lora=LORA), VLLMEngine(OPTIONS)
    batch = make_batch(backbone)
    engine.sync(backbone, 0)
    before = greedy_alike(engine, backbone, batch)
    engine.sync(moved(backbone), 1)
    after = greedy_alike(engine, backbone, batch)
    assert before.tokens.shape != after.tokens.shape or not torch.equal(before.tokens, after.tokens)
    assert engine._llm.llm_engine.list_loras() == {2}


def test_log_probabilities_are_of_the_truncated_distribution(make_batch):
    """So top-p counts as mismatch: the ratio of policy and engine is the mass of the kept tokens, at most 1."""
    backbone, engine = Backbone("lab"), VLLMEngine(OPTIONS)
    batch = make_batch(backbone, 6)
    engine.sync(backbone, 0)
    out = sample(engine, backbone, batch, SamplingSettings(64, 1.0, top_p=0.8), 4)
    own, _ = backbone.completion_logprobs(batch, out.tokens, out.completion_mask)
    figures = MismatchCorrection().figures(own.detach(), out.logprobs, out.completion_mask)
    assert figures["ratio_max"] < 1.005
    assert figures["kl"] > 0.005


def test_another_picture_budget_is_refused(make_batch):
    """By an option that makes vLLM see other pictures than the trainer does."""
    backbone = Backbone("lab")
    pixels = 4 * 28 * 28
    engine = VLLMEngine({**OPTIONS, "mm_processor_kwargs": {"size": {"shortest_edge": pixels, "longest_edge": pixels}}})
    engine.sync(backbone, 0)
    with pytest.raises(EngineError, match="reads another prompt"):
        sample(engine, backbone, make_batch(backbone, 2), GREEDY)


def test_what_vllm_refuses_is_an_error_of_the_engine():
    with pytest.raises(EngineError, match=r"vLLM in this process: does not start \(.*max_model_len"):
        VLLMEngine({**OPTIONS, "max_model_len": 10**6}).sync(Backbone("lab"), 0)


@pytest.mark.parametrize("lora", [LORA, None], ids=["lora", "full"])
def test_stage_2_trains_on_it(lora, lab_shards, tmp_path):
    trained(VLLMEngine(OPTIONS), Backbone("lab", lora=lora), lab_shards(tmp_path / "set", 8), tmp_path)
