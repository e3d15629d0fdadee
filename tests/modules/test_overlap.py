"""Stage 2 that samples one batch ahead: which weights sampled what, what the loss makes of it, and how it resumes."""

from __future__ import annotations

import copy
import threading
from functools import partial
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
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
from kvg.rewards.base import Reward
from kvg.rewards.combine import WeightedReward
from tests.inference.fake_vllm import BACKBONE, FakeVLLM
from tests.modules.stage_2 import EqualReward


class Letters(Reward):
    """Something that differs between the completions of random weights."""

    def __call__(self, answers, samples) -> torch.Tensor:
        return torch.tensor([float(sum(map(ord, answer.completion.text)) % 97) for answer in answers])


class Recording(BuiltInEngine):
    """Keeps what it was called with, and what it gave."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[dict[str, Any]] = []

    def sample(self, backbone, batch, settings, group_size, generator):
        call = {"thread": threading.current_thread() is not threading.main_thread(), "batch": batch}
        call |= {"seed": generator.initial_seed(), "policy": backbone, "weights": trained(backbone)}
        self.calls.append({**call, "out": super().sample(backbone, batch, settings, group_size, generator)})
        return self.calls[-1]["out"]


class Remote(Recording):
    """An engine outside: it has a copy of the weights that it was brought, as a server has."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[int] = []

    @property
    def external(self) -> bool:
        return True

    def sync(self, backbone, step) -> None:
        assert threading.current_thread() is threading.main_thread()
        self.steps.append(step)
        self.copy = copy.deepcopy(backbone).eval()

    def sample(self, backbone, batch, settings, group_size, generator):
        return super().sample(self.copy, batch, settings, group_size, generator)


class RecordingLoss(GRPOLoss):
    """Keeps what it was given."""

    def __init__(self) -> None:
        super().__init__(beta=0.0)
        self.calls: list[dict[str, torch.Tensor]] = []

    def __call__(self, logprobs, old_logprobs, *rest):
        self.calls.append({"logprobs": logprobs.detach(), "old": old_logprobs, "mask": rest[2], "weights": rest[5]})
        return super().__call__(logprobs, old_logprobs, *rest)


class Weights(Callback):
    """The weights after each number of steps."""

    def __init__(self) -> None:
        self.of_step: dict[int, list[torch.Tensor]] = {}

    def on_train_start(self, trainer, pl_module) -> None:
        self.of_step[trainer.global_step] = trained(pl_module.backbone)

    def on_train_batch_end(self, trainer, pl_module, *rest) -> None:
        self.of_step[trainer.global_step] = trained(pl_module.backbone)


def trained(backbone) -> list[torch.Tensor]:
    return [p.detach().clone() for p in backbone.parameters() if p.requires_grad]


def equal(ours, theirs) -> bool:
    return all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


@pytest.fixture
def run(fit, tiny, eight, adamw):
    """A run over four batches of two prompts an epoch."""

    def start(steps: int, engine: Any = None, loss: Any = None, rewards=Letters, backbone=None, lr=1e-2, **settings):
        trainer = {name: settings.pop(name) for name in ("callbacks", "precision") if name in settings}
        module = GRPOModule(
            backbone or tiny(),
            WeightedReward({"letters": rewards()}),
            loss or GRPOLoss(beta=0.0),
            adamw(lr),
            **{"group_size": 2, "max_new_tokens": 6, "overlap": True, "export": False, "engine": engine, **settings},
        )
        return module, fit(module, GRPODataModule(eight, mode="direct", batch_size=2), steps, **trainer)

    return start


@pytest.mark.parametrize(
    "parts", [{}, {"lora": LoRASettings(r=4, dropout=0.1)}, {"freeze_vision": False, "freeze_projector": False}]
)
def test_which_weights_sampled_what(run, tiny, parts):
    engine, weights = Recording(), Weights()
    _, log = run(6, engine, backbone=tiny(**parts), callbacks=[weights])
    # Four batches an epoch; the first of each is sampled when it is needed, and nothing beyond the sixth step.
    assert log["train/policy_lag"] == [0, 1, 1, 1, 0, 1]
    assert [call["thread"] for call in engine.calls] == [False, True, True, True, False, True]
    for call, step in zip(engine.calls, (0, 0, 1, 2, 4, 4), strict=True):
        assert equal(call["weights"], weights.of_step[step])
        assert not equal(call["weights"], weights.of_step[step + 1])
    assert len({call["seed"] for call in engine.calls}) == 6


