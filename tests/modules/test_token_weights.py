"""Stage 1 takes the step of all labelled tokens at once, however they are cut into batches."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from data_modules import CoTSFTDataModule
from kvg.modules.cot_sft import CoTSFTModule
from kvg.modules.gradients import TokenWeights

RATE = 0.5


class Batches(Callback):
    """Keeps each batch, and the number of optimizer steps before it."""

    def __init__(self):
        self.kept = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.kept.append((trainer.global_step, batch))


def replayed(backbone, kept, limit):
    """The same steps by hand: the gradient of the sum over a step's tokens, divided by their number, then clipped."""
    learnt = [p for p in backbone.parameters() if p.requires_grad]
    losses = []
    for step in sorted({step for step, _ in kept}):
        total, num_tokens = torch.zeros(()), 0
        for _, batch in (pair for pair in kept if pair[0] == step):
            loss, num = backbone.label_loss(batch)
            total, num_tokens = total + loss * num, num_tokens + int(num)
        gradients = torch.autograd.grad(total / num_tokens, learnt)
        norm = torch.cat([g.flatten() for g in gradients]).norm()
        factor = min(1.0, limit / float(norm)) if limit else 1.0
        with torch.no_grad():
            for parameter, gradient in zip(learnt, gradients, strict=True):
                parameter -= RATE * factor * gradient
        losses.append(float(total / num_tokens))
    return losses


@pytest.mark.parametrize("limit", [None, 0.05])
@pytest.mark.parametrize(("batch_size", "accumulated"), [(8, 1), (4, 2), (1, 8), (2, 3), (1, 3), (3, 1)])
def test_a_step_is_that_of_all_its_tokens(batch_size, accumulated, limit, fit, tiny, eight):
    """Eight samples in one epoch; with (2, 3) and (1, 3) the last step has fewer batches than the others."""
    backbone, batches = tiny(), Batches()
    sgd = partial(torch.optim.SGD, lr=RATE)
    module = CoTSFTModule(backbone, sgd, warmup=0.0, schedule="constant", export=False)
    settings = {"accumulate_grad_batches": accumulated, "gradient_clip_val": limit, "max_epochs": 1}
    log = fit(module, CoTSFTDataModule(eight, batch_size=batch_size), -1, callbacks=[batches], **settings)
    tokens = [int((batch.labels[:, 1:] != -100).sum()) for _, batch in batches.kept]
    assert batch_size == 8 or max(tokens) > 1.05 * min(tokens)

    expected = tiny()
    start = torch.cat([p.detach().flatten() for p in expected.parameters()])
    losses = replayed(expected, batches.kept, limit)
    steps = [step for step, _ in batches.kept]
    last = [index for index, step in enumerate(steps) if index + 1 == len(steps) or steps[index + 1] != step]
    assert [log["train/loss"][index] for index in last] == pytest.approx(losses, rel=1e-5)
    assert log["train/labelled_tokens"][-1] == sum(
        t for t, step in zip(tokens, steps, strict=True) if step == steps[-1]
    )
    ours, theirs = (torch.cat([p.detach().flatten() for p in b.parameters()]) for b in (backbone, expected))
    assert float((ours - theirs).norm()) < 1e-4 * float((theirs - start).norm())


def test_one_batch_of_one_process_is_left_as_it_is():
    """To the last bit, whatever the number of tokens: by two steps, as what is left of the first must not matter."""
    weights = TokenWeights(lambda tensor, reduce_op: tensor)
    parameter = torch.nn.Parameter(torch.tensor([0.1, 0.7]))
    for num in (3, 49, 0):
        loss = (parameter * torch.tensor([0.3, 1.7])).sum().exp()
        plain = torch.autograd.grad(loss, parameter, retain_graph=True)[0]
        parameter.grad = None
        weights.add(loss, torch.tensor(num)).backward()
        if num:
            assert float(weights.loss) == float(loss)
            assert float(weights.total_tokens) == num
        weights.finish([parameter], accumulated=1, world_size=1)
        assert torch.equal(parameter.grad, plain if num else torch.zeros(2))


def test_accumulated_batches_by_hand():
    """Losses 1 and 4 on 1 and 3 tokens: (1 + 12) / 4 = 3.25; gradients 2 and 6 in the same way: 5."""
    weights, parameter = TokenWeights(lambda tensor, reduce_op: tensor), torch.nn.Parameter(torch.zeros(1))
    for value, slope, num in ((1.0, 2.0, 1), (4.0, 6.0, 3)):
        loss = value + slope * parameter[0]
        (weights.add(loss, torch.tensor(num)) / 4).backward()  # the Trainer's share of four accumulated batches
    assert float(weights.loss) == pytest.approx(3.25)
    assert float(weights.total_tokens) == 4
    weights.finish([parameter], accumulated=4, world_size=1)
    assert parameter.grad.tolist() == pytest.approx([5.0])
