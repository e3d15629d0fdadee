"""vLLM itself beside the built-in engine: the same answers and log-probabilities, before an update and after it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kvg.backbones.backbone import Backbone
from kvg.errors import EngineError
from kvg.inference.vllm_server import VLLMServer
from tests.inference.real_vllm import COMMAND, vllm_server
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
    pytest.mark.skipif(COMMAND is None, reason="no command vllm; KVG_VLLM may name it"),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> str:
    """The lab's model with an output layer of its own.

    vLLM 0.32 on a CPU keeps a packed copy of an output layer that shares the embeddings, and does not renew it when
    weights are reloaded.
    """
    folder = tmp_path_factory.mktemp("untied")
    Backbone("lab").export(folder)
    weights = load_file(folder / "model.safetensors")
    (embeddings,) = [value for name, value in weights.items() if name.endswith("embed_tokens.weight")]
    save_file({**weights, "lm_head.weight": embeddings.clone()}, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    for part in (config, config.get("text_config", {})):
        part["tie_word_embeddings"] = False
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


@pytest.fixture(scope="module")
def url(base, tmp_path_factory, find_port):
    folder = tmp_path_factory.mktemp("vllm")
    with vllm_server(Path(base), find_port(), folder / "log.txt") as url:
        VLLMServer(url, "lab", str(folder)).calls.wait(400)
        yield url


@pytest.fixture
def engine(url, tmp_path):
    return VLLMServer(url, "lab", str(tmp_path / "engine"))


@pytest.fixture(scope="module")
def make_batch(scenes):
    return lambda backbone, num=NUM: prompts(backbone, scenes(num, SIZES))


def test_greedy_answers_are_the_same(engine, make_batch):
    backbone = Backbone("lab")  # by the numbers the same model as that of the server
    out = greedy_alike(engine, backbone, make_batch(backbone))
    assert not out.truncated.all()


def test_samples_are_of_the_same_distribution(engine, base, make_batch):
    backbone = Backbone(base)
    sampled_alike(engine, backbone, make_batch(backbone, 6))


def test_adapters_are_brought(engine, base, make_batch):
    backbone = Backbone(base, lora=LORA)
    batch = make_batch(backbone, 6)
    engine.sync(backbone, 0)
    before = greedy_alike(engine, backbone, batch)
    engine.sync(moved(backbone), 1)
    after = greedy_alike(engine, backbone, batch)
    assert before.tokens.shape != after.tokens.shape or not torch.equal(before.tokens, after.tokens)
    assert [path.name for path in engine.folder.iterdir()] == ["step1"]
    assert sorted(engine.calls.wait(5)) == ["kvg-step1", "lab"]
    again = VLLMServer(engine.calls.url, "lab", str(engine.folder))  # the run goes on
    again.sync(backbone, 1)
    greedy_alike(again, backbone, batch)


@pytest.mark.parametrize("lora", [LORA, None], ids=["lora", "full"])
def test_stage_2_trains_on_it(engine, base, lora, lab_shards, tmp_path):
    trained(engine, Backbone(base, lora=lora), lab_shards(tmp_path / "set", 8), tmp_path)


def test_another_picture_budget_is_refused(engine, make_batch):
    """The server would see other pictures than the trainer does."""
    backbone = Backbone("lab", max_pixels=100 * 28 * 28 * 4, min_pixels=40_000)
    with pytest.raises(EngineError, match="reads another prompt"):
        sample(engine, backbone, make_batch(backbone, 2), GREEDY)


def test_all_weights_are_brought(engine, base, make_batch):
    """Comes last, since the server keeps them."""
    backbone = Backbone(base)
    batch = make_batch(backbone, 6)
    engine.sync(moved(backbone), 1)
    greedy_alike(engine, backbone, batch)
    assert [path.name for path in engine.folder.iterdir()] == ["step1"]