def test_the_weights_of_the_beginning_sample_although_others_are_there_at_the_end(run, tiny):
    """Scored once more, the completions have the log-probabilities of the earlier weights, not of the later ones."""
    engine, weights = Recording(), Weights()
    run(3, engine, callbacks=[weights])
    call, scores = engine.calls[2], []
    for step in (1, 2):
        backbone = tiny().eval()
        with torch.no_grad():
            for parameter, value in zip(
                (p for p in backbone.parameters() if p.requires_grad), weights.of_step[step], strict=True
            ):
                parameter.copy_(value)
            out = call["out"]
            scores.append(backbone.completion_logprobs(call["batch"], out.tokens, out.completion_mask)[0])
    torch.testing.assert_close(scores[0], call["out"].logprobs, atol=1e-5, rtol=1e-4)
    assert (scores[1] - call["out"].logprobs).abs().max() > 0.01


def test_what_is_not_trained_is_not_copied(run, tiny):
    engine = Recording()
    module, _ = run(2, engine, backbone=tiny(lora=LoRASettings(r=4)))
    ours, copied = (dict(one["policy"].named_parameters()) for one in engine.calls)
    assert engine.calls[0]["policy"] is module.backbone
    assert {name for name in ours if ours[name] is not copied[name]} == {name for name in ours if "lora_" in name}


def test_the_ratio_is_to_the_policy_that_sampled(run):
    engine, loss = Recording(), RecordingLoss()
    _, log = run(3, engine, loss)
    first, second, third = loss.calls
    assert torch.equal(first["old"], first["logprobs"])
    assert log["train/ratio"][0] == 1.0
    for number, call in ((1, second), (2, third)):
        out = engine.calls[number]["out"]
        assert torch.equal(call["old"], out.logprobs)
        ratio = (call["logprobs"] - out.logprobs).exp()[out.completion_mask].mean()
        assert log["train/ratio"][number] == pytest.approx(float(ratio), rel=1e-6)
        assert abs(float(ratio) - 1) > 1e-3


def test_truncated_sampling_is_scored_by_the_policy_that_sampled(run):
    """With top-p the sampler's log-probabilities are no policy's; those of the whole distribution are lower."""
    engine, loss = Recording(), RecordingLoss()
    run(2, engine, loss, top_p=0.5)
    call, out = loss.calls[1], engine.calls[1]["out"]
    expected = engine.calls[1]["policy"].completion_logprobs(engine.calls[1]["batch"], out.tokens, out.completion_mask)
    torch.testing.assert_close(call["old"], expected[0], atol=1e-6, rtol=0)  # the copy was last brought up for it
    assert (call["old"] < out.logprobs)[out.completion_mask].all()


def test_several_updates_of_a_batch_are_a_longer_lag(run):
    _, log = run(16, num_iterations=2, num_minibatches=2)
    assert log["train/policy_lag"] == [0, 4, 4, 4]


def test_batches_that_teach_nothing_are_no_lag(run):
    """Up to two further batches for each update: no step is done by the third batch, and one then."""
    _, log = run(2, rewards=EqualReward, max_resample_batches=2)
    assert log["train/resampled_batches"] == [0, 1, 2, 0, 1, 2]
    assert log["train/policy_lag"] == [0, 0, 0, 1, 0, 0]  # the fifth batch begins an epoch


