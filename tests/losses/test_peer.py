"""Value and gradient of each policy loss beside TRL's own code on the same tensors (``pip install .[peer]``)."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from kvg.losses.family import BNPOLoss, CISPOLoss, DAPOLoss, DrGRPOLoss, GRPOLoss, GSPOLoss
from kvg.losses.policy import PolicyLoss

pytestmark = pytest.mark.peer

LOW, HIGH, LONGEST = 0.1, 0.15, 9
CASES: dict[str, tuple[PolicyLoss, dict[str, Any]]] = {
    "grpo": (GRPOLoss(LOW, HIGH, beta=0.0), {"loss_type": "grpo"}),
    "grpo with KL": (GRPOLoss(LOW, HIGH, beta=0.3), {"loss_type": "grpo", "beta": 0.3}),
    "bnpo": (BNPOLoss(LOW, HIGH, beta=0.3), {"loss_type": "bnpo", "beta": 0.3}),
    "dapo": (DAPOLoss(LOW, HIGH, beta=0.3), {"loss_type": "dapo", "beta": 0.3}),
    "dr_grpo": (DrGRPOLoss(LONGEST, LOW, HIGH, beta=0.3), {"loss_type": "dr_grpo", "beta": 0.3}),
    "gspo": (
        GSPOLoss(LOW, HIGH, beta=0.3),
        {"loss_type": "grpo", "beta": 0.3, "importance_sampling_level": "sequence"},
    ),
    # TRL's upper bound of CISPO is the cap itself, ours is what it exceeds 1 by, as in the paper.
    "cispo": (CISPOLoss(clip_high=HIGH, beta=0.3), {"loss_type": "cispo", "beta": 0.3, "epsilon_high": 1 + HIGH}),
    "entropy": (BNPOLoss(LOW, HIGH, beta=0.0, entropy=0.2), {"loss_type": "bnpo", "entropy_coef": 0.2}),
}


def trl_loss(
    settings: dict[str, Any],
    policy: Tensor,
    old: Tensor,
    ref: Tensor,
    advantages: Tensor,
    mask: Tensor,
    entropies: Tensor,
) -> Tensor:
    """TRL's ``_compute_loss``, its model replaced by given log-probabilities, one process, one accumulated batch."""
    from trl import GRPOTrainer

    settings = {
        "beta": 0.0,
        "importance_sampling_level": "token",
        "epsilon_high": HIGH,
        "entropy_coef": 0.0,
        **settings,
    }
    trainer = object.__new__(GRPOTrainer)
    one = SimpleNamespace(
        num_processes=1, sync_gradients=True, gather=lambda x: x, gather_for_metrics=lambda x: x,
        reduce=lambda x, reduction: x,
    )  # fmt: skip
    trainer.__dict__.update(
        settings,
        # KL times ratio is TRL's default; switched off here, as in the papers.
        args=SimpleNamespace(use_bias_correction_kl=False, delta=None, steps_per_generation=1),
        accelerator=one,
        model=torch.nn.Identity().train(),
        epsilon_low=LOW,
        max_completion_length=LONGEST,
        current_gradient_accumulation_steps=1,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        use_vllm=False,
        vllm_importance_sampling_correction=False,
        aux_loss_enabled=False,
        use_adaptive_entropy=False,
        _entropy_bonus_enabled=settings["entropy_coef"] > 0,
        _metrics=defaultdict(lambda: defaultdict(list)),
        _get_per_token_logps_and_entropies=lambda *a, **k: (policy, entropies, None),
    )
    batch = {
        "prompt_ids": torch.zeros(len(mask), 1, dtype=torch.long),
        "prompt_mask": torch.ones(len(mask), 1, dtype=torch.long),
        "completion_ids": torch.zeros(mask.shape, dtype=torch.long),
        "completion_mask": mask.long(),
        "advantages": advantages,
        "old_per_token_logps": old,
        "ref_per_token_logps": ref,
        "num_items_in_batch": mask.sum(),
    }
    loss: Tensor = trainer._compute_loss(None, batch)
    return loss


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_are_those_of_trl(name: str) -> None:
    pytest.importorskip("trl")
    loss, settings = CASES[name]
    torch.manual_seed(0)
    policy = -torch.rand(6, LONGEST) * 3
    old, ref = policy + 0.2 * torch.randn(6, LONGEST), policy + 0.3 * torch.randn(6, LONGEST)
    advantages, entropies = torch.randn(6), torch.rand(6, LONGEST)
    mask = torch.arange(LONGEST) < torch.tensor([[9], [1], [5], [7], [3], [9]])
    found = []
    for way in ("ours", "TRL's"):
        tensors = policy.clone().requires_grad_(), entropies.clone().requires_grad_()
        if way == "ours":
            value, _ = loss(tensors[0], old, ref if loss.beta else None, advantages, mask, tensors[1])
        else:
            value = trl_loss(settings, tensors[0], old, ref, advantages, mask, tensors[1])
        value.backward()  # type: ignore[no-untyped-call]
        grads = [torch.zeros_like(t) if t.grad is None else t.grad for t in tensors]
        found.append((value.detach(), *grads))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    assert found[0][1].abs().max() > 0
