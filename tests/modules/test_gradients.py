"""Gradients are clipped in every precision that trains, with fused optimizers too."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision

from data_modules import CoTSFTDataModule
from kvg.errors import ConfigError
from kvg.modules.cot_sft import CoTSFTModule
from kvg.modules.gradients import clip_gradients


def parameters(*gradients):
    made = [torch.nn.Parameter(torch.zeros(len(gradient))) for gradient in gradients]
    for parameter, gradient in zip(made, gradients, strict=True):
        parameter.grad = torch.tensor(gradient)
    return [*made, torch.nn.Parameter(torch.zeros(2))]  # the last one is not learnt


@pytest.mark.parametrize(
    ("limit", "algorithm", "expected"),
    [
        (None, None, [3.0, -4.0, 12.0]),
        (0, None, [3.0, -4.0, 12.0]),
        (26.0, "norm", [3.0, -4.0, 12.0]),
        (6.5, "norm", [1.5, -2.0, 6.0]),
        (6.5, None, [1.5, -2.0, 6.0]),
        (3.5, "value", [3.0, -3.5, 3.5]),
    ],
)
def test_limit_by_hand(limit, algorithm, expected):
    """The norm of (3, -4, 12) is 13."""
    made = parameters([3.0, -4.0], [12.0])
    norm = clip_gradients(made, limit, algorithm)
    assert float(norm) == pytest.approx(13.0)
    assert torch.cat([p.grad for p in made[:2]]).tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize(("algorithm", "size"), [(None, lambda v: v.norm()), ("value", lambda v: v.abs().max())])
def test_a_step_is_as_long_as_the_limit_with_a_fused_optimizer(precision, algorithm, size, fit, tiny, two):
    """Plain SGD at a rate of 1 moves the weights by their clipped gradients."""
    backbone = tiny()
    before = {name: value.detach().clone() for name, value in backbone.named_parameters()}
    sgd = partial(torch.optim.SGD, lr=1.0, fused=True)
    module = CoTSFTModule(backbone, sgd, warmup=0.0, schedule="constant", export=False)
    settings = {"precision": precision, "gradient_clip_val": 1e-2, "gradient_clip_algorithm": algorithm}
    fit(module, CoTSFTDataModule(two, batch_size=2), 1, **settings)
    moved = torch.cat([(value.detach() - before[name]).flatten() for name, value in backbone.named_parameters()])
    assert float(size(moved)) == pytest.approx(1e-2, rel=1e-3)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_fused_adamw_learns_with_a_limit(precision, fit, tiny, two):
    adamw = partial(torch.optim.AdamW, lr=3e-3, fused=True)
    module = CoTSFTModule(tiny(), adamw, warmup=0.0, schedule="constant", export=False)
    log = fit(module, CoTSFTDataModule(two, batch_size=2), 6, precision=precision, gradient_clip_val=1.0)
    assert log["train/loss"][-1] < log["train/loss"][0] - 0.1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        # Named by its plugin, as Lightning puts bf16-mixed in its place on a CPU.
        ({"plugins": [MixedPrecision("16-mixed", "cpu")]}, r"trainer\.precision: '16-mixed' .* use bf16-mixed"),
        ({"precision": "16-true"}, r"trainer\.precision: '16-true' .* use bf16-mixed"),
        ({"gradient_clip_val": -1.0}, r"trainer\.gradient_clip_val: -1\.0 must not be negative"),
    ],
)
def test_settings_that_would_spoil_gradients_are_refused(settings, message, fit, tiny, adamw, two):
    with pytest.raises(ConfigError, match=message):
        fit(CoTSFTModule(tiny(), adamw(1e-3)), CoTSFTDataModule(two, batch_size=2), 1, **settings)