@pytest.mark.parametrize("settings", [{}, {"top_k": 5, "num_iterations": 2}])
def test_same_seed_same_run(run, settings):
    (first, one), (second, other) = run(6, **settings), run(6, **settings)
    clocks = ("_s",)
    assert [{k: v for k, v in step.items() if not k.endswith(clocks)} for step in one.steps] == [
        {k: v for k, v in step.items() if not k.endswith(clocks)} for step in other.steps
    ]
    assert equal(trained(first.backbone), trained(second.backbone))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_a_thread_samples_as_the_step_does(run, precision):
    """Nothing moves, so each batch can be sampled once more, in this thread, within the step's precision."""
    engine = Recording()
    module, _ = run(3, engine, lr=0.0, precision=precision)
    for call in engine.calls:
        generator = torch.Generator().manual_seed(call["seed"])
        with module.trainer.precision_plugin.forward_context():
            torch.set_default_dtype(torch.float32)
            out = BuiltInEngine().sample(module.backbone.eval(), call["batch"], module.rollout_sampling, 2, generator)
        assert torch.equal(out.tokens, call["out"].tokens)
        torch.testing.assert_close(out.logprobs, call["out"].logprobs, atol=1e-6, rtol=0)


@pytest.mark.parametrize("settings", [{}, {"num_iterations": 2, "top_p": 0.9}])
@pytest.mark.parametrize("at", [2, 3])  # a batch was sampled ahead; the fourth of the epoch comes next
def test_a_resumed_run_is_bitwise_the_same(fit, tiny, eight, adamw, tmp_path, settings, at):
    def train(steps, **trainer):
        module = GRPOModule(
            tiny(), WeightedReward({"letters": Letters()}), GRPOLoss(), adamw(1e-2),
            group_size=2, max_new_tokens=6, overlap=True, export=False, **settings,
        )  # fmt: skip
        data, weights = GRPODataModule(eight, mode="direct", batch_size=2), Weights()
        path = trainer.pop("ckpt_path", None)
        data.connect(module.backbone)
        L.seed_everything(0, verbose=False)
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        recorder = [
            ModelCheckpoint(tmp_path, "step{step}", every_n_train_steps=1, save_top_k=-1, auto_insert_metric_name=False)
        ]
        fitting = L.Trainer(
            accelerator="cpu", max_steps=steps, use_distributed_sampler=False, callbacks=[*recorder, weights], **quiet,
        )  # fmt: skip
        fitting.fit(module, data, ckpt_path=path, weights_only=True)
        return weights.of_step

    updates = settings.get("num_iterations", 1)
    whole = train(6 * updates)
    step = at * updates
    pending = torch.load(tmp_path / f"step{step}.ckpt", weights_only=True)["callbacks"]["BatchSampler"]
    assert [one["step"] for one in pending["processes"]] == [step - updates]
    resumed = train(6 * updates, ckpt_path=tmp_path / f"step{step}.ckpt")
    assert equal(resumed[6 * updates], whole[6 * updates])


def test_an_engine_that_is_lost_ends_the_next_step(run):
    """The update beside it is done; what was to be sampled is missing when it is needed."""

    class Lost(BuiltInEngine):
        def sample(self, *rest):
            if threading.current_thread() is not threading.main_thread():
                raise EngineError("http://127.0.0.1:1/v1", "is lost")
            return super().sample(*rest)

    weights = Weights()
    with pytest.raises(EngineError, match="is lost"):
        run(3, Lost(), callbacks=[weights])
    assert sorted(weights.of_step) == [0, 1]


def test_an_engine_outside_gets_the_weights_before_it_samples_ahead(run):
    engine, weights, loss = Remote(), Weights(), RecordingLoss()
    _, log = run(4, engine, loss, callbacks=[weights])
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


def test_a_graph_cannot_be_recorded_beside_an_update(run, tiny):
    with pytest.raises(ConfigError, match=r"model.overlap: true cannot record a CUDA graph"):
        run(1, backbone=tiny(decoding="fixed_shape"))


def test_other_data_give_no_next_batch(tiny, adamw, tmp_path):
    module = GRPOModule(tiny(), WeightedReward({"letters": Letters()}), GRPOLoss(), adamw(1e-2), overlap=True)
    trainer = L.Trainer(accelerator="cpu", max_steps=1, logger=False, default_root_dir=tmp_path)
    with pytest.raises(ConfigError, match=r"model.overlap: true needs the next batch"):
        trainer.fit(module, DataLoader([0]))
