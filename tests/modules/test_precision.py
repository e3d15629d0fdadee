"""A precision casts weights and activations, never the numbers that a stage learns from or reports."""

from __future__ import annotations

import warnings
from functools import partial

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins import HalfPrecision
from torch import Tensor

from data_modules import CoTSFTDataModule, EvaluationDataModule, GRPODataModule
from kvg.backbones.backbone import Backbone
from kvg.backbones.families.qwen2_5_vl import Qwen25VL
from kvg.backbones.families.qwen2_vl import Qwen2VL
from kvg.backbones.lora import LoRASettings
from kvg.errors import ConfigError
from kvg.losses.family import GRPOLoss
from kvg.modules.cot_sft import CoTSFTModule
from kvg.modules.grpo import GRPOModule
from kvg.modules.precision import check_plugins, check_precision
from kvg.rewards.base import Reward
from kvg.rewards.combine import WeightedReward
from kvg.rewards.iou import IoUReward
from kvg.types import Records

HALVES = ("bf16-true", "bf16-mixed")


class RecordingLoss(GRPOLoss):
    """Notes the type of all that it is given and of what it returns."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.types = {}

    def __call__(
        self, logprobs, old_logprobs, ref_logprobs, advantages, mask, entropies=None, counts=None, weights=None
    ):
        given = {"logprobs": logprobs, "old": old_logprobs, "ref": ref_logprobs, "advantages": advantages}
        numbers = logprobs, old_logprobs, ref_logprobs, advantages, mask, entropies, counts, weights
        loss, stats = super().__call__(*numbers)
        given |= {"entropies": entropies, "loss": loss, **stats}
        self.types |= {name: value.dtype for name, value in given.items() if isinstance(value, Tensor)}
        return loss, stats


class LengthReward(Reward):
    """Made by a user without a thought of types."""

    def __init__(self):
        self.types = set()

    def __call__(self, answers, samples) -> Tensor:
        scores = torch.tensor([len(answer.completion.text) / 1000.0 for answer in answers])
        self.types.add(scores.dtype)
        return scores


@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize("num_minibatches", [1, 2])
def test_stage_2_counts_in_float32(precision, num_minibatches, fit, tiny, adamw, two):
    loss, reward = RecordingLoss(beta=0.04), LengthReward()
    module = GRPOModule(
        tiny(),
        WeightedReward({"length": reward, "iou": IoUReward()}),
        loss,
        adamw(1e-3),
        group_size=4,
        max_new_tokens=8,
        num_minibatches=num_minibatches,
        export=False,
    )
    log = fit(module, GRPODataModule(two, two, mode="direct", batch_size=2), 2, precision=precision)
    assert {"logprobs", "old", "ref", "advantages", "entropies", "loss", "kl", "ratio"} <= set(loss.types)
    assert set(loss.types.values()) | reward.types == {torch.float32}
    assert {value.dtype for value in module.trainer.callback_metrics.values()} == {torch.float32}
    assert {getattr(module.metric, name).dtype for name in ("hits", "iou_sum", "count")} == {torch.float32}
    assert torch.get_default_dtype() == torch.float32
    stored = {parameter.dtype for parameter in module.backbone.parameters()}
    assert stored == {torch.bfloat16 if precision == "bf16-true" else torch.float32}
    # The reference is cast as the policy is: it is the policy before the first step.
    assert log["train/kl"][0] == pytest.approx(0.0, abs=1e-7) or num_minibatches == 2
    assert module._reference[0].model.lm_head.weight.dtype == module.backbone.model.lm_head.weight.dtype


@pytest.mark.parametrize("precision", HALVES)
def test_stage_1_counts_in_float32_and_learns(precision, fit, tiny, adamw, two):
    module = CoTSFTModule(tiny(), adamw(3e-3), warmup=0.0, schedule="constant", max_new_tokens=4, export=False)
    log = fit(module, CoTSFTDataModule(two, two, batch_size=2), 6, precision=precision, gradient_clip_val=1.0)
    assert log["train/loss"][-1] < log["train/loss"][0] - 0.1
    assert {value.dtype for value in module.trainer.callback_metrics.values()} == {torch.float32}
    assert float(module.trainer.callback_metrics["val/n"]) == 2.0


@pytest.mark.parametrize("mode", ["direct", "describe"])
def test_questions_are_answered_in_bfloat16(mode, tiny, two, tmp_path):
    """The same as by weights that were bfloat16 from the start; in two turns a batch holds unpadded prompts too."""
    answers = []
    for name, dtype, precision in (("cast", "float32", "bf16-true"), ("stored", "bfloat16", "32-true")):
        module = CoTSFTModule(tiny(dtype=dtype), max_new_tokens=12)
        data = EvaluationDataModule(two, mode=mode, batch_size=2)
        data.connect(module.backbone)
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = L.Trainer(accelerator="cpu", precision=precision, default_root_dir=tmp_path / name, **quiet)
        trainer.test(module, data, verbose=False)
        answers.append((tmp_path / name / "predictions.jsonl").read_text())
    assert answers[0] == answers[1]
    assert len(answers[0].splitlines()) == 2


@pytest.mark.parametrize("family", [Qwen2VL, Qwen25VL])
def test_positions_keep_their_precision_in_a_cast_model(family, scenes):
    """A cast model is the one whose weights were loaded in bfloat16, not one with coarse rotary frequencies, too."""
    tiny = partial(Backbone, "tiny", family=family())
    cast, loaded = tiny().to(torch.bfloat16), tiny(dtype="bfloat16")
    samples = scenes(2, sizes=[(140, 84)], snap_px=None)
    examples = [cast.processor.encode(sample, mode="think", target="rationale") for sample in samples]
    batch = cast.processor.collate(examples, samples)
    assert {buffer.dtype for buffer in cast.model.buffers()} == {torch.float32}
    with torch.no_grad():
        assert torch.equal(cast.logits(batch), loaded.logits(batch))
    double = tiny().double()
    assert {buffer.dtype for buffer in double.model.buffers()} == {torch.float64}


def test_lightning_passes_by_the_records_of_a_batch(tiny, scenes):
    samples = scenes(2)
    processor = tiny().processor
    batch = processor.collate([processor.encode(s, mode="direct", target=None) for s in samples], samples)
    converted = HalfPrecision("bf16-true").convert_input({"inputs": batch, "weights": torch.ones(2)})
    inputs = converted["inputs"]
    assert inputs.samples is batch.samples
    assert inputs.samples == samples
    assert torch.equal(inputs.input_ids, batch.input_ids)
    assert inputs.pictures.tensors["patches"].dtype == torch.uint8
    assert inputs.pictures.owners == batch.pictures.owners
    assert converted["weights"].dtype == torch.bfloat16
    assert Records([1]) != Records([2])


@pytest.mark.parametrize("precision", [16, "16", "16-mixed", "16-true"])
def test_float16_is_refused_in_training_alone(precision):
    check_precision(precision, training=False)
    with pytest.raises(ConfigError, match="not supported in training; use bf16-mixed, bf16-true or 32-true"):
        check_precision(precision, training=True)


@pytest.mark.parametrize("precision", [64, "64-true", "transformer-engine", "transformer-engine-float16", "int8"])
@pytest.mark.parametrize("training", [True, False])
def test_other_precisions_are_refused(precision, training):
    with pytest.raises(ConfigError, match=f"'{precision}' is not supported"):
        check_precision(precision, training)


def test_precision_plugins_are_refused():
    check_plugins(None)
    check_plugins([{"class_path": "lightning.pytorch.plugins.environments.SLURMEnvironment"}])
    for plugins in ("BitsandbytesPrecision", [{"class_path": "lightning.pytorch.plugins.HalfPrecision"}]):
        with pytest.raises(ConfigError, match=r"trainer\.plugins: .*Precision is not supported; leave it out"):
            check_plugins(plugins)


@pytest.mark.parametrize(
    ("dtype", "precision", "lr", "lora", "warned"),
    [
        ("bfloat16", "32-true", 1e-6, None, True),
        ("float32", "bf16-true", 1e-6, None, True),
        ("float32", "bf16-mixed", 1e-6, None, False),
        ("bfloat16", "bf16-true", 1e-2, None, False),
        ("bfloat16", "bf16-true", 1e-3, LoRASettings(r=2), False),
    ],
)
def test_steps_that_bfloat16_loses_are_warned_of(dtype, precision, lr, lora, warned, fit, tiny, adamw, two):
    """At a rate of 1e-6 a run in bfloat16 would train nothing, without a word."""
    module = CoTSFTModule(tiny(dtype=dtype, lora=lora), adamw(lr), warmup=0.0, max_new_tokens=4, export=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(module, CoTSFTDataModule(two, batch_size=2), 1, precision=precision)
    assert any("of the trained weights are in bfloat16" in str(one.message) for one in caught) == warned
