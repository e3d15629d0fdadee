"""A number that is not finite ends a run before it reaches the weights or a file."""

from __future__ import annotations

import contextlib
import math
from functools import partial

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from data_modules import CoTSFTDataModule, EvaluationDataModule, GRPODataModule
from kvg.backbones.backbone import Backbone
from kvg.backbones.soundness import unsound_weights
from kvg.errors import TrainingError
from kvg.losses.family import GRPOLoss
from kvg.modules.cot_sft import CoTSFTModule
from kvg.modules.grpo import GRPOModule
from kvg.rewards.base import Reward
from kvg.rewards.combine import WeightedReward
from kvg.rewards.format import FormatReward
from kvg.rl.drafter import NGramDrafter
from kvg.rl.experience import TrainingBatch
from kvg.rl.rollout import rollout
from kvg.rl.sampling import SamplingSettings

GREEDY = SamplingSettings(max_new_tokens=4, temperature=0.0)
NOT_FINITE = [math.nan, math.inf, -math.inf]
PLACES = {
    "language": "model.language_model.layers.1.mlp.down_proj.weight",
    "vision": "model.visual.blocks.0.attn.qkv.weight",
    "word": "model.language_model.embed_tokens.weight",  # of a word that no text holds; tied to the head
}


def weights(backbone):
    return {name: value.detach().clone() for name, value in backbone.named_parameters()}


def spoil(backbone, name, value):
    weight = dict(backbone.model.named_parameters())[name]
    with torch.no_grad():
        weight.view(len(weight), -1)[-1, 0] = value
    return backbone


class Spoiling(Callback):
    """Spoils a weight after a step, as a faulty kernel would."""

    def __init__(self, step, value=math.nan):
        self.step, self.value = step, value

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            spoil(pl_module.backbone, PLACES["language"], self.value)


class SpoiltLoss(CoTSFTModule):
    """A loss of NaN at one batch."""

    bad_batch = 3

    def training_step(self, batch, batch_idx):
        if batch_idx == self.bad_batch:
            self.backbone.label_loss = lambda _: (torch.tensor(math.nan, requires_grad=True), torch.tensor(5))
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("limit", [None, 1.0])
@pytest.mark.parametrize(("accumulated", "step", "num_batches"), [(1, 3, 1), (2, 1, 2), (4, 0, 4)])
def test_a_loss_that_is_none_stops_stage_1_and_keeps_the_batches_of_its_step(
    accumulated, step, num_batches, limit, fit, tiny, adamw, eight, tmp_path
):
    backbone = tiny()
    kept = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            kept.append(weights(backbone))

    module = SpoiltLoss(backbone, adamw(1e-3), warmup=0.0)
    settings = {"accumulate_grad_batches": accumulated, "gradient_clip_val": limit, "callbacks": [Watch()]}
    before = weights(backbone)
    with pytest.raises(TrainingError, match=rf"step {step}: loss nan, gradient norm .*not finite.*step{step}-rank0"):
        fit(module, CoTSFTDataModule(eight, batch_size=1), 8, **settings)
    last = kept[-1] if kept else before
    assert all(torch.equal(value, last[name]) for name, value in weights(backbone).items())
    paths = sorted((tmp_path / "failed").iterdir())
    assert [path.name for path in paths] == [f"step{step}-rank0-part{number}.pt" for number in range(num_batches)]
    again = TrainingBatch.load(paths[-1]).batch
    assert len(again.samples) == 1
    loss, num_tokens = Backbone.label_loss(backbone, again)
    assert math.isfinite(loss)
    assert num_tokens > 0
    assert not (tmp_path / "export").exists()


