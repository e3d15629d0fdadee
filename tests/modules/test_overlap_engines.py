"""Sampling one batch ahead with engines that are lost, outside or a server, and with what cannot be sampled beside."""

from __future__ import annotations

import threading
from functools import partial

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from data_modules import GRPODataModule
from kvg.backbones.backbone import Backbone
from kvg.backbones.lora import LoRASettings
from kvg.errors import ConfigError, EngineError
from kvg.inference.rollout_engine import BuiltInEngine
from kvg.inference.vllm_server import VLLMServer
from kvg.losses.family import GRPOLoss
from kvg.modules.grpo import GRPOModule
from kvg.modules.sharding import FSDP2Strategy
from kvg.rewards.combine import WeightedReward
from tests.inference.fake_vllm import BACKBONE, FakeVLLM
from tests.modules.overlap import Letters, RecordingLoss, Remote, Weights, equal


def test_an_engine_that_is_lost_ends_the_next_step(ahead):
    """The update beside it is done; what was to be sampled is missing when it is needed."""

    class Lost(BuiltInEngine):
        def sample(self, *rest):
            if threading.current_thread() is not threading.main_thread():
                raise EngineError("http://127.0.0.1:1/v1", "is lost")
            return super().sample(*rest)

    weights = Weights()
    with pytest.raises(EngineError, match="is lost"):
        ahead(3, Lost(), callbacks=[weights])
    assert sorted(weights.of_step) == [0, 1]


def test_an_engine_outside_gets_the_weights_before_it_samples_ahead(ahead):
    engine, weights, loss = Remote(), Weights(), RecordingLoss()
    _, log = ahead(4, engine, loss, callbacks=[weights])
    assert engine.steps == [0, 1, 2, 3]
    for call, step in zip(engine.calls, (0, 0, 1, 2), strict=True):
        assert equal(call["weights"], weights.of_step[step])
    # The gap that is corrected is that of an earlier policy: none at first, and then more than rounding.
    assert log["train/mismatch/kl_k3"][0] == pytest.approx(0.0, abs=1e-6)
    assert min(log["train/mismatch/kl_k3"][1:]) > 1e-5
    for number, call in enumerate(loss.calls):
        out = engine.calls[number]["out"]
        ratio = (call["logprobs"] - out.logprobs).exp().clamp(max=2.0)
        torch.testing.assert_close(call["weights"][out.completion_mask], ratio[out.completion_mask], rtol=1e-4, atol=0)
        torch.testing.assert_close(call["old"], call["logprobs"])


def test_a_server_samples_ahead(fit, eight, adamw, tmp_path):
    backbone = Backbone("lab", lora=LoRASettings(r=4))
    with FakeVLLM(Backbone("lab")) as server:
        module = GRPOModule(
            backbone, WeightedReward({"letters": Letters()}), GRPOLoss(beta=0.0), adamw(1e-2), group_size=2,
            max_new_tokens=6, export=False, overlap=True, engine=VLLMServer(server.url, BACKBONE, str(tmp_path / "w")),
        )  # fmt: skip
        log = fit(module, GRPODataModule(eight, mode="direct", batch_size=2), 3)
    assert log["train/policy_lag"] == [0, 1, 1]
    served = [body["model"] for path, body in server.posts if path == "/v1/chat/completions"]
    assert served == ["kvg-step0"] * 4 + ["kvg-step1"] * 2
    assert log["train/mismatch/kl_k3"][0] < 1e-6 < log["train/mismatch/kl_k3"][1]


@pytest.mark.parametrize("external", [False, True])
def test_a_sharded_model_cannot_be_sampled_beside_its_update(tiny, adamw, external):
    engine = Remote() if external else None
    module = GRPOModule(
        tiny(), WeightedReward({"letters": Letters()}), GRPOLoss(), adamw(1e-2), overlap=True, engine=engine
    )
    check = partial(module.check_command, L.Trainer(accelerator="cpu", devices=1, strategy=FSDP2Strategy()))
    check("test", None)
    if external:
        check("fit", None)
        return
    with pytest.raises(ConfigError, match=r"model.overlap: true cannot sample from a sharded model.*set it to false"):
        check("fit", None)


def test_a_graph_cannot_be_recorded_beside_an_update(ahead, tiny):
    with pytest.raises(ConfigError, match=r"model.overlap: true cannot record a CUDA graph"):
        ahead(1, backbone=tiny(decoding="fixed_shape"))


def test_other_data_give_no_next_batch(tiny, adamw, tmp_path):
    module = GRPOModule(tiny(), WeightedReward({"letters": Letters()}), GRPOLoss(), adamw(1e-2), overlap=True)
    trainer = L.Trainer(accelerator="cpu", max_steps=1, logger=False, default_root_dir=tmp_path)
    with pytest.raises(ConfigError, match=r"model.overlap: true needs the next batch"):
        trainer.fit(module, DataLoader([0]))
