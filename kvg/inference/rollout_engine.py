"""What samples the completions that stage 2 learns from; a config names one by its class."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch

from kvg.backbones.backbone import Backbone
from kvg.batches import Batch
from kvg.rl.rollout import Rollouts, SamplingSettings, rollout


class RolloutEngine(ABC):
    """Samples groups of completions from the policy, here or elsewhere.

    It keeps nothing that a checkpoint would need: weights come by ``sync``, chance by the generator of each call.
    """

    @property
    @abstractmethod
    def external(self) -> bool:
        """Whether log-probabilities are of another implementation than the one that learns.

        Then ``GRPOModule`` scores the completions once more, logs the gap, and corrects it (``kvg.rl.mismatch``).
        """

    @abstractmethod
    def sync(self, backbone: Backbone, step: int) -> None:
        """Takes over the weights; called by all processes before they sample from weights that have changed.

        Args:
            backbone: the policy. With sharded weights, all processes take part in whatever gathers them.
            step: optimizer steps so far.

        Raises:
            EngineError: the engine cannot be reached, or refuses them.
            TrainingError: weights are not finite.
        """

    @abstractmethod
    def sample(
        self,
        backbone: Backbone,
        batch: Batch,
        settings: SamplingSettings,
        group_size: int,
        generator: torch.Generator,
    ) -> Rollouts:
        """Samples ``group_size`` completions of each prompt.

        Args:
            backbone: the policy, in evaluation mode.
            batch: left-padded prompts with their pictures.
            settings: how tokens are sampled.
            group_size: G.
            generator: source of all chance.

        Raises:
            EngineError: the engine cannot be reached, or does not answer as it should.
            TrainingError: logits are NaN or infinite.
        """


class BuiltInEngine(RolloutEngine):
    """The policy samples by itself, see ``kvg.rl.rollout``: each prompt is computed once for its group."""

    @property
    def external(self) -> bool:
        """Never: the log-probabilities are the policy's own."""
        return False

    def sync(self, backbone: Backbone, step: int) -> None:
        """Nothing to do: the weights are the policy's own."""

    def sample(
        self,
        backbone: Backbone,
        batch: Batch,
        settings: SamplingSettings,
        group_size: int,
        generator: torch.Generator,
    ) -> Rollouts:
        """See ``kvg.rl.rollout.rollout``."""
        return rollout(backbone, batch, settings, group_size, generator)