@pytest.mark.parametrize("value", NOT_FINITE)
@pytest.mark.parametrize("place", list(PLACES))
@pytest.mark.parametrize("stage", ["cot_sft", "grpo"])
def test_a_model_that_is_not_sound_is_not_trained(stage, place, value, fit, tiny, adamw, two, tmp_path):
    backbone = spoil(tiny(), PLACES[place], value)
    if stage == "cot_sft":
        module, data = CoTSFTModule(backbone, adamw(1e-3)), CoTSFTDataModule(two, batch_size=2)
    else:
        reward = WeightedReward({"format": FormatReward()})
        module = GRPOModule(backbone, reward, GRPOLoss(), adamw(1e-3), group_size=2, max_new_tokens=4)
        data = GRPODataModule(two, mode="direct", batch_size=2)
    checkpoints = ModelCheckpoint(tmp_path / "saved", save_last=True, save_on_exception=True)
    with pytest.raises(TrainingError, match=rf"start from tiny: weights hold NaN.* \(1 in {PLACES[place]}\)"):
        fit(module, data, 2, callbacks=[checkpoints], enable_checkpointing=True)
    assert not (tmp_path / "export").exists()
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_rate_that_throws_the_weights_away_exports_nothing(fit, tiny, two, tmp_path):
    good = tiny()
    good.export(tmp_path / "export")
    before = (tmp_path / "export/model.safetensors").read_bytes()
    sgd = partial(torch.optim.SGD, lr=1e25)
    with pytest.raises(TrainingError, match=r"step 1: loss (nan|inf).*step1-rank0-part0\.pt"):
        fit(CoTSFTModule(tiny(), sgd, warmup=0.0, schedule="constant"), CoTSFTDataModule(two, batch_size=2), 3)
    assert (tmp_path / "export/model.safetensors").read_bytes() == before


@pytest.mark.parametrize("rate", [1e25, 3e38])
def test_weights_thrown_away_by_the_last_step_are_not_exported(rate, fit, tiny, two, tmp_path):
    sgd = partial(torch.optim.SGD, lr=rate)
    with pytest.raises(TrainingError, match="export: weights hold NaN, infinity or values above 1e19"):
        fit(CoTSFTModule(tiny(), sgd, warmup=0.0, schedule="constant"), CoTSFTDataModule(two, batch_size=2), 1)
    assert not (tmp_path / "export").exists()


@pytest.mark.parametrize("value", [*NOT_FINITE, 1e25])
@pytest.mark.parametrize("save_on_exception", [False, True])
def test_the_last_good_checkpoint_stays(save_on_exception, value, fit, tiny, adamw, two, tmp_path):
    saving = ModelCheckpoint(
        tmp_path / "saved", every_n_train_steps=1, save_top_k=1, save_last=True, save_on_exception=save_on_exception
    )
    module = CoTSFTModule(tiny(), adamw(1e-3), warmup=0.0)
    callbacks = [Spoiling(2, value), saving]
    with pytest.raises(TrainingError, match="checkpoint of step 2: weights hold NaN"):
        fit(module, CoTSFTDataModule(two, batch_size=2), 4, callbacks=callbacks, enable_checkpointing=True)
    for path in (tmp_path / "saved").iterdir():
        saved = torch.load(path, weights_only=True)
        assert saved["global_step"] == 1
        assert not unsound_weights(saved["state_dict"])
    assert (tmp_path / "saved/last.ckpt").exists()


def test_a_stopped_run_saves_nothing_more(fit, tiny, adamw, eight, tmp_path):
    """The weights are still finite, and led to what is not."""
    saving = ModelCheckpoint(
        tmp_path / "saved", every_n_train_steps=2, save_top_k=1, save_last=True, save_on_exception=True
    )
    with pytest.raises(TrainingError, match="step 3: loss nan"):
        fit(
            SpoiltLoss(tiny(), adamw(1e-3), warmup=0.0),
            CoTSFTDataModule(eight, batch_size=1),
            8,
            callbacks=[saving],
            enable_checkpointing=True,
        )
    assert torch.load(tmp_path / "saved/last.ckpt", weights_only=True)["global_step"] == 2


