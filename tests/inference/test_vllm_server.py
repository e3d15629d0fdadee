"""The engine of a vLLM server beside a server of this process that speaks its protocol."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kvg.backbones.backbone import Backbone
from kvg.backbones.lora import LoRASettings
from kvg.errors import ConfigError, EngineError
from kvg.inference.vllm_completions import placeholder_ids
from kvg.inference.vllm_server import VLLMServer
from kvg.rl.rollout import rollout
from kvg.rl.sampling import SamplingSettings
from tests.inference.fake_vllm import BACKBONE, FakeVLLM

GREEDY, SAMPLED = SamplingSettings(12, 0.0), SamplingSettings(12, 1.0)


@pytest.fixture(scope="module")
def lab() -> Backbone:
    return Backbone("lab").eval()


@pytest.fixture
def make_engine(tmp_path):
    def make(server: FakeVLLM, **settings: Any) -> VLLMServer:
        return VLLMServer(server.url, BACKBONE, str(tmp_path / "engine"), wait=0.0, **settings)

    return make


@pytest.fixture(scope="module")
def make_batch(scenes):
    def make(backbone, num=3, mode="think"):
        samples = scenes(num, [(140, 140), (201, 150), (90, 240)])  # the second is resized
        examples = [backbone.processor.encode(sample, mode=mode, target=None) for sample in samples]
        return backbone.processor.collate(examples, samples, pad_left=True)

    return make


def sample(engine, backbone, batch, settings=GREEDY, group=1, seed=0):
    return engine.sample(backbone, batch, settings, group, torch.Generator().manual_seed(seed))


def equal(ours, theirs):
    torch.testing.assert_close(theirs.tokens, ours.tokens)
    torch.testing.assert_close(theirs.completion_mask, ours.completion_mask)
    torch.testing.assert_close(theirs.logprobs, ours.logprobs, atol=1e-4, rtol=0)
    torch.testing.assert_close(theirs.truncated, ours.truncated)


@pytest.mark.parametrize("mode", ["think", "direct"])
def test_what_is_sent_is_the_prompt_and_what_comes_back_the_answer(lab, make_batch, make_engine, mode):
    batch = make_batch(lab, mode=mode)
    with FakeVLLM(lab) as server:
        theirs = sample(make_engine(server), lab, batch, SamplingSettings(60, 0.0))
    equal(rollout(lab, batch, SamplingSettings(60, 0.0)), theirs)
    assert theirs.tokens.dtype == torch.long


def test_a_body(lab, make_batch, make_engine):
    batch = make_batch(lab, 2)
    with FakeVLLM(lab) as server:
        sample(make_engine(server, concurrency=1), lab, batch, SamplingSettings(12, 0.9, 0.8, 5), 4)
    (path, first), (_, second) = server.posts
    assert path == "/v1/chat/completions"
    names = ("model", "n", "temperature", "top_p", "top_k", "max_tokens", "repetition_penalty", "stop_token_ids")
    assert [first[name] for name in names] == [BACKBONE, 4, 0.9, 0.8, 5, 12, 1.0, list(lab.end_token_ids)]
    tokens = lab.processor.tokenizer.convert_tokens_to_ids(["<|image_pad|>", "<|video_pad|>"])
    assert first["logit_bias"] == {str(token): -100 for token in tokens}
    (message,) = first["messages"]
    picture, text = message["content"]
    assert picture["image_url"]["url"].startswith("data:image/png;base64,")
    assert "<|image_pad|>" not in text["text"]  # the server puts in the placeholder, and expands it
    assert first["seed"] != second["seed"]


def test_a_seed_of_the_run_is_a_run(lab, make_batch, make_engine):
    batch = make_batch(lab, 2)
    with FakeVLLM(lab) as server:
        engine = make_engine(server)
        first, again, other = (sample(engine, lab, batch, SAMPLED, 3, seed) for seed in (0, 0, 1))
    assert torch.equal(first.tokens, again.tokens)
    assert not torch.equal(first.tokens, other.tokens)
    assert first.tokens.shape == (6, 12)


# -- weights -----------------------------------------------------------------------------------------------------------
def moved(backbone: Backbone) -> Backbone:
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn_like(parameter)
    return backbone.eval()


def test_adapters_travel_alone(lab, make_batch, make_engine):
    backbone = moved(Backbone("lab", lora=LoRASettings(r=4)))
    batch = make_batch(backbone)
    with FakeVLLM(lab) as server:
        engine = make_engine(server)
        engine.sync(backbone, 7)
        equal(rollout(backbone, batch, GREEDY), sample(engine, backbone, batch))
        assert {path.name for path in engine.folder.rglob("*")} >= {"step7", "adapter_model.safetensors"}
        assert not list(engine.folder.rglob("model.safetensors"))
        engine.sync(moved(backbone), 8)
        equal(rollout(backbone, batch, GREEDY), sample(engine, backbone, batch))
        assert list(server.adapters) == ["kvg-step8"]
        assert [path.name for path in engine.folder.iterdir()] == ["step8"]
        again = make_engine(server)  # the run goes on from its checkpoint
        again.sync(backbone, 8)
        assert [path for path, _ in server.posts][-2:] == ["/v1/unload_lora_adapter", "/v1/load_lora_adapter"]


def test_whole_weights_travel_where_more_is_trained(lab, make_batch, make_engine):
    backbone = moved(Backbone("lab"))
    batch = make_batch(backbone)
    with FakeVLLM(lab) as server:
        engine = make_engine(server)
        engine.sync(backbone, 1)
        equal(rollout(backbone, batch, GREEDY), sample(engine, backbone, batch))
        engine.sync(backbone, 2)
    paths = [path for path, _ in server.posts]
    assert paths[:4] == ["/collective_rpc", "/reset_encoder_cache", "/reset_mm_cache", "/reset_prefix_cache"]
    assert [path.name for path in engine.folder.iterdir()] == ["step2"]


# -- faults ------------------------------------------------------------------------------------------------------------
def no_token_ids(answer):
    del answer["choices"][0]["token_ids"]


def another_prompt(answer):
    answer["prompt_token_ids"].pop(3)


def a_token_too_many(answer):
    answer["choices"][0]["token_ids"].append(5)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (no_token_ids, "without token ids and log-probabilities"),
        (another_prompt, "reads another prompt"),
        (a_token_too_many, "13 tokens with 12 log-probabilities"),
    ],
)
def test_answers_are_checked(lab, make_batch, make_engine, spoil, message):
    with FakeVLLM(lab, spoil) as server, pytest.raises(EngineError, match=message):
        sample(make_engine(server), lab, make_batch(lab, 1))


def test_a_placeholder_among_the_answers_is_refused(lab, make_batch, make_engine):
    image = placeholder_ids(lab)[0]

    def spoil(answer):
        answer["choices"][0]["token_ids"][0] = image

    with FakeVLLM(lab, spoil) as server, pytest.raises(EngineError, match="in spite of logit_bias"):
        sample(make_engine(server), lab, make_batch(lab, 1))


def test_a_lost_server_says_so(lab, make_batch, make_engine):
    with FakeVLLM(lab) as server:
        engine = make_engine(server)
        sample(engine, lab, make_batch(lab, 1))
    with pytest.raises(EngineError, match=rf"{server.url}: the server is lost .*start it again"):
        sample(engine, lab, make_batch(lab, 1))
    with pytest.raises(EngineError, match="no vLLM server within 0 s"):
        make_engine(server).sync(lab, 0)


@pytest.mark.parametrize(
    ("lora", "path", "remedy"),
    [
        (LoRASettings(r=4), "/v1/load_lora_adapter", "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"),
        (None, "/collective_rpc", "VLLM_SERVER_DEV_MODE=1"),
    ],
)
def test_a_server_that_takes_no_weights_says_how_it_would(make_engine, lab, lora, path, remedy):
    with FakeVLLM(lab) as server:
        server.refused[path] = 404
        with pytest.raises(EngineError, match=rf'{path} answers 404 "refused"; start vLLM with {remedy}'):
            make_engine(server).sync(Backbone("lab", lora=lora), 0)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"url": "localhost:8000"}, "url"),
        ({"model": ""}, "model"),
        ({"folder": ""}, "folder"),
        ({"timeout": 0}, "timeout"),
    ],
)
def test_settings_are_checked(settings, field):
    good = {"url": "http://127.0.0.1:1/v1", "model": "lab", "folder": "engine"}
    with pytest.raises(ConfigError, match=rf"model\.engine\.{field}"):
        VLLMServer(**{**good, **settings})
