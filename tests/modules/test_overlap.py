"""Stage 2 that samples one batch ahead: which weights sampled what, what the loss makes of it, and how it resumes."""

from __future__ import annotations

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from data_modules import GRPODataModule
from kvg.backbones.lora import LoRASettings
from kvg.inference.rollout_engine import BuiltInEngine
from kvg.losses.family import GRPOLoss
from kvg.modules.grpo import GRPOModule
from kvg.rewards.combine import WeightedReward
from tests.modules.overlap import Letters, Recording, RecordingLoss, Weights, equal, trained
from tests.modules.stage_2 import EqualReward


@pytest.mark.parametrize(
    "parts", [{}, {"lora": LoRASettings(r=4, dropout=0.1)}, {"freeze_vision": False, "freeze_projector": False}]
)
def test_which_weights_sampled_what(ahead, tiny, parts):
    engine, weights = Recording(), Weights()
    _, log = ahead(6, engine, backbone=tiny(**parts), callbacks=[weights])
    # Four batches an epoch; the first of each is sampled when it is needed, and nothing beyond the sixth step.
    assert log["train/policy_lag"] == [0, 1, 1, 1, 0, 1]
    assert [call["thread"] for call in engine.calls] == [False, True, True, True, False, True]
    for call, step in zip(engine.calls, (0, 0, 1, 2, 4, 4), strict=True):
        assert equal(call["weights"], weights.of_step[step])
        assert not equal(call["weights"], weights.of_step[step + 1])
    assert len({call["seed"] for call in engine.calls}) == 6


def test_the_weights_of_the_beginning_sample_although_others_are_there_at_the_end(ahead, tiny):
    """Scored once more, the completions have the log-probabilities of the earlier weights, not of the later ones."""
    engine, weights = Recording(), Weights()
    ahead(3, engine, callbacks=[weights])
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


def test_what_is_not_trained_is_not_copied(ahead, tiny):
    engine = Recording()
    module, _ = ahead(2, engine, backbone=tiny(lora=LoRASettings(r=4)))
    ours, copied = (dict(one["policy"].named_parameters()) for one in engine.calls)
    assert engine.calls[0]["policy"] is module.backbone
    assert {name for name in ours if ours[name] is not copied[name]} == {name for name in ours if "lora_" in name}


def test_the_ratio_is_to_the_policy_that_sampled(ahead):
    engine, loss = Recording(), RecordingLoss()
    _, log = ahead(3, engine, loss)
    first, second, third = loss.calls
    assert torch.equal(first["old"], first["logprobs"])
    assert log["train/ratio"][0] == 1.0
    for number, call in ((1, second), (2, third)):
        out = engine.calls[number]["out"]
        assert torch.equal(call["old"], out.logprobs)
        ratio = (call["logprobs"] - out.logprobs).exp()[out.completion_mask].mean()
        assert log["train/ratio"][number] == pytest.approx(float(ratio), rel=1e-6)
        assert abs(float(ratio) - 1) > 1e-3


def test_truncated_sampling_is_scored_by_the_policy_that_sampled(ahead):
    """With top-p the sampler's log-probabilities are no policy's; those of the whole distribution are lower."""
    engine, loss = Recording(), RecordingLoss()
    ahead(2, engine, loss, top_p=0.5)
    call, out = loss.calls[1], engine.calls[1]["out"]
    expected = engine.calls[1]["policy"].completion_logprobs(engine.calls[1]["batch"], out.tokens, out.completion_mask)
    torch.testing.assert_close(call["old"], expected[0], atol=1e-6, rtol=0)  # the copy was last brought up for it
    assert (call["old"] < out.logprobs)[out.completion_mask].all()


def test_several_updates_of_a_batch_are_a_longer_lag(ahead):
    _, log = ahead(16, num_iterations=2, num_minibatches=2)
    assert log["train/policy_lag"] == [0, 4, 4, 4]


def test_batches_that_teach_nothing_are_no_lag(ahead):
    """Up to two further batches for each update: no step is done by the third batch, and one then."""
    _, log = ahead(2, rewards=EqualReward, max_resample_batches=2)
    assert log["train/resampled_batches"] == [0, 1, 2, 0, 1, 2]
    assert log["train/policy_lag"] == [0, 0, 0, 1, 0, 0]  # the fifth batch begins an epoch


@pytest.mark.parametrize("settings", [{}, {"top_k": 5, "num_iterations": 2}])
def test_same_seed_same_run(ahead, settings):
    (first, one), (second, other) = ahead(6, **settings), ahead(6, **settings)
    clocks = ("_s",)
    assert [{k: v for k, v in step.items() if not k.endswith(clocks)} for step in one.steps] == [
        {k: v for k, v in step.items() if not k.endswith(clocks)} for step in other.steps
    ]
    assert equal(trained(first.backbone), trained(second.backbone))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_a_thread_samples_as_the_step_does(ahead, precision):
    """Nothing moves, so each batch can be sampled once more, in this thread, within the step's precision."""
    engine = Recording()
    module, _ = ahead(3, engine, lr=0.0, precision=precision)
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