class NoReward(Reward):
    """Divides by zero for the second answer."""

    def __init__(self, value):
        self.value = value

    def __call__(self, answers, samples):
        return torch.tensor([0.5, self.value, *[0.5] * (len(answers) - 2)])


@pytest.mark.parametrize("value", NOT_FINITE)
def test_a_reward_that_is_none_stops_stage_2_by_name(value, fit, tiny, adamw, two, tmp_path):
    reward = WeightedReward({"format": FormatReward(), "own": NoReward(value)})
    module = GRPOModule(tiny(), reward, GRPOLoss(), adamw(1e-3), group_size=2, max_new_tokens=4)
    with pytest.raises(TrainingError, match=f"reward own: is {value} for sample .*; correct this reward"):
        fit(module, GRPODataModule(two, mode="direct", batch_size=2), 2)
    assert not (tmp_path / "export").exists()


# An infinite word may have the logit -inf, which is as good as none.
BROKEN = [(place, value) for place in PLACES for value in NOT_FINITE if place != "word" or math.isnan(value)]
DRAWS = [GREEDY, SamplingSettings(4), SamplingSettings(4, 0.7, 0.9), SamplingSettings(4, 1.0, 1.0, 5)]


@pytest.mark.parametrize(("place", "value"), BROKEN)
@pytest.mark.parametrize("share_prefix", [True, False])
def test_sampling_says_that_logits_are_not_finite(share_prefix, place, value, tiny, scenes):
    backbone = spoil(tiny(share_prefix=share_prefix), PLACES[place], value).eval()
    samples = scenes(2, [(84, 84)], snap_px=None)
    examples = [backbone.processor.encode(s, mode="direct", target=None) for s in samples]
    batch = backbone.processor.collate(examples, samples, pad_left=True)
    for settings in DRAWS:
        with pytest.raises(TrainingError, match="from tiny: logits are not finite at token 1 of completion 1 of 4"):
            rollout(backbone, batch, settings, 2, torch.Generator().manual_seed(0))


class Fading:
    """A policy whose logits are finite until one row has been given some tokens; ``rows`` are those left."""

    end_token_ids, pad_token_id, checkpoint = (0,), 0, "fading"

    def __init__(self, value):
        self.value, self.calls = value, 0

    def prefill(self, batch, repeats, room=None):
        return torch.tensor([[-9.0, 0.0, 5.0]]).repeat(3, 1), None

    def decode(self, tokens, state):
        self.calls += 1
        logits = torch.tensor([[-9.0, 0.0, 5.0]]).repeat(len(tokens), 1)
        if self.calls == 3:
            logits[1, 1] = self.value
        return logits

    def gathered(self):
        return contextlib.nullcontext()

    def takes_drafts(self, state):
        return True

    def select(self, state, rows):
        pass

    def any_rank_active(self, active):
        return active


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("decoding", ["one_token", "speculative"])
def test_a_row_that_fades_ends_all_at_once(temperature, value, decoding):
    policy, settings = Fading(value), SamplingSettings(20, temperature)
    policy.decoding = decoding
    # A context of eight tokens is not repeated so early.
    with pytest.raises(TrainingError, match="from fading: logits are not finite at token 4 of completion 2 of 3"):
        rollout(policy, {}, settings, 1, torch.Generator().manual_seed(0), NGramDrafter(order=8))
    assert policy.calls == 3


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_no_command_answers_from_a_model_that_is_not_sound(command, tiny, two, tmp_path):
    module = CoTSFTModule(spoil(tiny(), PLACES["vision"], math.nan).eval(), max_new_tokens=4)
    data = EvaluationDataModule({"a": two}, mode="direct", batch_size=2)
    if command == "validate":
        data = CoTSFTDataModule(two, two, batch_size=2)
    data.connect(module.backbone)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path)
    with pytest.raises(TrainingError, match="logits are not finite"):
        getattr(trainer, command)(module, data)
    assert not (tmp_path / "predictions.jsonl").exists()
