"""Stage 1: supervised fine-tuning on rationales (CoT-SFT), or on answers alone (direct SFT), by the data's target."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from kvg.modules.base import StageModule
from kvg.modules.precision import with_float32_numbers


class CoTSFTModule(StageModule):
    """The paper's stage 1 (section 4.1): next-token loss on the assistant's tokens.

    Whether the rationale or only the answer is learnt is the data module's ``target``; the model is the same.
    """

    _since: float | None = None

    @with_float32_numbers
    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        """Mean negative log-likelihood of the labelled tokens, in nats."""
        if self.backbone.feature_cache is not None:  # else it would gain nothing, and gather a sharded root once more
            batch = self.backbone.with_features(batch)
        loss, num_tokens = self.backbone.label_loss(batch)
        size = len(batch["input_ids"])
        self.log("train/loss", loss, prog_bar=True, batch_size=size)
        now = time.perf_counter()
        if self._since is not None:
            seen = float(batch["attention_mask"].sum())
            self.log("train/tokens_per_s", seen / (now - self._since), batch_size=size)
        self._since = now
        self.log("train/labelled_tokens", num_tokens.float(), batch_size=size)
        return loss
