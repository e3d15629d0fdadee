"""vLLM itself beside the built-in engine: the same answers and log-probabilities, before an update and after it."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import lightning as L
import pytest
import torch
from safetensors.torch import load_file, save_file

from data_modules import GRPODataModule
from kvg.backbones.backbone import Backbone
from kvg.backbones.lora import LoRASettings
from kvg.errors import EngineError
from kvg.inference.rollout_engine import BuiltInEngine
from kvg.inference.vllm_server import VLLMServer
from kvg.losses.family import GRPOLoss
from kvg.modules.grpo import GRPOModule
from kvg.rewards.base import Reward
from kvg.rewards.combine import WeightedReward
from kvg.rl.sampling import SamplingSettings
from tests.inference.real_vllm import COMMAND, vllm_server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(COMMAND is None, reason="no command vllm; KVG_VLLM may name it"),
]
NUM, CLOSE = 20, 2e-3  # prompts; nats between two implementations in float32
GREEDY, SAMPLED = SamplingSettings(160, 0.0), SamplingSettings(64, 1.0)
LORA = LoRASettings(r=8)


class Letters(Reward):
    """Differs within every group."""

    def __call__(self, answers, samples):
        return torch.tensor([float(sum(map(ord, answer.completion.text)) % 97) for answer in answers])


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
    def make(backbone, num=NUM):
        samples = scenes(num, [(140, 140), (201, 150), (112, 196), (300, 500)])
        examples = [
            backbone.processor.encode(s, mode=("think", "direct")[n % 2], target=None) for n, s in enumerate(samples)
        ]
        return backbone.processor.collate(examples, samples, pad_left=True)

    return make


def sample(engine, backbone, batch, settings, group=1, seed=0):
    with torch.no_grad():
        return engine.sample(backbone.eval(), batch, settings, group, torch.Generator().manual_seed(seed))


def greedy_alike(engine, backbone, batch):
    ours, theirs = (sample(one, backbone, batch, GREEDY) for one in (BuiltInEngine(), engine))
    torch.testing.assert_close(theirs.tokens, ours.tokens)
    torch.testing.assert_close(theirs.completion_mask, ours.completion_mask)
    torch.testing.assert_close(theirs.truncated, ours.truncated)
    torch.testing.assert_close(theirs.logprobs, ours.logprobs, atol=CLOSE, rtol=0)
    return ours


def moved(backbone):
    """A backbone as after an update, with other answers."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if parameter.requires_grad:
                parameter += (0.05 if "lora_" in name else 0.01) * torch.randn_like(parameter)
    return backbone


def test_greedy_answers_are_the_same(engine, make_batch):
    backbone = Backbone("lab")  # by the numbers the same model as that of the server
    out = greedy_alike(engine, backbone, make_batch(backbone))
    assert not out.truncated.all()


def test_samples_are_of_the_same_distribution(engine, base, make_batch):
    backbone = Backbone(base)
    batch = make_batch(backbone, 6)
    first, again, other = (sample(engine, backbone, batch, SAMPLED, 4, seed) for seed in (0, 0, 1))
    assert first.tokens.shape[0] == 24
    assert torch.equal(first.tokens, again.tokens)
    assert not torch.equal(first.tokens[:, :8], other.tokens[:, :8])
    assert any(not torch.equal(first.tokens[0], row) for row in first.tokens[1:4])
    own, _ = backbone.completion_logprobs(batch, first.tokens, first.completion_mask)
    torch.testing.assert_close(own, first.logprobs, atol=CLOSE, rtol=0)
    warm = sample(engine, backbone, batch, SamplingSettings(64, 1.7), 2)
    own, _ = backbone.completion_logprobs(batch, warm.tokens, warm.completion_mask, temperature=1.7)
    torch.testing.assert_close(own, warm.logprobs, atol=CLOSE, rtol=0)


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
    module = GRPOModule(
        Backbone(base, lora=lora),
        WeightedReward({"letters": Letters()}),
        GRPOLoss(beta=0.0),
        partial(torch.optim.AdamW, lr=1e-3),
        group_size=4,
        max_new_tokens=48,
        export=False,
        engine=engine,
    )
    trainer = L.Trainer(
        accelerator="cpu", max_steps=3, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, use_distributed_sampler=False,
    )  # fmt: skip
    data = GRPODataModule(lab_shards(tmp_path / "set", 8), mode="think", batch_size=4)
    data.connect(module.backbone)
    trainer.fit(module, data)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert abs(logged["train/mismatch/kl"]) < CLOSE  # it has the weights of the last step but one
    assert logged["train/mismatch/ess"] > 0.999
    assert logged["train/mismatch/ratio_max"] == pytest.approx(1.0, abs=0.05)


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
