"""Stage 2 in two processes takes the step of one that holds the answers of both, however unequal their lengths."""

from __future__ import annotations

from functools import partial

import lightning as L
import pytest
import torch

from data_modules import GRPODataModule
from kvg.losses.family import BNPOLoss, CISPOLoss, DAPOLoss, DrGRPOLoss, GRPOLoss, GSPOLoss
from kvg.modules.grpo import GRPOModule
from kvg.rewards.combine import WeightedReward
from kvg.rewards.format import FormatReward
from kvg.rl.experience import Experience

GROUP, LENGTH, RATE = 2, 12, 0.5
TOKENS = ((12, 9, 11, 12), (1, 2, 1, 3))  # of the answers in each process


def experience(backbone, samples, rank):
    """Two prompts with two made-up answers each."""
    own = samples[2 * rank : 2 * rank + 2]
    examples = [backbone.processor.encode(sample, mode="direct", target=None) for sample in own]
    batch = backbone.processor.collate(examples, own, pad_left=True)
    generator = torch.Generator().manual_seed(rank)
    tokens = torch.randint(20, 400, (2 * GROUP, LENGTH), generator=generator)
    mask = torch.arange(LENGTH)[None] < torch.tensor(TOKENS[rank])[:, None]
    advantages = torch.tensor([1.0, -1.0, 0.5, -0.5]) * (1 + rank)
    return Experience(batch, tokens, mask, advantages)


class FixedAnswers(GRPOModule):
    """Learns once from given answers: its own in each of two processes, all of them in one."""

    samples: tuple = ()

    def training_step(self, batch, batch_idx):
        ranks = (self.global_rank,) if self.trainer.world_size == 2 else (0, 1)
        return {"loss": self._learn([experience(self.backbone, self.samples, rank) for rank in ranks])}


def weights_after(tiny, loss, samples, data, tmp_path, num_processes, microbatch_size):
    reward = WeightedReward({"format": FormatReward()})
    sgd = partial(torch.optim.SGD, lr=RATE)
    settings = {"group_size": GROUP, "max_grad_norm": None, "microbatch_size": microbatch_size, "export": False}
    backbone = tiny()
    module = FixedAnswers(backbone, reward, loss, sgd, **settings)
    module.samples = samples
    strategy = {"devices": 2, "strategy": "ddp_fork"} if num_processes == 2 else {"devices": 1}
    trainer = L.Trainer(
        accelerator="cpu", max_steps=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, default_root_dir=tmp_path, **strategy,
    )  # fmt: skip
    loader = GRPODataModule(data, mode="direct", batch_size=1)
    loader.connect(backbone)
    trainer.fit(module, loader)
    return torch.cat([parameter.detach().flatten() for parameter in backbone.parameters()])


LOSSES = {
    "grpo": GRPOLoss(beta=0.0),
    "dapo": DAPOLoss(),
    "dr_grpo": DrGRPOLoss(max_tokens=LENGTH),
    "gspo": GSPOLoss(),
    "cispo": CISPOLoss(),
}


QUICK = {("grpo", 0), ("dapo", 0), ("dapo", 1)}


@pytest.mark.parametrize(
    ("name", "microbatch_size"),
    [
        pytest.param(name, part, marks=[] if (name, part) in QUICK else pytest.mark.slow)
        for name in LOSSES
        for part in (0, 1)
    ],
)
def test_two_processes_with_unequal_answers_take_the_step_of_one(name, microbatch_size, tiny, scenes, two, tmp_path):
    samples = scenes(4, sizes=[(84, 84)], snap_px=None)
    start = torch.cat([parameter.detach().flatten() for parameter in tiny().parameters()])
    arguments = (tiny, LOSSES[name], samples, two, tmp_path)
    one = weights_after(*arguments, 1, microbatch_size)
    both = weights_after(*arguments, 2, microbatch_size)
    assert float((one - start).norm()) > 1e-4
    assert float((one - both).norm()) < 1e-3 * float((one - start).norm())


def test_bnpo_weighs_processes_alike_as_published(tiny, scenes, two, tmp_path):
    """Its average is over the tokens of each process (TRL); DAPO's is over all of them."""
    samples = scenes(4, sizes=[(84, 84)], snap_px=None)
    start = torch.cat([parameter.detach().flatten() for parameter in tiny().parameters()])
    arguments = (tiny, BNPOLoss(beta=0.0), samples, two, tmp_path)
    one, both = weights_after(*arguments, 1, 0), weights_after(*arguments, 2, 0)
    assert float((one - both).norm()) > 0.1 * float((one - start).norm())
