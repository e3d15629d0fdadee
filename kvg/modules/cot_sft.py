"""Stage 1: supervised fine-tuning on rationales (CoT-SFT) or on answers only (direct SFT), by the data's target."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from torch import Tensor
from torch.optim import Optimizer

from kvg.batches import Batch
from kvg.modules.base import StageModule
from kvg.modules.gradients import TokenWeights, clip_gradients
from kvg.modules.guard import check_step
from kvg.modules.precision import with_float32_numbers
from kvg.modules.run_summary import change
from kvg.rl.experience import TrainingBatch


class CoTSFTModule(StageModule):
    """The paper's stage 1 (section 4.1): next-token loss on the assistant's tokens.

    The data module's ``target`` decides whether the labels include the rationale. All labelled tokens of an optimizer
    step have the same weight, across batches and processes.
    """

    _since: float | None = None

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean negative log-likelihood of the labelled tokens, in nats, and their number."""
        if self.backbone.feature_cache is not None:  # without a cache this only costs an extra gather of a sharded root
            batch = self.backbone.with_visual_tokens(batch)
        return self.backbone.label_loss(batch)

    def on_train_start(self) -> None:
        """Initializes the token weights."""
        super().on_train_start()
        self._weights = TokenWeights(self.trainer.strategy.reduce)
        self._step_batches: list[TrainingBatch] = []  # of the current step, saved if its loss or gradient is not finite

    @with_float32_numbers
    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss, weighted by its number of labelled tokens."""
        self._step_batches.append(TrainingBatch(batch))
        loss, num_tokens = self.loss(batch)
        weighted = self._weights.add(loss, num_tokens)
        size = len(batch)
        self.log("train/loss", self._weights.loss, prog_bar=True, batch_size=size)
        now = time.perf_counter()
        if self._since is not None:
            seen = float(batch.attention_mask.sum())
            self.log("train/tokens_per_s", seen / (now - self._since), batch_size=size)
        self._since = now
        self.log("train/labelled_tokens", self._weights.total_tokens, batch_size=size)
        self.history.add({"loss": self._weights.loss, "tokens": num_tokens})
        return weighted

    def summary(self, means: Mapping[str, Mapping[str, float]]) -> Sequence[str]:
        """See ``StageModule.summary``."""
        num_tokens = means["all"]["tokens"] * self.history.num_batches * self.trainer.world_size
        loss = f"loss {change(means, 'loss')} in the first -> last {self.history.edge} batches"
        return (f"Stage 1: {self.global_step} steps, {num_tokens:,.0f} labelled tokens, {loss}.",)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Weights gradients by tokens, then clips them by the Trainer's settings, also with fused optimizers.

        Lightning rejects fused optimizers with clipping in every mixed precision, because with float16 they unscale
        gradients themselves; bfloat16 has no scale.

        Raises:
            TrainingError: the loss or the gradient is not finite; the weights are not changed.
        """
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        loss = self._weights.loss
        self._weights.finish(parameters, self.trainer.accumulate_grad_batches, self.trainer.world_size)
        norm = clip_gradients(parameters, gradient_clip_val, gradient_clip_algorithm)
        with self.stopping():
            check_step(self.trainer, {"loss": loss, "gradient norm": norm}, self._step_batches)
        self._step_batches.clear()
        self.log("train/grad_norm", norm.detach())
